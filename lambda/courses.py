"""The demos that there are: what of each built-in plant's data is history, and what is replayed."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.data.durations import SECOND_NS
from penstock.data.simulator_station import NAME as SIMULATED
from penstock.data.simulator_station import station_of
from penstock.errors import SourceError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a demo of one plant imports, trains on and replays."""

    history: str
    live: str
    recompute_from: str
    """Begin of the batch view."""
    seam: str
    """Its end, and the end of the training span: the first moment of `live`."""
    cycle_ns: int | None = None
    """Length of the plant's cycle: what stood a cycle earlier is a rival too."""
    simulated: bool = False
    fleet: bool = False
    """Hundreds of models: each must beat persistence to be deployed, and the last ticks come one by one."""
    epochs: int | None = None
    """Passes of training where nobody says another number; None: as plant.toml says."""


COURSES = {
    "gas-turbine": Course(
        history="gas-turbine:2011-2013", live="gas-turbine:2014", recompute_from="2013-09-01", seam="2014-01-01"
    ),
    "hydraulic-rig": Course(  # the first 70 % and the rest: 92,610 and 39,690 seconds
        history="hydraulic-rig:0s..92610s",
        live="hydraulic-rig:92610s..",
        recompute_from="2015-01-02 00:43:30",
        seam="2015-01-02 01:43:30",
        cycle_ns=60 * SECOND_NS,
    ),
    SIMULATED: Course(
        history="simulated:60d",
        live="simulated:60d..150d",
        recompute_from="2024-02-23",
        seam="2024-03-01",
        simulated=True,
    ),
}
FLEET = Course(  # hundreds of models in minutes: five days and few passes, where two units have sixty days
    history="simulated:55d..60d",
    live="simulated:60d..150d",
    recompute_from="2024-02-29 18:00",
    seam="2024-03-01",
    simulated=True,
    fleet=True,
    epochs=5,
)


def course_of(plant: str) -> Course:
    """The course of a plant, or of a simulated one by its numbers. Raises SourceError for one that is not known."""
    station = station_of(plant)
    if station is not None:
        return FLEET if station[0].is_fleet else COURSES[SIMULATED]
    if plant not in COURSES:
        near = nearest(plant, list(COURSES))
        hint = f" Did you mean {near!r}?" if near else ""
        raise SourceError(f"no demo of {plant!r}; there are: {', '.join(COURSES)}.{hint}")
    return COURSES[plant]
