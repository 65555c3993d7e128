"""The journal: one log of everything that enters a site.

Any process appends, under a file lock; readers need no lock. A sequence is one entry's atom: all of
its records are there or none is, and it is acknowledged (append returns) only when it is on disk.
Whoever appends next after a crash adopts the sequences that lie whole behind the tail and overwrites
the torn rest. This file knows what records say to the fold (sources, totals, clock) and nothing of
grids, archives or shards.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from penstock.data import segment as files
from penstock.data.journal_files import TAIL, Fold, Tail, locked, read_checkpoint, write_checkpoint
from penstock.data.record import (
    HEADER,
    Buffer,
    ClockDecision,
    Draft,
    Entry,
    Header,
    Kind,
    Record,
    Totals,
    drafts,
    intact,
    record_at,
    source_at,
)
from penstock.data.segment import Segment
from penstock.errors import JournalCorrupt, JournalError

__all__ = ["ClockDecision", "Entry", "Journal", "Kind", "Record", "Totals"]

LOCK_DEADLINE_S = 30.0
READ_TRIES = 5


class Journal:
    """The log of a site; open it with `Journal.open`. Safe to use from several threads."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self._segments: dict[int, Segment] = {}
        self._fold: Fold | None = None
        self._mutex = threading.RLock()
        self._tail_fd = os.open(folder / "tail", os.O_RDWR | os.O_CREAT, 0o644)
        self._write_fd: tuple[int, int] | None = None

    @classmethod
    def open(cls, folder: Path, *, segment_bytes: int = 64 << 20) -> Journal:
        """The journal in `folder`, created where there is none; adopts or cuts a torn tail.

        Raises JournalError when another process keeps the lock.
        """
        folder.mkdir(parents=True, exist_ok=True)
        journal = cls(folder, segment_bytes)
        with journal._exclusive():
            if not files.stamps(folder):
                files.begin(folder, 0, 0, 0, segment_bytes)
            journal._repair()
        return journal

    def close(self) -> None:
        """Give the files back; readings already read stay valid."""
        with self._mutex:
            if self._tail_fd >= 0:
                os.close(self._tail_fd)
            if self._write_fd:
                os.close(self._write_fd[1])
            self._tail_fd, self._write_fd = -1, None
            self._segments.clear()

    @property
    def largest(self) -> int:
        """Bytes of records that one entry may have; a larger one must be split by the caller."""
        return files.room(self.segment_bytes)

    @property
    def first(self) -> int:
        """The oldest sequence that can be read."""
        return self._tail().first

    @property
    def tail(self) -> int:
        """One past the newest durable sequence, re-read from disk."""
        return self._tail().sequence

    def append(self, entries: Sequence[Entry]) -> range:
        """Make entries durable, in order; their sequences.

        Raises JournalError when one of them is too large (nothing is written then), when the lock is
        kept by another process, or when the disk fails (nothing is acknowledged then).
        """
        groups = [drafts(entry) for entry in entries]
        for entry, group in zip(entries, groups, strict=True):
            self._check(entry, group)
        if not groups:
            return range(self.tail, self.tail)
        with self._exclusive():
            start = self._recover()
            try:
                end = self._write(groups, start)
            except OSError as error:
                with suppress(OSError):  # the disk may refuse this as well; the write's own error tells more
                    self._blank(start)
                raise JournalError(
                    f"{self.folder}: cannot write ({error}); nothing was acknowledged"
                ) from error
            self._set_tail(end)
            return range(start.sequence, end.sequence)

    def read(self, start: int, stop: int, shard: int | None = None) -> Iterator[Record]:
        """Records of sequences start..stop-1 in order; with a shard: its data and all clock records.

        Arrays are views of the segment: valid until `trim` passes them. Raises JournalError when a
        sequence was trimmed or is not there yet, JournalCorrupt when a record fails its checksum.
        """
        for place, at, header in self._headers(start, stop):
            wanted = shard is None or header.shard == shard or header.kind == Kind.CLOCK
            if not wanted:
                continue
            if not intact(place.raw, at, header):
                self._complain(place, at, header)
            yield record_at(place.raw, at, header)
            if not place.still():
                raise JournalError(
                    f"sequence {header.sequence} was trimmed while it was being read; start again"
                )

    def offsets(self) -> dict[str, int]:
        """Newest durable source offset per source, since the site began."""
        return dict(self._folded(self.tail).offsets)

    def totals(self) -> dict[str, Totals]:
        """Readings accepted, rejected and quarantined per source, since the site began."""
        return dict(self._folded(self.tail).totals)

    def clock(self) -> ClockDecision | None:
        """The newest clock decision, trimmed or not."""
        return self._folded(self.tail).clock

    def closed_before(self, sequence: int) -> int | None:
        """`closed` of the newest clock decision of a smaller sequence; None where there is none.

        Raises JournalError when `sequence` was trimmed.
        """
        fold = self._checkpoint()
        closed = fold.clock.closed if fold.clock else None
        if sequence < fold.sequence:
            raise JournalError(f"sequence {sequence} was trimmed: the log begins at {fold.sequence}")
        for place, at, header in self._headers(max(fold.sequence, self.first), sequence):
            if header.kind == Kind.CLOCK:
                clock = record_at(place.raw, at, header).clock
                closed = clock.closed if clock else closed
        return closed

    def trim(self, below: int) -> None:
        """Let go of whole segments whose sequences all lie below `below`.

        What they say about sources, totals and clock is kept in the checkpoint first.
        """
        with self._exclusive():
            tail = self._recover()
            old = [
                s
                for s in range(tail.oldest, tail.newest)
                if self._segment(s + 1).first <= min(below, tail.sequence)
            ]
            if not old:
                return
            first = self._segment(old[-1] + 1).first
            write_checkpoint(self.folder / "checkpoint.json", self._fold_on(self._checkpoint(), first))
            # Readers see the new beginning before the files change under them.
            self._set_tail(replace(tail, oldest=old[-1] + 1, first=first))
            for stamp in old:
                self._segments.pop(stamp, None)
            files.retire(self.folder, old, self.segment_bytes)

    # Writing

    def _check(self, entry: Entry, group: Sequence[Draft]) -> None:
        size = sum(d.size for d in group)
        if size > self.largest:
            raise JournalError(
                f"an entry of {entry.source!r} takes {size} bytes; the largest that fits is {self.largest}: "
                "split it into several entries"
            )

    def _write(self, groups: Sequence[Sequence[Draft]], tail: Tail) -> Tail:
        """Write the groups behind `tail`, whose `at` stays where the buffers not yet written begin."""
        buffers: list[Buffer] = []
        at = tail.at
        for group in groups:
            size = sum(d.size for d in group)
            if at + size > len(self._segment(tail.newest).raw):
                self._flush(tail, buffers)
                tail, buffers = self._roll(tail), []
                at = tail.at
            chain = tail.chain
            for draft in group:
                record, chain = draft.bytes_at(tail.newest, tail.sequence, chain)
                buffers += record
            at += size
            tail = replace(tail, sequence=tail.sequence + 1, chain=chain)
        self._flush(tail, buffers)
        return replace(tail, at=at)

    def _flush(self, tail: Tail, buffers: Sequence[Buffer]) -> None:
        fd = self._descriptor(tail.newest)
        files.write(fd, buffers, tail.at)
        os.fdatasync(fd)

    def _roll(self, tail: Tail) -> Tail:
        """The next segment: only after the one before it is durable, so its header can be trusted."""
        stamp = tail.newest + 1
        files.begin(self.folder, stamp, tail.sequence, tail.chain, self.segment_bytes)
        return replace(tail, newest=stamp, at=files.HEAD.size)

    def _blank(self, tail: Tail) -> None:
        """Make sure that nobody adopts what a failed write left behind the tail."""
        fd = self._descriptor(tail.newest)
        files.write(fd, [bytes(HEADER.size)], tail.at)
        os.fdatasync(fd)

    def _descriptor(self, stamp: int) -> int:
        if self._write_fd is None or self._write_fd[0] != stamp:
            if self._write_fd:
                os.close(self._write_fd[1])
                self._write_fd = None
            self._write_fd = stamp, os.open(self.folder / files.name_of(stamp), os.O_RDWR)
        return self._write_fd[1]

    # The tail

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._mutex, locked(self.folder / "lock", LOCK_DEADLINE_S):
            yield

    def _tail(self) -> Tail:
        for _ in range(READ_TRIES):
            tail = Tail.unpack(os.pread(self._tail_fd, TAIL.size, 0))
            if tail is not None:
                return tail
            time.sleep(0.001)
        raise JournalError(f"{self.folder / 'tail'}: not readable; open the journal again to rebuild it")

    def _set_tail(self, tail: Tail) -> None:
        os.pwrite(self._tail_fd, tail.pack(), 0)

    def _repair(self) -> None:
        """On opening: set the tail file right where a crash, a power cut or a trim left it behind."""
        stamps = files.stamps(self.folder)
        tail = Tail.unpack(os.pread(self._tail_fd, TAIL.size, 0))
        if tail is None or tail.newest not in stamps:
            newest = self._segment(stamps[-1])
            tail = Tail(
                oldest=stamps[0],
                newest=stamps[-1],
                at=files.HEAD.size,
                sequence=newest.first,
                first=self._segment(stamps[0]).first,
                chain=newest.chain,
            )
        oldest = max(tail.oldest, stamps[0])
        self._set_tail(replace(tail, oldest=oldest, first=self._segment(oldest).first))
        files.retire(self.folder, [s for s in stamps if s < oldest], self.segment_bytes)
        self._recover()

    def _recover(self) -> Tail:
        """The tail, moved over sequences that lie whole behind it: an appender died before it could."""
        tail = known = self._tail()
        while True:
            place = self._segment(tail.newest)
            while (end := place.sequence_end(tail.at, tail.sequence, tail.chain)) is not None:
                tail = replace(tail, at=end[0], chain=end[1], sequence=tail.sequence + 1)
            if not self._adopt_next(tail):
                break
            tail = replace(tail, newest=tail.newest + 1, at=files.HEAD.size)
        if tail != known:
            for stamp in range(known.newest, tail.newest + 1):
                os.fdatasync(self._descriptor(stamp))
            self._set_tail(tail)
        return tail

    def _adopt_next(self, tail: Tail) -> bool:
        """Whether the next segment exists and goes on where `tail` ends; one that does not is let go."""
        stamp = tail.newest + 1
        if not (self.folder / files.name_of(stamp)).exists():
            return False
        following = Segment(self.folder / files.name_of(stamp), stamp)
        if (following.first, following.chain) == (tail.sequence, tail.chain):
            return True
        files.retire(self.folder, [stamp], self.segment_bytes)
        return False

    # Reading

    def _segment(self, stamp: int) -> Segment:
        with self._mutex:
            known = self._segments.get(stamp)
            if known is None or not known.still():
                known = self._segments[stamp] = Segment(self.folder / files.name_of(stamp), stamp)
            return known

    def _headers(self, start: int, stop: int) -> Iterator[tuple[Segment, int, Header]]:
        tail = self._tail()
        if start >= stop:
            return
        if not tail.first <= start or not stop <= tail.sequence:
            raise JournalError(
                f"{self.folder}: sequences {start}..{stop - 1} asked for; there are {tail.first}..{tail.sequence - 1}"
            )
        for stamp in [s for s in self._segments if s < tail.oldest]:
            self._segments.pop(stamp, None)
        stamps = range(tail.oldest, tail.newest + 1)
        stamp = stamps[bisect_right(stamps, start, key=lambda s: self._segment(s).first) - 1]
        while start < stop:
            place = self._segment(stamp)
            upto = stop if stamp == tail.newest else min(stop, self._segment(stamp + 1).first)
            if start < upto:
                with self._mutex:
                    at = place.find(start)
                for at, header in place.headers(at, upto - start):
                    yield place, at, header
            start, stamp = upto, stamp + 1

    def _complain(self, place: Segment, at: int, header: Header) -> NoReturn:
        if not place.still():
            raise JournalError(f"sequence {header.sequence} was trimmed while it was being read; start again")
        raise JournalCorrupt(
            f"{place.path}: sequence {header.sequence}, byte {at}: fails its checksum; "
            "restore the journal's folder from a copy"
        )

    # The fold over headers

    def _folded(self, upto: int) -> Fold:
        with self._mutex:
            fold = self._fold
            if fold is None or fold.sequence < self.first:
                fold = self._checkpoint()
            self._fold = self._fold_on(fold, upto)
            return self._fold

    def _checkpoint(self) -> Fold:
        return read_checkpoint(self.folder / "checkpoint.json")

    def _fold_on(self, fold: Fold, upto: int) -> Fold:
        """`fold` and the sequences from there up to `upto`."""
        fold = fold.copy()
        newest: tuple[Segment, int, Header] | None = None
        for place, at, header in self._headers(fold.sequence, upto):
            if header.part == 0:
                source = source_at(place.raw, at, header)
                fold.offsets[source] = header.source_offset
            said = Totals(accepted=header.accepted, rejected=header.rejected, quarantined=header.quarantined)
            fold.totals[source] = fold.totals.get(source, Totals()) + said
            newest = (place, at, header) if header.kind == Kind.CLOCK else newest
        if newest is not None:
            fold.clock = record_at(*_raw(newest)).clock
        fold.sequence = max(upto, fold.sequence)
        return fold


def _raw(found: tuple[Segment, int, Header]) -> tuple[memoryview, int, Header]:
    place, at, header = found
    return place.raw, at, header
