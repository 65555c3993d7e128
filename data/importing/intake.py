"""Rows as they were read -> readings with registry ids, and rejects with line and reason.

A source is *long* (columns time, tag, value and perhaps quality) or *wide*
(time and a column per tag, perhaps one called ``TAG quality`` beside it). An `Intake` is made once per source from its
column names; `take` turns block after block into chunks. Whole columns at a
time; nothing here knows of files or of the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.data.frame import GOOD, Dense, Frame, Readings
from penstock.data.importing.csv_rows import Rows
from penstock.data.importing.local_time import LocalClock, Wall
from penstock.data.importing.number_text import NOT_NUMBER, STATUS, read_numbers, read_status
from penstock.data.importing.rejects import Rejects
from penstock.data.importing.source_tags import IGNORED, UNKNOWN, SourceTags
from penstock.data.importing.time_text import Times, read_times
from penstock.data.plant import Plant
from penstock.data.registry import Registry
from penstock.errors import SourceError, nearest

TIME_COLUMNS = ("time", "timestamp", "datetime", "date_time", "date", "ts")
REPEATED = "the header, repeated"
SKIPPED = "local time that never was: clocks went forward over it"
AMBIGUOUS = "local time that was twice, and the order of rows does not tell which; give it an offset"
TOO_LARGE = 'number too large for float32; dtype = "float64" holds it'


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a source is to be read; the defaults fit most."""

    time_column: str | None = None
    """None: the first column called time, timestamp, datetime, date or ts."""
    time_format: str | None = None
    """strptime format, or epoch_s, epoch_ms, epoch_us, epoch_ns; None: ISO 8601."""
    timezone: str | None = None
    """Of times without an offset; None: the plant's."""
    columns: Mapping[str, str | None] = field(default_factory=dict)
    """Name in the source -> tag of the plant; None leaves it out."""
    tag_column: str = "tag"
    value_column: str = "value"
    quality_column: str = "quality"
    """Of long sources; in wide ones the word behind a tag's name."""
    delimiter: str | None = None
    """Of CSV; None: the most frequent of , ; tab | in the header."""
    decimal: str = "."
    encoding: str | None = None
    """Of CSV, such as cp1252; None: UTF-8, where it is not that cp1252."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Some consecutive rows of a source, converted."""

    readings: tuple[Readings, ...]
    """float32 and float64 tags apart; none of them empty."""
    rejects: Rejects
    rows: int
    """Rows that were looked at, good and bad; empty lines are none."""
    offset: int
    """Line or row number up to which the source is now read."""
    done: int
    """Of `total`: bytes of a file of text, rows of a table."""
    total: int | None
    """None where it is not known (compressed text)."""

    @property
    def accepted(self) -> int:
        """Readings that go in."""
        return sum(len(part) for part in self.readings)


