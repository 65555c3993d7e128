"""A first plant.toml out of a file of readings: what can be seen in it is guessed, and said.

Looks at the first LOOK_ROWS rows; the file itself is read by `import` afterwards, with the
options found here. The guess of one column is in `guess_columns`, the text that is written in `guess_text`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.data.importing.csv_rows import DELIMITERS, CsvFile, first_lines
from penstock.data.importing.importers import Options
from penstock.data.importing.intake import TIME_COLUMNS
from penstock.data.importing.local_time import LocalClock, Wall
from penstock.data.importing.number_text import read_numbers
from penstock.data.importing.text_encoding import UTF8
from penstock.data.importing.time_text import EPOCHS, Times, read_times
from penstock.errors import SourceError
from penstock.guess_columns import Column, guess_columns
from penstock.guess_zone import fitting_zones, known_zone, zone_notes

LOOK_ROWS = 200_000
"""Rows looked at: enough for a range, and quick."""
FORMATS = (
    None, "%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%y %H:%M", "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p",
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d-%b-%Y %H:%M:%S",
    "%d-%b-%y %H:%M:%S", "%Y%m%d%H%M%S", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y",
)  # fmt: skip
"""Tried in this order; day before month where both would do. None: ISO 8601."""
TIME_WORDS = (*TIME_COLUMNS, "zeit", "zeitstempel", "datum", "uhrzeit", "fecha", "hora", "heure", "temps", "tarih")
SHARE = 0.9
"""Of the texts that must be times for a column to be the time."""
PERIODS_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a file seems to be."""

    file: Path
    options: dict[str, str]
    """For reading it: fields of `importers.Options` that are not the default."""
    left_out: tuple[str, ...]
    """Columns that are no tags: they hold texts, or nothing."""
    period_ns: int
    timezone: str
    columns: tuple[Column, ...]
    rows: int
    """Rows looked at."""
    long: bool
    """Columns time, tag, value, instead of a column per tag."""
    notes: tuple[str, ...] = field(default=())
    """What should be looked at, as sentences."""


def guess(path: Path, timezone: str | None = None) -> Guess:
    """Look at a CSV file. `timezone` is that of times without an offset; None: told by their clock changes, else UTC.

    Raises SourceError where no time column is found, or no column of numbers.
    """
    if timezone is not None:
        known_zone(timezone)
    delimiter = _delimiter(path)
    file = CsvFile(path, delimiter=delimiter, block_bytes=4 << 20)
    texts = _looked_at(file)
    at, time_format = _time(path, file.names, texts)
    stamps = read_times(texts[at], time_format)
    long = _long(file.names, at)
    decimal = _decimal([c for i, c in enumerate(texts) if i != at])
    series = _series(file.names, texts, at, long, decimal)
    local = stamps.values[stamps.usable & stamps.local] if not long else stamps.values[:0]
    fitting = fitting_zones(local) if timezone is None else ()
    zone = timezone or (fitting[0] if len(fitting) == 1 else "UTC")
    period_ns = usual_spacing(_utc(stamps, zone, long))
    columns, notes = guess_columns(series, period_ns)
    if not columns:
        raise SourceError(f"{path}: no column of numbers beside {file.names[at]!r}; is the decimal mark another one?")
    said = zone_notes(timezone, zone, fitting, local) if stamps.local.any() else []
    kept = {column.source for column in columns}
    left_out = () if long else tuple(n for i, n in enumerate(file.names) if i != at and n and n not in kept)
    return Guess(
        file=path, options=_options(file, at, time_format, delimiter, decimal), left_out=left_out,
        period_ns=period_ns, timezone=zone, columns=columns, rows=len(texts[at]), long=long,
        notes=(*_encoding_note(file), *said, *_left_out_note(left_out), *notes),
    )  # fmt: skip


def _encoding_note(file: CsvFile) -> list[str]:
    if file.encoding == UTF8:
        return []
    return [f"not UTF-8, read as {file.encoding}; if letters are wrong, set encoding under [sources.import]"]


def _left_out_note(left_out: Sequence[str]) -> list[str]:
    return [f"left out, as there are mostly texts or nothing: {', '.join(left_out)}"] if left_out else []


def _delimiter(path: Path) -> str | None:
    """The mark that parts the header and the lines behind it into equally many; None: what `import` finds by itself."""
    lines = [line for line in first_lines(path, 20) if line.strip()]
    if not lines:
        raise SourceError(f"{path}: is empty; the first line must name the columns, time and tags")
    counts = {mark: [len(next(csv.reader([line], delimiter=mark))) for line in lines] for mark in DELIMITERS}
    even = {mark: c[0] for mark, c in counts.items() if c[0] > 1 and sum(n == c[0] for n in c) * 2 > len(c)}
    best = max(even, key=lambda mark: even[mark], default=None)
    return None if best is None or best == max(DELIMITERS, key=lines[0].count) else best


def _looked_at(file: CsvFile) -> list[Any]:
    """The first rows, column by column, as texts."""
    parts, seen = [], 0
    for block in file.rows(0):
        parts.append(block.columns)
        seen += len(block.lines)
        if seen >= LOOK_ROWS:
            break
    if not seen:
        raise SourceError(f"{file.path}: no row that has as many cells as the header; is the delimiter another one?")
    return [pa.concat_arrays(columns) for columns in zip(*parts, strict=True)]


