"""Which time zone local times are in, as far as their clock changes tell; and what to say of it.

In autumn local times go back by an hour. A zone fits that turns all of them into times that rise over it.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.data.importing.local_time import LocalClock, Wall
from penstock.data.plant import HOUR_NS
from penstock.errors import SourceError

ZONES = (
    "Europe/Berlin", "Europe/London", "Europe/Athens", "America/New_York", "America/Chicago", "America/Denver",
    "America/Los_Angeles", "America/Santiago", "Australia/Sydney", "Australia/Adelaide", "Pacific/Auckland",
)  # fmt: skip
"""One of each kind of clock change; those that change at the same local time cannot be told apart."""
AROUND = 500
"""Rows on both sides of a step back that are looked at."""


def known_zone(timezone: str) -> None:
    """Raises SourceError where there is no such time zone."""
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise SourceError(f"unknown time zone {timezone!r}; allowed: such as Europe/Berlin or UTC") from None


def fitting_zones(values: NDArray[np.int64]) -> tuple[str, ...]:
    """Zones of ZONES in which local times [n] rise over every step back; none where they never go back."""
    steps = np.diff(values)
    back = np.flatnonzero((steps <= 0) & (steps > -2 * HOUR_NS))  # hourly rows repeat an hour: a step of 0
    if not len(back) or len(back) > AROUND:
        return ()
    rows = np.unique(np.clip(np.add.outer(back, np.arange(-AROUND, AROUND)).ravel(), 0, len(values) - 1))
    return tuple(zone for zone in ZONES if _explains(zone, values[rows]))


def zone_notes(given: str | None, taken: str, fitting: tuple[str, ...], values: NDArray[np.int64]) -> list[str]:
    """What should be said about local times [n] that were taken as those of `taken`; `given` by the user, or None."""
    if given is not None:
        never = np.count_nonzero(_resolved(values, taken)[1] == Wall.SKIPPED)
        text = f"{never} of the times never were in {taken}: clocks went forward over them. Is the zone right?"
        return [text] if never else []
    change = 'set timezone in plant.toml, such as "Europe/Berlin", before anything is imported'
    when = _when(values, fitting)
    if taken != "UTC":
        return [
            f"the times carry no offset; after {when} they go back as in {taken}, and so they are taken. If the plant"
            f" stands elsewhere, {change}"
        ]
    fit = f": {', '.join(fitting)} would fit" if fitting else ""
    hint = f" They go back after {when}, as clocks do in autumn{fit}." if when else ""
    return [
        f"the times carry no offset and no --timezone was given: they are taken as UTC.{hint} If they are local"
        f" times, {change}"
    ]


def _when(values: NDArray[np.int64], fitting: tuple[str, ...]) -> str:
    """The local time after which they first go back; empty where they do not."""
    steps = np.diff(values)
    back = (steps < 0) & (steps > -2 * HOUR_NS)
    if fitting:
        back |= (steps == 0) & (np.diff(_resolved(values, fitting[0])[0]) > 0)
    at = np.flatnonzero(back)
    return str(pd.Timestamp(int(values[at[0]]))) if len(at) else ""


def _explains(zone: str, values: NDArray[np.int64]) -> bool:
    """Whether every time was in the zone, none is before the one ahead of it, and a clock change is why."""
    utc, wall = _resolved(values, zone)
    steps = np.diff(utc)
    return bool((wall == Wall.OK).all() and (steps >= 0).all() and (steps[np.diff(values) <= 0] > 0).any())


def _resolved(values: NDArray[np.int64], zone: str) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    n = len(values)
    return LocalClock(zone, 1).resolve(values, np.ones(n, bool), np.zeros(n, np.int32))
