"""What a user may name as a source of history: a file, a table in memory, or a built-in data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.data.plants.datasets import builtin_plants, gas_turbine
from penstock.data.plants.hydraulic_rig import hydraulic_rig
from penstock.data.plants.spans import parse_span
from penstock.data.simulator import Simulator
from penstock.data.simulator_station import station_of
from penstock.errors import SourceError, nearest

_YEARS = re.compile(r"(\d{4})(?:-(\d{4}))?")


def parts(source: Any, plant: str = "") -> Iterator[tuple[str, Any]]:
    """(name, readable) pairs of `source`, in order of time: a large data set comes in parts.

    A text is a path, or a data set: ``gas-turbine``, ``gas-turbine:2014``, ``gas-turbine:2011-2013``,
    ``hydraulic-rig:0h..12h``, ``simulated:60d``, ``simulated:60d..90d,units=4,tags=40,seed=1,faults``.
    A simulated one without options is the station that `plant`, the site's plant by name, says.
    Raises SourceError where it is none of these.
    """
    if not isinstance(source, (str, Path)):
        yield type(source).__name__, source
    elif Path(source).exists():
        yield Path(source).name, Path(source)
    else:
        yield from _data_set(str(source), plant)


def _data_set(text: str, plant: str) -> Iterator[tuple[str, Any]]:
    name, _, span = text.partition(":")
    if (named := station_of(text, plant)) is not None:
        station, times = named
        yield from ((station.text(), table) for table in Simulator(station).tables(times))
    elif name == "gas-turbine":
        for year in gas_turbine(_years(span, text)):
            yield f"{name}:{year.year}", year.table()
    elif name == "hydraulic-rig":
        yield text, hydraulic_rig(parse_span(span, name))
    else:
        near = nearest(name, builtin_plants())
        hint = f" Did you mean {near!r}?" if near else ""
        raise SourceError(f"{text}: no such file, and no built-in data set ({', '.join(builtin_plants())}).{hint}")


def _years(span: str, text: str) -> range | None:
    match = _YEARS.fullmatch(span)
    if span and match is None:
        raise SourceError(f"{text}: allowed: years, such as gas-turbine:2014 or gas-turbine:2011-2013")
    return range(int(match[1]), int(match[2] or match[1]) + 1) if match else None
