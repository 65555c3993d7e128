"""From the archive to the view of aggregates: which periods have changed, and what they come to now.

An aggregate is a pure function of the archive's cells of its period, and of the tag's range: so batch and speed cannot
disagree, a late reading only makes its period be computed once more, and a run that was killed is gone on with. The
shortest periods are computed from cells, each longer one from those of the length before.

    journal from the mark's position on ─► periods touched ┐
    clock from the mark's `until` on    ─► periods now over ┴─► todo ─► cells ─► minutes ─► hours ─► commit, with a mark
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.archive import Archive, Head
from penstock.data.grid import Cells, Grid
from penstock.data.journal import Journal
from penstock.data.journal.record import Record
from penstock.data.summary import Summary
from penstock.data.views.aggregates import AggregatesView, Mark, Writing, writing
from penstock.data.views.changes import Ranges, joined

PIECE_CELLS = 1 << 23
"""Cells of one commit, about: 100 MB while they are read."""
SLICE_TAGS = 8192
"""Tags that are read together: as wide as the archive's open chunks."""
LOCK_S = 30.0
LARGE = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """What is to be aggregated."""

    periods: tuple[int, ...]
    """Lengths in ticks, ascending, each a multiple of the one before."""
    bounds: NDArray[np.float64]
    """[tag ids, 2] range of each tag, infinite where it has none; NaN for tags that are left out."""

    @property
    def tags(self) -> NDArray[np.int32]:
        """Ids of those that are not left out, ascending."""
        return np.flatnonzero(~np.isnan(self.bounds[:, 0])).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """Base periods first..last-1 of some tags; a value, so that anybody who can read the cells may do it."""

    tags: NDArray[np.int32]
    """[m] ids, ascending."""
    base: int
    """Ticks of a period."""
    first: int
    last: int
    bounds: NDArray[np.float64]
    """[m, 2] range of each."""
    most: int
    """Ticks that are read at a time."""


Read = Callable[[NDArray[np.int32], int, int], Cells]
"""Cells of tag ids at ticks [first, last), of one state of the archive."""
Across = Callable[[str, Sequence[Job]], Iterable[Summary]]
"""Does jobs on a snapshot of the archive, by `summary_of`: one summary [periods, m] each, in their order."""


