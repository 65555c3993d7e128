"""The log as it lies in a folder: its segments, its end, and how the end moves.

Appending, recovery and letting go are done by whoever holds the lock (`journal` sees to that); finding
and reading need none. This file knows nothing of what records say.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from penstock.data.journal import segment as files
from penstock.data.journal.files import TAIL, Tail
from penstock.data.journal.record_format import HEADER, Buffer, Draft, Header
from penstock.data.journal.segment import Segment
from penstock.errors import JournalError

READ_TRIES = 5
Place = tuple[Segment, int, Header]
"""A record: its segment, the byte at which it begins, its header."""


class Log:
    """The segments of a journal and where they end."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.mutex = threading.RLock()
        self._segments: dict[int, Segment] = {}
        self._tail_fd = os.open(folder / "tail", os.O_RDWR | os.O_CREAT, 0o644)
        self._write_fd: tuple[int, int] | None = None

    def close(self) -> None:
        """Give the files back; what was read stays valid."""
        with self.mutex:
            if self._tail_fd >= 0:
                os.close(self._tail_fd)
            if self._write_fd:
                os.close(self._write_fd[1])
            self._tail_fd, self._write_fd = -1, None
            self._segments.clear()

    def tail(self) -> Tail:
        """The end of the log, re-read from disk."""
        if self._tail_fd < 0:
            raise JournalError(f"{self.folder}: this journal was closed; open it again")
        for _ in range(READ_TRIES):
            tail = Tail.unpack(os.pread(self._tail_fd, TAIL.size, 0))
            if tail is not None:
                return tail
            time.sleep(0.001)  # somebody is writing it: 64 bytes
        raise JournalError(f"{self.folder / 'tail'}: not readable; open the journal again to rebuild it")

    def set_tail(self, tail: Tail) -> None:
        """Tell all processes where the log begins and ends."""
        os.pwrite(self._tail_fd, tail.pack(), 0)

    # Under the lock: recovery

    def repair(self) -> None:
        """On opening: create the first segment; set right what a crash, power cut or trim left behind."""
        stamps = files.stamps(self.folder)
        if not stamps:
            files.begin(self.folder, 0, 0, 0, self.segment_bytes)
            stamps = [0]
        tail = Tail.unpack(os.pread(self._tail_fd, TAIL.size, 0))
        if tail is None or tail.newest not in stamps:
            # Every segment but the newest is durable: the next one is only begun after it.
            newest = self.segment(stamps[-1])
            tail = Tail(
                oldest=stamps[0], newest=stamps[-1], at=files.HEAD.size, sequence=newest.first,
                first=self.segment(stamps[0]).first, chain=newest.chain,
            )  # fmt: skip
        oldest = max(tail.oldest, stamps[0])
        self.set_tail(replace(tail, oldest=oldest, first=self.segment(oldest).first))
        old = [s for s in stamps if s < oldest]
        if old:  # only then: a reader of another segment size would delete the writer's spares
            files.retire(self.folder, old, self.segment_bytes)
        self.recover()

    def recover(self) -> Tail:
        """The tail, moved over sequences that lie whole behind it: an appender died before it could."""
        tail = known = self.tail()
        while True:
            place = self.segment(tail.newest)
            while (end := place.sequence_end(tail.at, tail.sequence, tail.chain)) is not None:
                tail = replace(tail, at=end[0], chain=end[1], sequence=tail.sequence + 1)
            if not self._goes_on(tail):
                break
            tail = replace(tail, newest=tail.newest + 1, at=files.HEAD.size)
        if tail != known:
            for stamp in range(known.newest, tail.newest + 1):
                os.fdatasync(self._descriptor(stamp))
            self.set_tail(tail)
        return tail

    def _goes_on(self, tail: Tail) -> bool:
        """Whether a next segment begins where `tail` ends; one that does not is let go."""
        stamp = tail.newest + 1
        path = self.folder / files.name_of(stamp)
        if not path.exists():
            return False
        following = Segment(path, stamp)
        if (following.first, following.chain) == (tail.sequence, tail.chain):
            return True
        self._segments.pop(stamp, None)  # another file may get this stamp
        files.retire(self.folder, [stamp], self.segment_bytes)
        return False

    # Under the lock: writing

    def write(self, groups: Sequence[Sequence[Draft]], tail: Tail) -> Tail:
        """Make groups of records durable behind `tail`; the new tail, which nobody knows yet.

        Raises OSError when the disk fails; nothing is left that recovery would adopt.
        """
        try:
            return self._write(groups, tail)
        except OSError:
            with suppress(OSError):  # the disk may refuse this as well; the first error tells more
                self._undo(tail)
            raise

    def _undo(self, tail: Tail) -> None:
        """Leave nothing behind `tail`: the segments begun there go first, as one may begin exactly at `tail`."""
        begun = [s for s in files.stamps(self.folder) if s > tail.newest]
        for stamp in begun:
            self._segments.pop(stamp, None)
        if begun:
            files.retire(self.folder, begun, self.segment_bytes)
        fd, size = self._descriptor(tail.newest), len(self.segment(tail.newest).raw)
        files.write(fd, [bytes(min(HEADER.size, size - tail.at))], tail.at)  # never longer than it was made
        os.fdatasync(fd)

    def _write(self, groups: Sequence[Sequence[Draft]], tail: Tail) -> Tail:
        buffers: list[Buffer] = []
        at = tail.at  # `tail.at` stays where the buffers that are not yet written begin
        for group in groups:
            size = sum(d.size for d in group)
            if at + size > len(self.segment(tail.newest).raw):
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
        """Begin the next segment, now that the one before it is durable."""
        stamp = tail.newest + 1
        files.begin(self.folder, stamp, tail.sequence, tail.chain, self.segment_bytes)
        return replace(tail, newest=stamp, at=files.HEAD.size)

    def _descriptor(self, stamp: int) -> int:
        if self._write_fd is None or self._write_fd[0] != stamp:
            if self._write_fd:
                os.close(self._write_fd[1])
                self._write_fd = None
            self._write_fd = stamp, os.open(self.folder / files.name_of(stamp), os.O_RDWR)
        return self._write_fd[1]

    # Under the lock: letting go

    def whole_below(self, sequence: int, tail: Tail) -> list[int]:
        """Stamps of the segments whose sequences all lie below `sequence`, never the newest."""
        limit = min(sequence, tail.sequence)
        return [s for s in range(tail.oldest, tail.newest) if self.segment(s + 1).first <= limit]

    def let_go(self, stamps: Sequence[int], tail: Tail) -> None:
        """Turn the oldest segments into spares; readers are told before the files change."""
        oldest = stamps[-1] + 1
        self.set_tail(replace(tail, oldest=oldest, first=self.segment(oldest).first))
        for stamp in stamps:
            self._segments.pop(stamp, None)
        files.retire(self.folder, stamps, self.segment_bytes)

    # Without the lock: finding

    def segment(self, stamp: int) -> Segment:
        """A segment, mapped. Raises JournalError when it was trimmed."""
        with self.mutex:
            known = self._segments.get(stamp)
            if known is None or not known.still():
                known = self._segments[stamp] = Segment(self.folder / files.name_of(stamp), stamp)
            return known

    def places(self, start: int, stop: int) -> Iterator[Place]:
        """The records of sequences start..stop-1, in order.

        Raises JournalError when one was trimmed or is not there yet.
        """
        if start >= stop:
            return
        stamp, newest = self._locate(start, stop)
        while start < stop:
            place = self.segment(stamp)
            upto = stop if stamp == newest else min(stop, self.segment(stamp + 1).first)
            if start < upto:
                with self.mutex:
                    begin = place.find(start)
                for at, header in place.headers(begin, upto - start):
                    yield place, at, header
            start, stamp = upto, stamp + 1

    def _locate(self, start: int, stop: int) -> tuple[int, int]:
        """Stamps of the segment that holds `start` and of the newest one."""
        while True:
            tail = self.tail()
            if start < tail.first or stop > tail.sequence:
                have = f"{tail.first}..{tail.sequence - 1}" if tail.first < tail.sequence else "none"
                raise JournalError(f"{self.folder}: sequences {start}..{stop - 1} asked for; there are {have}")
            stamps = range(tail.oldest, tail.newest + 1)
            try:
                at = bisect_right(stamps, start, key=lambda s: self.segment(s).first)
            except JournalError:
                if self.tail().oldest == tail.oldest:
                    raise
                continue  # segments before `start` were trimmed while we looked: it moves on each time
            with self.mutex:
                for stamp in [s for s in self._segments if s < tail.oldest]:
                    del self._segments[stamp]
            return stamps[at - 1], tail.newest
