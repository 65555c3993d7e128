"""A simulated power station by its numbers: how large, which seed, with faults or not; and its text form.

The text ``simulated:60d,units=4,tags=40,seed=1,faults`` is what people type, and without the
span it is the plant's name in a generated plant.toml, so that a site remembers its station.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from penstock.data.durations import SECOND_NS, UNITS_NS, duration_text, parse_duration
from penstock.data.plants.spans import Span, parse_span
from penstock.errors import SourceError, nearest

NAME = "simulated"
START_NS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * SECOND_NS
"""Tick 0 of every station: a Monday."""
DAY_NS = UNITS_NS["d"]
SYSTEMS = (
    "AMBIENT_T", "AMBIENT_P", "HUMIDITY", "FUEL", "IGV", "SPLIT", "WATER", "FLAME_T", "POWER", "NOX", "WEAR",
)  # fmt: skip
"""The sensors that every unit has, in order; further ones (S012, S013, ...) are mixtures of them."""
FLEET_UNITS = 10
HISTORY = Span(first_ns=0, last_ns=60 * DAY_NS)
"""What ``simulated`` without a span means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One simulated power station; equal stations give equal readings to the last bit."""

    units: int = 2
    tags: int = 40
    """Per unit."""
    seed: int = 1
    faults: bool = False
    """Whether sensors fail now and then."""
    period_ns: int = 60 * SECOND_NS

    def __post_init__(self) -> None:
        """Raises SourceError for numbers that make no station."""
        if self.units < 1 or self.tags < len(SYSTEMS) or self.seed < 0:
            raise SourceError(f"{self.text()}: allowed: units from 1, tags from {len(SYSTEMS)}, seed from 0")
        if self.period_ns < 1_000_000 or self.period_ns > UNITS_NS["h"] or DAY_NS % self.period_ns:
            raise SourceError(f"{self.text()}: allowed: a period of 1ms to 1h that divides a day")

    @property
    def is_fleet(self) -> bool:
        """Whether its models are a fleet: they answer at every tick then."""
        return self.units >= FLEET_UNITS

    @property
    def day(self) -> int:
        """Ticks of a day."""
        return DAY_NS // self.period_ns

    def text(self) -> str:
        """``simulated,units=2,tags=40,seed=1``; `station_of` reads it back."""
        parts = [NAME, f"units={self.units}", f"tags={self.tags}", f"seed={self.seed}"]
        if self.period_ns != 60 * SECOND_NS:
            parts.append(f"period={duration_text(self.period_ns)}")
        return ",".join([*parts, *(["faults"] if self.faults else [])])

    def unit_names(self) -> list[str]:
        """U001, U002, ..."""
        width = max(3, len(str(self.units)))
        return [f"U{number:0{width}d}" for number in range(1, self.units + 1)]

    def sensor_names(self) -> list[str]:
        """Of one unit: SYSTEMS, then S012, S013, ..."""
        width = max(3, len(str(self.tags)))
        return [*SYSTEMS, *(f"S{number:0{width}d}" for number in range(len(SYSTEMS) + 1, self.tags + 1))]

    def tag_names(self) -> list[str]:
        """All ``unit.sensor`` names, unit by unit: the columns of its readings."""
        sensors = self.sensor_names()
        return [f"{unit}.{sensor}" for unit in self.unit_names() for sensor in sensors]

    def random(self, stream: int, block: int) -> np.random.Generator:
        """Numbers that depend on (seed, stream, block) alone: Philox, counted, nothing drawn before them.

        `block` may be negative, down to -2^40. Draw unit by unit, so that a station with more units
        has the same first ones.
        """
        return np.random.Generator(np.random.Philox(key=[self.seed, stream], counter=[0, 0, 0, block + (1 << 40)]))


def station_of(text: str, known: str = "") -> tuple[Station, Span] | None:
    """The station and span that a text names; None where it names something else.

    ``simulated[:SPAN][,units=N][,tags=M][,seed=S][,period=P][,faults]``; without options it is the station
    that `known`, a plant's name, says. Raises SourceError for an option or a span that there is not.
    """
    head, *options = [part.strip() for part in text.split(",")]
    name, _, span = head.partition(":")
    if name != NAME:
        return None
    station = Station()
    if not options and known != text and (named := station_of(known)):
        station = named[0]
    return replace(station, **_options(options, text)), parse_span(span, NAME) if span else HISTORY


def _options(options: list[str], text: str) -> dict[str, Any]:
    """Fields of a Station."""
    found: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            if key == "faults":
                found[key] = {"": True, "true": True, "false": False}[value]
            elif key == "period":
                found["period_ns"] = parse_duration(value)
            elif key in ("units", "tags", "seed"):
                found[key] = int(value)
            else:
                raise KeyError(key)
        except (ValueError, KeyError) as error:
            near = nearest(key, ["units", "tags", "seed", "period", "faults"])
            hint = f" Did you mean {near!r}?" if near and near != key else ""
            allowed = "units=N, tags=M, seed=S, period=1min, faults"
            raise SourceError(f"{text}: cannot read {option!r}; allowed: {allowed}.{hint}") from error
    return found
