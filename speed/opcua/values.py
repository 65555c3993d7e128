"""What an OPC UA server says of a variable, as columns: time, number, quality. Knows nothing of nodes and sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from penstock.data.frame import BAD, GOOD, UNCERTAIN

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGIN = datetime(1678, 1, 1, tzinfo=UTC)
"""Before any reading: ns since 1970 reach back to here. OPC UA's own zero (1601) means that there is no time."""
NUMBERS = frozenset(
    getattr(ua.VariantType, name)
    for name in ("Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double")
)
STATUS = (GOOD, UNCERTAIN, BAD, BAD)
"""By the two highest bits of a status code; the fourth is reserved."""
OVERFLOW = 0x0480
"""Of a status code: the server's queue was full, and older readings were dropped."""
WAITING = ua.StatusCodes.BadWaitingForInitialData


@dataclass(slots=True, eq=False)
class Columns:
    """Readings of variables by their number, in the order in which they came."""

    times: list[int] = field(default_factory=list)
    """ns UTC."""
    at: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)
    strange: list[tuple[int, str]] = field(default_factory=list)
    """(variable, what it said) of what is no number."""

    def __len__(self) -> int:
        return len(self.times) + len(self.strange)

    def add(self, at: int, said: ua.DataValue, time_ns: int) -> None:
        """A reading of variable `at`."""
        number = number_of(said)
        if number is None:
            self.strange.append((at, f"{said.Value.Value!r:.40}" if said.Value is not None else ""))
            return
        self.times.append(time_ns)
        self.at.append(at)
        self.values.append(number)
        self.quality.append(quality_of(said))

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8]]:
        """(times, at, values, quality), each [n]."""
        return (
            np.array(self.times, np.int64), np.array(self.at, np.int64),
            np.array(self.values, np.float64), np.array(self.quality, np.uint8),
        )  # fmt: skip


def time_of(said: ua.DataValue, arrival_ns: int) -> int:
    """The source's time stamp in ns UTC; the server's where it has none, else that of arrival."""
    for stamp in (said.SourceTimestamp, said.ServerTimestamp):
        if stamp is not None and (at := stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)) > BEGIN:
            return ns_of(at)
    return arrival_ns


def number_of(said: ua.DataValue) -> float | None:
    """The value; NaN where a bad reading has none, None where it is no number. True and false are states."""
    value = said.Value
    if value is None or value.Value is None:
        return float("nan")
    if value.VariantType not in NUMBERS or isinstance(value.Value, Sequence):
        return None
    return float(value.Value)


def quality_of(said: ua.DataValue) -> int:
    """Good, uncertain or bad, as the status code begins."""
    return STATUS[_code(said) >> 30]


def is_silent(said: ua.DataValue) -> bool:
    """Whether it is no reading: a variable that has no value yet, and does not say that this is bad."""
    empty = said.Value is None or said.Value.Value is None
    return empty and (quality_of(said) != BAD or _code(said) & 0xFFFF0000 == WAITING)


def has_lost(said: ua.DataValue) -> bool:
    """Whether readings before this one were dropped by the server."""
    return _code(said) & OVERFLOW == OVERFLOW


def ns_of(at: datetime) -> int:
    """ns since 1970, exactly; datetime counts in microseconds, and asyncua in datetimes."""
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def datetime_of(ns: int) -> datetime:
    """The moment at `ns` or up to 1 us before it, not before BEGIN."""
    return max(EPOCH + timedelta(microseconds=ns // 1000), BEGIN)


def _code(said: ua.DataValue) -> int:
    return 0 if said.StatusCode is None else int(said.StatusCode.value)