def _time(path: Path, names: Sequence[str], texts: Sequence[Any]) -> tuple[int, str | None]:
    """(position, format) of the first column that holds times; those that are called so are tried first."""
    words = [name.casefold() for name in names]
    order = sorted(range(len(names)), key=lambda i: (not any(word in words[i] for word in TIME_WORDS), i))
    for at in order:
        found = _format(texts[at], named=any(word in words[at] for word in TIME_WORDS))
        if found is not _NONE:
            return at, found
    raise SourceError(
        f"{path}: no column of times among {', '.join(names[:12])}; write a plant.toml by hand and import with"
        " --time-column and --time-format"
    )


_NONE = "none"


def _format(texts: Any, *, named: bool) -> str | None:
    """The format of most texts; `_NONE`: they are no times. Plain numbers are times only where the name says so."""
    sample = texts.slice(0, 5000)
    numbers = read_numbers(sample)
    plain = ~numbers.bad & ~numbers.missing
    if plain.mean() > SHARE:
        return _epoch(numbers.values[plain]) if named else _NONE
    shares = {form: float(read_times(sample, form).usable.mean()) for form in FORMATS}
    best = max(shares, key=lambda form: shares[form])  # the first of equals
    return best if shares[best] >= SHARE else _NONE


def _epoch(values: NDArray[np.float64]) -> str:
    """Seconds, milli-, micro- or nanoseconds since 1970, whichever lies between 1990 and 2100."""
    middle = float(np.median(values))
    for name, factor in EPOCHS.items():
        if 631_152_000 <= middle * factor / 1e9 <= 4_102_444_800:
            return name
    return _NONE


def _long(names: Sequence[str], time_at: int) -> bool:
    lower = {name.casefold() for i, name in enumerate(names) if i != time_at}
    return {"tag", "value"} <= lower


def _decimal(columns: Sequence[Any]) -> str:
    """The mark under which more cells are numbers. A cell with the other mark alone, as in 1,234, speaks for that."""
    counts = {mark: sum(_numbers(column, mark) for column in columns) for mark in (".", ",")}
    return "," if counts[","] > counts["."] else "."


def _numbers(column: Any, decimal: str) -> int:
    cells = column.slice(0, 5000)
    found = read_numbers(cells, decimal)
    other = pc.match_substring(cells, "," if decimal == "." else ".")
    lone = pc.and_not(other, pc.match_substring(cells, decimal)).fill_null(False).to_numpy(zero_copy_only=False)
    return int(np.count_nonzero(~found.bad & ~found.missing & ~lone))


def _series(
    names: Sequence[str], texts: Sequence[Any], time_at: int, long: bool, decimal: str
) -> dict[str, NDArray[np.float64]]:
    """Numbers by column (wide) or by tag (long); columns that are mostly no numbers are left out."""
    lower = [name.casefold() for name in names]
    if long:
        values = read_numbers(texts[lower.index("value")], decimal).values
        tags = pd.Series(texts[lower.index("tag")].to_pylist()).str.strip()
        return {str(tag): values[np.asarray(at)] for tag, at in tags.groupby(tags).indices.items() if tag}
    found: dict[str, NDArray[np.float64]] = {}
    for at, (name, column) in enumerate(zip(names, texts, strict=True)):
        numbers = read_numbers(column, decimal)
        given = ~numbers.missing
        if at != time_at and name and name not in found and (~numbers.bad & given).sum() * 2 > given.sum():
            found[name] = numbers.values
    return found


def _utc(stamps: Times, zone: str, long: bool) -> NDArray[np.int64]:
    """Times in UTC [n], ascending."""
    at = np.flatnonzero(stamps.usable)
    if long:  # a tag after another repeats times: only which ones there are counts
        return np.unique(stamps.values[at])
    utc, wall = LocalClock(zone, 1).resolve(stamps.values[at], stamps.local[at], np.zeros(len(at), np.int32))
    return np.sort(utc[wall != Wall.SKIPPED])


def usual_spacing(utc: NDArray[np.int64]) -> int:
    """The median spacing, rounded to what people write. Raises SourceError where there is but one time."""
    steps = np.diff(utc)
    steps = steps[steps > 0]
    if not len(steps):
        raise SourceError("all rows have the same time; two are needed to see the period")
    median = float(np.median(steps))
    for seconds in PERIODS_S:
        if abs(median - seconds * 1e9) < 0.02 * median:
            return seconds * 1_000_000_000
    unit = 1_000_000_000 if median >= 1e9 else 1_000_000
    return max(unit, round(median / unit) * unit)


def _options(file: CsvFile, at: int, time_format: str | None, delimiter: str | None, decimal: str) -> dict[str, str]:
    """What differs from what `import` would do by itself."""
    default = Options()
    found = {"delimiter": delimiter, "decimal": decimal, "time_format": time_format}
    found["encoding"] = None if file.encoding == UTF8 else file.encoding
    lower = [name.casefold() for name in file.names]
    first = next((name for name in TIME_COLUMNS if name in lower), None)
    if first is None or lower.index(first) != at:
        found["time_column"] = file.names[at]
    return {key: value for key, value in found.items() if value is not None and value != getattr(default, key)}
