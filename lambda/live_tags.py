"""Tags as they come in: the newest reading of each, how old it is, what is wrong with it, and who sent it.

Reads files only, so it runs beside a stream: cells through `Followed`, sources from the journal's records. Of what the
journal has let go of nobody knows the source. Time is an argument; the caller waits between two looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.data.block import Flag
from penstock.data.following import Followed
from penstock.data.frame import UNCERTAIN, Dense, Readings
from penstock.data.grid import PRESENT, STATUS, Cells
from penstock.data.plant import Tag
from penstock.data.quality import assess
from penstock.data.rules import Rules
from penstock.errors import JournalError, QueryError
from penstock.speed.status import read_status

if TYPE_CHECKING:
    from penstock.site import Site

LOOK_BACK = 4096
"""Ticks in which the newest reading of a tag is looked for, where few tags are looked at."""
MOST_CELLS = 1 << 22
"""Cells judged at each look, roughly at most; the more tags, the shorter the look back."""
SEQUENCES = 4096
"""Of the journal, from which sources are told at the first look."""
OF_READING: Mapping[Flag, str] = {
    Flag.SOURCE_BAD: "bad", Flag.RANGE: "out of range", Flag.RATE: "too fast", Flag.FLAT: "stuck", Flag.LATE: "late",
}  # fmt: skip
"""What may be said of the newest reading."""
OF_SILENCE: Mapping[Flag, str] = {
    Flag.HELD: "unchanged", Flag.STALE: "stale", Flag.CARRIED: "carried", Flag.SUBSTITUTED: "substituted",
    Flag.BAD: "withheld",
}  # fmt: skip
"""What models get in its place at the newest closed tick, where that has no reading of its own."""


class LiveTags:
    """The tags of a site whose names are, or are like, a pattern. For one thread."""

    def __init__(self, site: Site, pattern: str) -> None:
        """Raises QueryError where no tag is like `pattern`."""
        names = site.registry.like(pattern)
        if not names:
            raise QueryError(f"no tag is like {pattern!r}; see: penstock tags")
        self._site, self.names = site, names
        ids = np.asarray(site.registry.ids(names), np.int32)
        tags = [site.plant.tags.get(name, Tag(name=name)) for name in names]
        self._units = [site.plant.tags[n].unit if n in site.plant.tags else "retired" for n in names]
        self._parts = [
            _Part(site, ids[at], [tags[i] for i in at.tolist()], at, double=double)
            for double in (False, True)
            if len(at := np.flatnonzero(site.layout().double()[ids] == double))
        ]
        self._sources = _Sources(site, ids)

    def look(self, now_ns: int) -> list[dict[str, Any]]:
        """A row per tag: tag, unit, value, time, age_s, quality, source; no reading: None for all that it lacks.

        `now_ns`: wall clock. Of recorded readings the age is that at the newest tick, whatever the wall clock says.
        """
        site, desk = self._site, self._site.desk()
        last, clock = desk.newest(), site.journal.clock()
        self._sources.follow()
        now = site.readings.grid.time(last - 1) if self._recorded() else now_ns
        closed = last if clock is None else min(last, clock.closed)
        rows: list[dict[str, Any]] = [{} for _ in self.names]
        for part in self._parts:
            for column, found in enumerate(part.look(len(desk.layout), closed, last)):
                i = int(part.at[column])
                rows[i] = {"tag": self.names[i], "unit": self._units[i], **self._told(found, now)}
                rows[i]["source"] = self._sources.of(i) if found else None
        return rows

    def _told(self, found: Mapping[str, Any] | None, now: int) -> dict[str, Any]:
        if found is None:
            return {"value": None, "time": None, "age_s": None, "quality": "no reading"}
        at = pd.Timestamp(found["time_ns"], tz="UTC").tz_convert(self._site.plant.timezone)
        age_s = max(0, now - found["time_ns"]) / 1e9
        return {"value": found["value"], "time": at.isoformat(), "age_s": age_s, "quality": found["quality"]}

    def _recorded(self) -> bool:
        told = read_status(self._site.folder / "speed") or {}
        return self._site.plant.clock == "replay" or bool(told.get("replay"))


class _Part:
    """The tags of one dtype."""

    def __init__(
        self, site: Site, ids: NDArray[np.int32], tags: Sequence[Tag], at: NDArray[np.intp], *, double: bool
    ) -> None:
        self.at = at
        """[m] where each tag is among all."""
        self._grid = site.readings.grid
        self._rules = Rules.of(tags, self._grid.period_ns).as_read()
        self._followed = Followed(site.readings, site.journal, ids, double=double)
        self._back = max(self._rules.reach + 16, min(LOOK_BACK, MOST_CELLS // len(ids)))

    def look(self, known: int, closed: int, last: int) -> list[dict[str, Any] | None]:
        """[m] the newest reading of each tag within the look back."""
        cells = self._followed.read(known, last - self._back, last)
        flags = assess(cells, self._rules).flags
        present = (cells.quality & PRESENT) != 0
        newest = len(present) - 1 - np.argmax(present[::-1], axis=0)
        return [
            self._reading(cells, flags[:, i], i, int(row), closed) if present[row, i] else None
            for i, row in enumerate(newest)
        ]

    def _reading(self, cells: Cells, flags: NDArray[np.uint16], column: int, row: int, closed: int) -> dict[str, Any]:
        words = [text for flag, text in OF_READING.items() if flags[row] & flag]
        if not words and int(cells.quality[row, column]) & STATUS >= UNCERTAIN:
            words = ["uncertain"]
        silent = closed - 1 - cells.first
        if silent > row:
            words += [text for flag, text in OF_SILENCE.items() if flags[silent] & flag]
        offset = self._grid.elapsed(cells.offset[row : row + 1, column])
        return {
            "value": float(cells.values[row, column]),
            "time_ns": self._grid.time(cells.first + row) + int(offset[0]),
            "quality": ", ".join(words) or "good",
        }


class _Sources:
    """Who sent the newest reading of each tag, as far as the journal tells."""

    def __init__(self, site: Site, ids: NDArray[np.int32]) -> None:
        self._journal, self._ids = site.journal, ids
        self._column_of = np.full(int(ids.max()) + 1, -1, np.int32)
        self._column_of[ids] = np.arange(len(ids), dtype=np.int32)
        self._newest = np.full(len(ids), np.iinfo(np.int64).min)
        self._source: list[str | None] = [None] * len(ids)
        self._position = max(self._journal.first, self._journal.tail - SEQUENCES)

    def of(self, column: int) -> str | None:
        """The source's name in the journal; None where that no longer knows."""
        return self._source[column]

    def follow(self) -> None:
        """Take in what was appended."""
        tail = self._journal.tail
        try:
            for record in self._journal.read(max(self._position, self._journal.first), tail):
                if record.readings is not None:
                    self._take(record.readings, record.source)
        except JournalError:  # trimmed meanwhile: what is left is read at the next look
            return
        self._position = tail

    def _take(self, readings: Readings, source: str) -> None:
        known = readings.tags < len(self._column_of)
        columns = np.where(known, self._column_of[np.where(known, readings.tags, 0)], -1)
        if isinstance(readings, Dense):
            at = np.flatnonzero(columns >= 0)
            columns, times = columns[at], _last_times(readings, at)
        else:
            columns, times = columns[columns >= 0], readings.times[columns >= 0]
        for column in np.unique(columns).tolist():
            newest = int(times[columns == column].max())
            if newest >= self._newest[column]:
                self._newest[column], self._source[column] = newest, source


def _last_times(dense: Dense, at: NDArray[np.intp]) -> NDArray[np.int64]:
    """[len(at)] the newest time at which each of these columns was read; long ago where it was not."""
    present, never = dense.columns(at).present(), np.iinfo(np.int64).min
    newest: NDArray[np.int64] = np.where(present, dense.times[:, None], never).max(axis=0, initial=never)
    return newest
