"""What of an archive is old: which segments go by `keep`, how large they are, and who still holds them.

Whole segments alone go, as only they lie by themselves on the disk. A commit that models or trainings name holds the
segments that it has: their bytes come back when nobody names it any more. `Committer.prune` removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.data.archive.repository import ARRAYS, SegmentName, translated
from penstock.errors import ArchiveError

if TYPE_CHECKING:
    from penstock.data.archive.archive import Archive


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """One segment that is to go."""

    name: SegmentName
    size_bytes: int
    """On disk."""
    held_by: tuple[str, ...]
    """Who names a commit that has it too; none: its bytes come back."""


def limit_of(keep: int, newest: int, closed: int | None, now: int, needed: int, ticks: int) -> int:
    """The tick below which segments of `ticks` ticks go: `keep` ticks before the newest, at a segment's beginning.

    A reading that is dated behind `now` ages nothing; ticks that are not `closed`, and those from `needed` on, stay.
    """
    bound = min(min(newest, now) - keep, needed, newest if closed is None else closed)
    return bound // ticks * ticks


def segments_before(names: Iterable[SegmentName], before: int, ticks: int) -> list[SegmentName]:
    """Those that end at or before tick `before`, oldest first."""
    return sorted((n for n in names if (n.index + 1) * ticks <= before), key=lambda n: (n.index, n.dtype))


def old_segments(archive: Archive, before: int, named: Mapping[str, Sequence[str]]) -> list[Old]:
    """The segments of the newest commit that go when it is pruned below tick `before`.

    `named`: who names which commit; those that are not of this archive are passed over. Raises ArchiveError.
    """
    view = archive.view()
    holders = [(who, _segments(archive, snapshot)) for snapshot, who in named.items()]
    found = []
    for name in segments_before(view.segments.values(), before, archive.segment_ticks):
        with translated(archive.folder):
            size = sum(int(view.array(name, which).nbytes_stored()) for which in ARRAYS)
        held = tuple(sorted(w for who, segments in holders if name in segments for w in who))
        found.append(Old(name=name, size_bytes=size, held_by=held))
    return found


def _segments(archive: Archive, snapshot: str) -> set[SegmentName]:
    try:
        return set(archive.view(snapshot).segments.values())
    except ArchiveError:  # a card of another site, or a commit that has expired
        return set()