def summary_of(job: Job, read: Read) -> Summary:
    """[last - first, m] what the cells of each period come to; the same bits however they are cut."""
    base, (low, high) = job.base, job.bounds.T
    out = Summary.empty(job.last - job.first, len(job.tags))
    for begin in range(job.first * base, job.last * base, job.most):
        block = read(job.tags, begin, min(begin + job.most, job.last * base))
        for period in range(begin // base, -(-block.last // base)):
            part = block.rows(max(begin, period * base), min(block.last, (period + 1) * base))
            whole = out[period - job.first] + Summary.of(part, low, high)
            for name, column in out.columns().items():
                column[period - job.first] = whole.columns()[name]
    return out


def bring_up(
    folder: Path, archive: Archive, journal: Journal, wanted: Wanted, *, pieces: int | None = None,
    older_than_ns: int | None = None, cells: int = PIECE_CELLS, lock_s: float = LOCK_S, across: Across | None = None,
    jobs: int = 1,
) -> Mark:  # fmt: skip
    """Bring the view in `folder` up to the archive's newest commit; where it stands then.

    At most so many `pieces` of about `jobs` times `cells` cells are computed, a commit each; the mark's `todo` says
    what is left. `across`: does the jobs of a piece elsewhere; None: here, one after the other.
    Former commits made before `older_than_ns` (UTC) are let go of. Raises ArchiveBusy, ArchiveError, JournalError.
    """
    with writing(folder, deadline_s=lock_s) as writer:
        head = archive.head()
        mark = writer.view.mark
        anew = mark is None or mark.periods != wanted.periods or _differ(writer.view.bounds(), wanted.bounds)
        if anew or mark is None or len(writer.view.bounds()) != len(wanted.bounds):
            writer.view.begin(wanted.bounds, anew=anew, since=head.pruned)
        due = _due(None if anew else mark, head, journal, archive.grid, wanted.periods)
        while due.todo and pieces != 0:
            due = replace(due, todo=_piece(writer, head, wanted, due, cells, jobs, across or _here(archive)))
            writer.commit(due)
            pieces = None if pieces is None else pieces - 1
        if due != mark and due != writer.view.mark:
            writer.commit(due)
        if older_than_ns is not None:
            writer.expire(older_than_ns)
        return due


def pending(folder: Path, archive: Archive, journal: Journal, wanted: Wanted) -> int:
    """Cells that `bring_up` would read, about; nothing is locked. Raises ArchiveError, JournalError."""
    view, head = AggregatesView.open(folder), archive.head()
    mark = None if view is None else view.mark
    if view is None or mark is None or mark.periods != wanted.periods or _differ(view.bounds(), wanted.bounds):
        mark = None
    due = _due(mark, head, journal, archive.grid, wanted.periods)
    return sum(last - first for first, last in due.todo) * wanted.periods[0] * len(wanted.tags)


def standing_of(folder: Path) -> int | None:
    """Journal position up to which the view has looked; None where there is no view."""
    view = AggregatesView.open(folder)
    mark = None if view is None else view.mark
    return None if mark is None else mark.position


def _differ(before: NDArray[np.float64], now: NDArray[np.float64]) -> bool:
    """Whether a tag that is known has another range, was left out, or is so now."""
    n = min(len(before), len(now))
    return not np.array_equal(before[:n], now[:n], equal_nan=True)


def _due(mark: Mark | None, head: Head, journal: Journal, grid: Grid, periods: tuple[int, ...]) -> Mark:
    """Where the view will stand, and what must be computed for it."""
    base = periods[0]
    over = head.span[1] if head.closed is None else head.closed  # imports alone: what is there is all there is
    stored = (max(head.span[0] // base, _whole(head.pruned, base)), -(-head.span[1] // base))
    if mark is None or mark.position < journal.first:
        until = over if mark is None else max(over, mark.until)
        todo = {stored} if stored[0] < stored[1] else set()
        return _mark(head, until, todo, (), stored, periods)
    until = max(over, mark.until)
    touched = _touched(journal.read(mark.position, head.position), grid, base)
    return _mark(head, until, {*mark.todo, (mark.until // base, until // base)}, touched, stored, periods)


def _whole(pruned: int | None, base: int) -> int:
    """The first period of which nothing was pruned: what is left of others would be told as all of them."""
    return -(2**62) if pruned is None else -(-pruned // base)


def _mark(
    head: Head, until: int, ranges: set[tuple[int, int]], touched: Iterable[int], stored: tuple[int, int],
    periods: tuple[int, ...],
) -> Mark:  # fmt: skip
    last = min(until // periods[0], stored[1])
    inside = [(max(a, stored[0]), min(b, last)) for a, b in [*ranges, *((p, p + 1) for p in touched)]]
    return Mark(position=head.position, until=until, todo=joined(inside), periods=periods)


def _touched(records: Iterable[Record], grid: Grid, base: int) -> set[int]:
    """Base periods that readings of these records fall into."""
    found: set[int] = set()
    for record in records:
        if record.readings is not None and len(record.readings.times):
            found.update(np.unique(grid.tick(record.readings.times) // base).tolist())
    return found


def _here(archive: Archive) -> Across:
    def across(snapshot: str, jobs: Sequence[Job]) -> Iterator[Summary]:
        for job in jobs:
            yield summary_of(job, partial(archive.read, snapshot=snapshot))

    return across


def _piece(
    writer: Writing, head: Head, wanted: Wanted, due: Mark, cells: int, many: int, across: Across
) -> Ranges:  # fmt: skip
    """Compute the first periods of `todo` with all longer ones that they make; what is left."""
    base = wanted.periods[0]
    (first, last), rest = due.todo[0], due.todo[1:]
    end = min(last, first + max(1, many * cells // max(1, base * len(wanted.tags))))
    rest = ((end, last), *rest) if end < last else rest
    jobs = [
        Job(tags=tags, base=base, first=begin, last=stop, bounds=wanted.bounds[tags], most=max(1, cells // len(tags)))
        for tags in _slices(wanted.tags)
        for begin, stop in _steps(first, end, base, cells // max(1, len(tags)))
    ]
    for job, found in zip(jobs, across(head.snapshot, jobs), strict=True):
        writer.view.put(base, job.tags, job.first, found, len(wanted.bounds))
    for tags in _slices(wanted.tags):
        _make_longer(writer.view, wanted, tags, (first, end), due.until, rest)
    writer.view.touch(first, end)
    return rest


def _slices(tags: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    for at in range(0, len(tags), SLICE_TAGS):
        yield tags[at : at + SLICE_TAGS]


def _steps(first: int, last: int, base: int, ticks: int) -> Iterator[tuple[int, int]]:
    """Periods first..last-1 in runs of about `ticks` ticks."""
    many = max(1, ticks // base)
    for begin in range(first, last, many):
        yield begin, min(begin + many, last)


def _make_longer(
    view: AggregatesView, wanted: Wanted, tags: NDArray[np.int32], made: tuple[int, int], until: int, rest: Ranges
) -> None:
    """The longer periods that are over and hold any of base periods `made`, from those of the length before.

    None of which a part is still to be made, by the `rest`: nobody shall be told half of an hour.
    """
    base = wanted.periods[0]
    begin, end = made[0] * base, made[1] * base
    for short, long in zip(wanted.periods, wanted.periods[1:], strict=False):
        ratio = long // short
        for period in range(begin // long, min(-(-end // long), until // long)):
            if any(a * base < (period + 1) * long and period * long < b * base for a, b in rest):
                continue
            if view.since is not None and period * long < view.since:
                continue  # its beginning was pruned before it was ever computed
            found = view.read(short, tags, period * ratio, (period + 1) * ratio).joined(ratio)
            view.put(long, tags, period, found, len(wanted.bounds))