class Intake:
    """Converts the rows of one source."""

    def __init__(
        self, names: Sequence[str], header_line: int, plant: Plant, registry: Registry, options: Options
    ) -> None:
        """Raises SourceError when there is no time column, or no column that is a tag."""
        self.names = tuple(names)
        self.options = options
        self.tags = SourceTags(plant, registry, options.columns)
        self.time = self._time_column()
        self.long = self._long_columns()
        self.wide: tuple[tuple[int, int], ...] = ()
        self.statuses: dict[int, int] = {}
        self.header_rejects = Rejects.joined([])
        self._told = False
        if self.long is None:
            self._wide_columns(header_line)
        sequences = len(registry) if self.long else 1
        self.clock = LocalClock(options.timezone or plant.timezone, sequences)

    def take(self, rows: Rows, after: int) -> Chunk:
        """Readings and rejects of the rows behind line `after`; those before only tell the time."""
        times = read_times(rows.columns[self.time], self.options.time_format)
        found = self._long(rows, times) if self.long else self._wide(rows, times)
        readings, rejects = found.kept(after)
        new = int(np.count_nonzero(rows.lines > after)) + len(rows.malformed.after(after))
        head = [] if self._told else [self.header_rejects.after(after)]
        self._told = True
        return Chunk(
            readings=tuple(part for part in readings if len(part)),
            rejects=Rejects.joined([*head, rows.malformed.after(after), *(r.after(after) for r in rejects)]),
            rows=new,
            offset=rows.end,
            done=rows.done,
            total=rows.total,
        )

    def _time_column(self) -> int:
        wanted = self.options.time_column
        lower = [name.casefold() for name in self.names]
        if wanted is not None and wanted in self.names:
            return self.names.index(wanted)
        for name in TIME_COLUMNS if wanted is None else ():
            if name in lower:
                return lower.index(name)
        told = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        if wanted is None:
            raise SourceError(f"no column called time, timestamp or date among {told}; name it with time_column")
        near = nearest(wanted, self.names) or next((n for n in self.names if wanted.casefold() in n.casefold()), None)
        hint = f"; did you mean {near!r}?" if near else ""
        raise SourceError(f"no time column {wanted!r} among {told}{hint}")

    def _long_columns(self) -> tuple[int, int, int | None] | None:
        """Positions of tag, value, quality in a long source; None for a wide one."""
        wanted = (self.options.tag_column, self.options.value_column)
        lower = [name.casefold() for name in self.names]
        at = [lower.index(name.casefold()) for name in wanted if name.casefold() in lower]
        if len(at) < 2 or any(self.tags.find(self.names[i]) >= 0 for i in at):
            return None
        quality = self.options.quality_column.casefold()
        return at[0], at[1], lower.index(quality) if quality in lower else None

    def _wide_columns(self, header_line: int) -> None:
        """Columns that are tags; the others are rejected by name, once."""
        taken: dict[int, int] = {}
        rejects = []
        for at, name in enumerate(self.names):
            tag = self.tags.find(name)
            if at == self.time or tag == IGNORED or self._is_status(at, tag):
                continue
            if tag == UNKNOWN or tag in taken:
                why = self.tags.why_not(name) if tag == UNKNOWN else f"a second column for {self.names[taken[tag]]}"
                rejects.append(
                    Rejects.of(np.array([max(1, header_line)], np.int64), name, f"whole column: {why}", [name])
                )
            else:
                taken[tag] = at
        if not taken:
            raise SourceError(
                f"no column is a tag of the plant: {', '.join(self.names[:12])}; map them with columns, or give"
                " columns time, tag, value"
            )
        self.wide = tuple((at, tag) for tag, at in taken.items())
        self.header_rejects = Rejects.joined(rejects)

    def _is_status(self, at: int, tag: int) -> bool:
        """Whether the column is ``TAG quality``, as an export writes it beside the tag's; then it is noted."""
        base, _, word = self.names[at].rpartition(" ")
        if tag != UNKNOWN or word != self.options.quality_column or base not in self.names:
            return False
        if (beside := self.tags.find(base)) >= 0:
            self.statuses.setdefault(beside, at)
        return True

    def _timed(
        self, rows: Rows, times: Times, sequence: NDArray[np.int32], known: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[Rejects]]:
        """(UTC [n], usable rows [n], rejects); only `known` rows are looked at."""
        column = rows.columns[self.time]
        header = np.zeros(len(rows.lines), bool)
        if pa.types.is_string(column.type):
            header = (
                pc.equal(pc.utf8_trim_whitespace(column), self.names[self.time])
                .fill_null(False)
                .to_numpy(zero_copy_only=False)
            )
        rejects = [_rejects(rows, known & header, "", REPEATED, column)]
        for reason, mask in times.reasons.items():
            rejects.append(_rejects(rows, known & mask & ~header, self.names[self.time], reason, column))
        good = known & times.usable & ~header
        at = np.flatnonzero(good)
        utc = np.zeros(len(good), np.int64)
        utc[at], wall = self.clock.resolve(times.values[at], times.local[at], sequence[at])
        for what, reason in ((Wall.SKIPPED, SKIPPED), (Wall.AMBIGUOUS, AMBIGUOUS)):
            mask = np.zeros(len(good), bool)
            mask[at[wall == what]] = True
            rejects.append(_rejects(rows, mask, self.names[self.time], reason, column))
            good &= ~mask
        return utc, good, rejects

    def _wide(self, rows: Rows, times: Times) -> _Found:
        everyone = np.ones(len(rows.lines), bool)
        utc, good, rejects = self._timed(rows, times, np.zeros(len(everyone), np.int32), everyone)
        found = _Found(rejects=rejects, lines=rows.lines[good])
        at = np.flatnonzero(good)
        for double in (False, True):
            columns = [(c, tag) for c, tag in self.wide if self.tags.double[tag] == double]
            if not columns:
                continue
            values = np.empty((len(at), len(columns)), "float64" if double else "float32")
            status = np.full(values.shape, GOOD, np.uint8)
            for i, (column, tag) in enumerate(columns):
                numbers, bad = self._values(rows.columns[column], np.full(len(good), tag), found, rows, column, good)
                if tag in self.statuses:
                    stated, unknown = self._stated(rows, self.statuses[tag], found, good)
                    bad = bad | unknown
                    status[:, i] = np.where(bad, GOOD, stated)[at]
                values[:, i] = np.where(bad, np.nan, numbers)[at]
            found.readings.append(
                Dense(
                    times=utc[at],
                    tags=np.array([tag for _, tag in columns], np.int32),
                    values=values,
                    quality=status,
                )
            )
        return found

    def _long(self, rows: Rows, times: Times) -> _Found:
        tag_column, value_column, quality_column = self.long or (0, 0, None)
        ids, rejects = self._ids(rows, tag_column)
        utc, good, timed = self._timed(rows, times, np.maximum(ids, 0), ids >= 0)
        found = _Found(rejects=[*rejects, *timed], lines=rows.lines)
        status = np.full(len(ids), GOOD, np.uint8)
        if quality_column is not None:
            status, unknown = self._stated(rows, quality_column, found, good)
            good &= ~unknown
        values, bad = self._values(rows.columns[value_column], ids, found, rows, value_column, good)
        good &= ~bad & (~np.isnan(values) | (status != GOOD))
        for double in (False, True):
            at = np.flatnonzero(good & (self.tags.double[np.maximum(ids, 0)] == double))
            found.readings.append(
                Frame(
                    times=utc[at],
                    tags=ids[at],
                    values=values[at].astype("float64" if double else "float32"),
                    quality=status[at],
                )
            )
            found.reading_lines.append(rows.lines[at])
        return found

    def _stated(
        self, rows: Rows, position: int, found: _Found, good: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(status [n], rows [n] where there is none that is known); those of `good` rows are rejected."""
        column = rows.columns[position]
        status, unknown = read_status(column)
        reason = f"unknown quality; allowed: {STATUS}"
        found.rejects.append(_rejects(rows, good & unknown, self.names[position], reason, column))
        return status, unknown

    def _ids(self, rows: Rows, column: int) -> tuple[NDArray[np.int32], list[Rejects]]:
        """Tag ids [n] (negative: none), each distinct name looked up once."""
        texts = pc.utf8_trim_whitespace(rows.columns[column].cast(pa.string()).fill_null(""))
        coded = texts.dictionary_encode()
        names = coded.dictionary.to_pylist()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        found = np.array([self.tags.find(name) for name in names] or [0], np.int32)
        rejects = []
        for code in np.flatnonzero(found == UNKNOWN):
            if names[code] == self.names[column]:
                reason, place = REPEATED, ""
            else:
                reason, place = (self.tags.why_not(names[code]) if names[code] else "no tag"), self.names[column]
            rejects.append(_rejects(rows, codes == code, place, reason, texts))
        return found[codes] if len(codes) else np.zeros(0, np.int32), rejects

    def _values(
        self, column: Any, ids: NDArray[Any], found: _Found, rows: Rows, position: int, good: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(raw * scale + offset [n], rows [n] that hold no usable number); those of `good` rows are rejected."""
        numbers = read_numbers(column, self.options.decimal)
        at = np.maximum(ids, 0)
        values = numbers.values * self.tags.scale[at] + self.tags.offset[at] if len(at) else numbers.values
        limit = np.where(self.tags.double[at], np.finfo(np.float64).max, _FLOAT32_LIMIT)
        large = np.abs(values) >= limit
        name = self.names[position]
        found.rejects.append(_rejects(rows, good & numbers.bad, name, NOT_NUMBER, column))
        found.rejects.append(_rejects(rows, good & large, name, TOO_LARGE, column))
        return values, numbers.bad | large


_FLOAT32_LIMIT = float(np.finfo(np.float32).max) * (1 + 2.0**-25)
"""From here on a float64 becomes infinite as float32."""


@dataclass(slots=True, kw_only=True)
class _Found:
    """Readings and rejects of a block, before rows that were imported earlier are cut off."""

    rejects: list[Rejects]
    lines: NDArray[np.int64]
    """Of the rows of dense readings."""
    readings: list[Readings] = field(default_factory=list)
    reading_lines: list[NDArray[np.int64]] = field(default_factory=list)
    """Of the rows of long readings, one array per part."""

    def kept(self, after: int) -> tuple[list[Readings], list[Rejects]]:
        """Those behind line `after`."""
        kept: list[Readings] = []
        for i, part in enumerate(self.readings):
            if isinstance(part, Frame):
                kept.append(part.only(self.reading_lines[i] > after))
            else:
                new = self.lines > after
                kept.append(
                    Dense(times=part.times[new], tags=part.tags, values=part.values[new], quality=part.quality[new])
                )
        return kept, self.rejects


def _rejects(rows: Rows, mask: NDArray[np.bool_], column: str, reason: str, texts: Any) -> Rejects:
    at = np.flatnonzero(mask)
    return Rejects.of(rows.lines[at], column, reason, texts.take(pa.array(at)).to_pylist() if len(at) else [])
