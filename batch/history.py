"""Windows out of the archive, by the very functions that the speed layer cuts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data import windows
from penstock.data.archive import Archive
from penstock.data.grid import Cells
from penstock.data.hatch import FarArchive, Hatch, outside
from penstock.data.plant import Tag
from penstock.data.quality import Block, Rules, assess
from penstock.data.window_spec import WindowSpec, column_name
from penstock.data.windows import Windows
from penstock.secure import wire_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Cells that several models are made from, read together and kept by each worker until it needs other ones.

    An open segment of the archive lies in blocks of all tags: five of them cost as much as a thousand.
    """

    ids: tuple[int, ...]
    """Registry ids, ascending."""
    first: int
    last: int
    """Ticks first..last-1, what rules and windows reach back and look ahead among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One state of an archive; a value, so that it can travel to a worker."""

    folder: Path
    """As the workers see it."""
    snapshot: str
    hatch: Hatch | None = None
    """Where workers that cannot read the site get its cells; None: nowhere."""

    def block(
        self,
        tags: Sequence[Tag],
        ids: Sequence[int],
        period_ns: int,
        first: int,
        last: int,
        shelf: Shelf | None = None,
        *,
        ahead: Sequence[int] = (),
    ) -> Block:
        """Assessed rows first..last-1 of `tags`, whose registry ids are `ids`; the same with a shelf and without.

        `ahead`: one per tag, row r then holds the tag at r + ahead under that column's name; none: 0.
        """
        rules, ahead = Rules.of(tags, period_ns), tuple(ahead) or (0,) * len(tags)

        def read(at: NDArray[np.intp], begin: int, end: int) -> Cells:
            some, numbers = [tags[i] for i in at.tolist()], [ids[i] for i in at.tolist()]
            if shelf is None:
                return self.cells(numbers, begin, end)
            return _picked(self, shelf, some, numbers, begin, end)

        cells = Cells.read_ahead(read, np.array(ahead, np.int64), first - rules.reach, last + rules.wait)
        names = tuple(column_name(tag, a) for tag, a in zip(tags, ahead, strict=True))
        return replace(assess(cells, rules).rows(first, last), tags=names)

    def cells(self, ids: Sequence[int], first: int, last: int) -> Cells:
        """Ticks first..last-1 of the tags `ids`, from the disk or through the hatch.

        Raises ArchiveError; SiteError, Unavailable where neither is to be had.
        """
        tags = np.array(ids, np.int32)
        hatch = outside(self.folder, self.hatch)
        archive = Archive.open(self.folder) if hatch is None else FarArchive(wire_to(hatch))
        return archive.read(tags, first, last, snapshot=self.snapshot)


@lru_cache(maxsize=1)
def shelf_cells(source: Source, shelf: Shelf) -> Cells:
    """The shelf's cells, in the order of its ids; one shelf is kept per process."""
    return source.cells(shelf.ids, shelf.first, shelf.last)


def _picked(source: Source, shelf: Shelf, tags: Sequence[Tag], ids: Sequence[int], first: int, last: int) -> Cells:
    """Some columns of the shelf, float64 only where one of them is, as `Archive.read` gives them."""
    rows, columns = shelf_cells(source, shelf).rows(first, last), np.searchsorted(shelf.ids, ids)
    wide = any(tag.dtype == "float64" for tag in tags)
    return Cells(
        first=first,
        values=rows.values[:, columns] if wide else rows.values[:, columns].astype(np.float32, copy=False),
        quality=rows.quality[:, columns],
        offset=rows.offset[:, columns],
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """Every window of a model over a span, with what came of it."""

    ends: NDArray[np.int64]
    """[a] the windows' ticks."""
    windows: Windows
    y: NDArray[np.float32]
    """[a, O] the target at the predicted time."""
    usable: NDArray[np.bool_]
    """[a, O] whether that truth can be relied on."""
    newest: NDArray[np.float32]
    """[a, O] newest target known at the window's tick; NaN where none is."""


def past(
    source: Source, spec: WindowSpec, ids: Sequence[int], first: int, last: int, shelf: Shelf | None = None
) -> Past:
    """Windows and truth inside ticks first..last-1: the predicted times too lie before `last`."""
    begin = first - spec.depth + 1
    rows = source.block(spec.stored, ids, spec.period_ns, begin, last, shelf, ahead=spec.stored_ahead)
    ends = answered(spec, first, last - spec.horizon)
    cut = windows.cut(spec, windows.prepare(spec, rows), ends)
    y, usable, newest = windows.targets(spec, rows, ends)
    return Past(ends=ends, windows=cut, y=y, usable=usable, newest=newest)


def answered(spec: WindowSpec, first: int, last: int) -> NDArray[np.int64]:
    """The ticks of first..last-1 at which the model answers."""
    ticks = np.arange(first, max(first, last), dtype=np.int64)
    return ticks[windows.answers_at(spec, ticks)]


def touches(spec: WindowSpec, ends: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """[a] whether a window that ends there, or its truth, holds a tick of the spans [begin, end).

    A window's ticks are those that it needs, what preparation looks back among them.
    """
    found = np.zeros(len(ends), np.bool_)
    for begin, end in spans:
        found |= (ends + max(spec.horizon, spec.look_ahead) >= begin) & (ends - spec.depth + 1 < end)
    return found
