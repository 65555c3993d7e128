"""Columns of times, as texts or as Arrow timestamps -> integer nanoseconds, whole columns at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.data.importing.number_text import read_numbers
from penstock.errors import SourceError

EPOCHS = {"epoch_s": 10**9, "epoch_ms": 10**6, "epoch_us": 10**3, "epoch_ns": 1}
"""Values of `time_format` for numbers since 1970-01-01 UTC, and their nanoseconds."""

NO_TIME = "no time"
NOT_ISO = "unparsable time; expected ISO 8601, or give time_format"
NOT_FORMAT = "unparsable time; it does not have the time_format"
TOO_FAR = "time outside 1678..2261"

_ISO = r"^\d{4}-?\d{2}-?\d{2}"
_OFFSET = r"([zZ]|[T :]\d{2}[\d:.]*[+-]\d{2}(:?\d{2})?)$"
_FIRST, _LAST = (int(np.datetime64(y, "ns").astype(np.int64)) for y in ("1678", "2262"))
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Times:
    """A column of times."""

    values: NDArray[np.int64]
    """[n] ns; UTC, or wall-clock time where `local`; 0 where there is a reason."""
    local: NDArray[np.bool_]
    """[n] true where the text had no offset."""
    reasons: dict[str, NDArray[np.bool_]]
    """[n] per reason: the rows whose time cannot be used."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """[n] rows with a time."""
        bad = np.zeros(len(self.values), bool)
        for mask in self.reasons.values():
            bad |= mask
        return ~bad


def read_times(column: Any, time_format: str | None) -> Times:
    """Times of an Arrow array: text, timestamp, date, or numbers with an ``epoch_*`` format.

    Raises SourceError when the column's type holds no times.
    """
    kind = column.type
    if pa.types.is_string(kind):
        return _epoch_text(column, time_format) if time_format in EPOCHS else _text(column, time_format)
    if time_format in EPOCHS and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return _numbers(column, EPOCHS[time_format])
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    if not pa.types.is_timestamp(column.type):
        raise SourceError(
            f"the time column holds {kind}; allowed: text, timestamps, or numbers with time_format ="
            f" one of {', '.join(EPOCHS)}"
        )
    missing = column.is_null().to_numpy(zero_copy_only=False)
    counts = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    times, far = _scaled(counts, _UNITS[column.type.unit])
    local = np.full(len(times), column.type.tz is None)
    return Times(values=times, local=local, reasons={NO_TIME: missing, TOO_FAR: far})


def _scaled(counts: NDArray[np.int64], factor: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    far = (counts < _FIRST // factor) | (counts >= _LAST // factor)
    return np.where(far, 0, counts) * factor, far


def _numbers(column: Any, factor: int) -> Times:
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(column.type):
        counts = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        times, far = _scaled(counts, factor)
    else:  # split, so that a fraction of a second does not cost the seconds their last bits
        numbers = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        missing |= np.isnan(numbers)
        far = ~missing & ~((numbers >= _FIRST / factor) & (numbers < _LAST / factor))
        numbers = np.where(missing | far, 0.0, numbers)
        whole = np.floor(numbers)
        rest = np.rint((numbers - whole) * factor).astype(np.int64)
        times = whole.astype(np.int64) * factor + rest
    return Times(values=times, local=np.zeros(len(times), bool), reasons={NO_TIME: missing, TOO_FAR: far})


def _epoch_text(column: Any, time_format: str) -> Times:
    whole = pc.match_substring_regex(column, r"^-?\d{1,18}$").to_numpy(zero_copy_only=False)
    exact = _numbers(pc.if_else(pa.array(whole), column, "0").cast(pa.int64()), EPOCHS[time_format])
    numbers = read_numbers(column)
    rough = _numbers(pa.array(numbers.values), EPOCHS[time_format])
    return Times(
        values=np.where(whole, exact.values, rough.values),
        local=exact.local,
        reasons={
            NO_TIME: numbers.missing,
            NOT_FORMAT: numbers.bad,
            TOO_FAR: np.where(whole, exact.reasons[TOO_FAR], rough.reasons[TOO_FAR]),
        },
    )


def _text(column: Any, time_format: str | None) -> Times:
    texts = pc.utf8_trim_whitespace(column).fill_null("")
    missing = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    if time_format is None:
        shaped = pc.match_substring_regex(texts, _ISO).to_numpy(zero_copy_only=False)
        explicit = pc.match_substring_regex(texts, _OFFSET).to_numpy(zero_copy_only=False)
    else:
        shaped = ~missing
        explicit = np.full(len(texts), "%z" in time_format)
    values = np.zeros(len(texts), np.int64)
    bad, far = ~shaped & ~missing, np.zeros(len(texts), bool)
    for utc in (False, True):
        rows = np.flatnonzero(shaped & (explicit == utc))
        if len(rows):
            values[rows], bad[rows], far[rows] = _parsed(texts.take(pa.array(rows)), time_format or "ISO8601")
    reason = NOT_ISO if time_format is None else NOT_FORMAT
    return Times(values=values, local=~explicit, reasons={NO_TIME: missing, reason: bad, TOO_FAR: far})


def _parsed(texts: Any, time_format: str) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """(ns, unparsable, out of range). Repeated texts, as in long tables, are parsed once."""
    coded = texts.dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    series = pd.Series(coded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
    try:
        found = pd.to_datetime(series, format=time_format, errors="coerce", utc=True)
    except ValueError as error:
        raise SourceError(f"time_format {time_format!r}: {error}") from error
    bad = found.isna().to_numpy()
    stamps = found.dt.tz_localize(None).to_numpy()
    unit = np.datetime_data(stamps.dtype)[0]
    times, far = _scaled(np.where(bad, 0, stamps.astype(np.int64)), _UNITS[unit])
    return times[codes], bad[codes], far[codes]
