"""Faults of a simulated station's sensors: drawn day by day, kept as a list, and put into the readings.

A fault lies inside one day of one unit, so that any span of readings knows its faults without
looking further back. The list is the truth that tests compare a plant's answers with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from penstock.data.durations import UNITS_NS
from penstock.data.simulator_station import Station

Kind = Literal["missing", "spike", "flat", "drift", "skew"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DAILY = 0.35
"""Chance of each kind, per unit and day."""
LONGEST_MIN = {"missing": 120.0, "spike": 0.0, "flat": 240.0, "drift": 600.0, "skew": 60.0}
"""The shortest is a tenth of it, and never less than a tick."""
STREAM = 101
"""Of random numbers; see `Station.random`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One sensor's, or for a skewed clock one unit's, failure over ticks first..last-1."""

    kind: Kind
    unit: int
    sensor: int | None
    """Number within the unit; None: all of the unit's sensors."""
    first: int
    last: int
    size: float
    """spike: what is added, in deviations of the sensor; drift: what has been added at its end, likewise;
    skew: seconds by which the time stamps run ahead, less than a period; else 0."""


def faults_between(station: Station, first: int, last: int) -> Iterator[Fault]:
    """The faults that touch ticks first..last-1, by day, unit and kind; none where the station has none."""
    if station.faults and last > first:
        for day in range(first // station.day, (last - 1) // station.day + 1):
            yield from (f for f in _of_day(station, day) if f.first < last and f.last > first)


def _of_day(station: Station, day: int) -> Iterator[Fault]:
    draws = station.random(STREAM, day).random((station.units, len(KINDS), 5))
    for unit, number in np.argwhere(draws[:, :, 0] < DAILY):
        yield _fault(station, day, int(unit), KINDS[number], draws[unit, number, 1:])


def _fault(station: Station, day: int, unit: int, kind: Kind, draw: NDArray[np.float64]) -> Fault:
    ticks = LONGEST_MIN[kind] * UNITS_NS["min"] / station.period_ns
    first = day * station.day + int(draw[1] * 0.55 * station.day)
    size = {
        "spike": np.sign(draw[3] - 0.5) * (30 + 60 * draw[3]),
        "drift": np.sign(draw[3] - 0.5) * (8 + 8 * draw[3]),
        "skew": (0.1 + 0.8 * draw[3]) * station.period_ns / 1e9,
    }
    return Fault(
        kind=kind,
        unit=unit,
        sensor=None if kind == "skew" else int(draw[0] * station.tags),
        first=first,
        last=first + max(1, int(ticks * (0.1 + 0.9 * draw[2]))),
        size=float(size.get(kind, 0.0)),
    )
