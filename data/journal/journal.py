"""The journal: one log of everything that enters a site.

Any process appends, under a file lock; readers need no lock. A sequence is one entry's atom: all of
its records are there or none is, and it is acknowledged (append returns) only when it is on disk.
Whoever appends next after a crash adopts the sequences that lie whole behind the tail and overwrites
the torn rest. This file knows what records say about sources and the clock, and nothing of grids,
archives or shards; where the bytes lie is in `log` and `segment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from penstock.data.durable import locked
from penstock.data.journal.files import Fold, read_checkpoint, write_checkpoint
from penstock.data.journal.log import Log, Place
from penstock.data.journal.record import ClockDecision, Entry, Kind, Record, Totals
from penstock.data.journal.record_format import Draft, drafts, intact, record_at, source_at
from penstock.data.journal.segment import room
from penstock.errors import JournalCorrupt, JournalError

__all__ = ["ClockDecision", "Entry", "Journal", "Kind", "Record", "Totals"]

LOCK_DEADLINE_S = 30.0
LOCK_POLL_S = 0.001


class Journal:
    """The log of a site; open it with `Journal.open`. Safe to use from several threads."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder = folder
        self._log = log
        self._fold: Fold | None = None

    @classmethod
    def open(cls, folder: Path, *, segment_bytes: int = 64 << 20) -> Journal:
        """The journal in `folder`, created where there is none; adopts or cuts a torn tail.

        Raises JournalError when another process keeps the lock or the disk fails.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            journal = cls(folder, Log(folder, segment_bytes))
            with journal._exclusive():
                journal._log.repair()
        except OSError as error:
            raise JournalError(f"{folder}: cannot open this journal ({error})") from error
        return journal

    def close(self) -> None:
        """Give the files back; readings already read stay valid."""
        self._log.close()

    @property
    def largest(self) -> int:
        """Bytes of records that one entry may have; a larger one must be split by the caller."""
        return room(self._log.segment_bytes)

    @property
    def first(self) -> int:
        """The oldest sequence that can be read."""
        return self._log.tail().first

    @property
    def tail(self) -> int:
        """One past the newest durable sequence, re-read from disk."""
        return self._log.tail().sequence

    @property
    def kept_bytes(self) -> int:
        """Bytes of records from the oldest segment to the tail, headers included."""
        tail = self._log.tail()
        return (tail.newest - tail.oldest) * self._log.segment_bytes + tail.at

    def append(self, entries: Sequence[Entry]) -> range:
        """Make entries durable, in order; their sequences.

        Raises JournalError when one of them is too large (nothing is written then), when the lock is
        kept by another process, or when the disk fails (nothing is acknowledged then).
        """
        groups = [drafts(entry) for entry in entries]
        for entry, group in zip(entries, groups, strict=True):
            self._check(entry, group)
        if not groups:
            return range(0)
        with self._exclusive():
            try:
                begin = self._log.recover()
                end = self._log.write(groups, begin)
            except OSError as error:
                raise JournalError(
                    f"{self.folder}: cannot write ({error}); nothing was acknowledged; free the disk and repeat"
                ) from error
            self._log.set_tail(end)
            return range(begin.sequence, end.sequence)

    def read(self, start: int, stop: int, shard: int | None = None) -> Iterator[Record]:
        """Records of sequences start..stop-1 in order; with a shard: its data and all clock records.

        Arrays are views of the segment: valid until `trim` passes them. Raises JournalError when a
        sequence was trimmed or is not there yet, JournalCorrupt when a record fails its checksum.
        """
        for place in self._log.places(start, stop):
            segment, at, header = place
            if shard is not None and header.shard != shard and header.kind != Kind.CLOCK:
                continue
            if not intact(segment.raw, at, header):
                _complain(place)
            yield record_at(segment.raw, at, header)
            if not segment.still():
                _trimmed(place)

    def copies(self, start: int, stop: int, shard: int) -> Iterator[tuple[int, bytes]]:
        """What `read` of a shard gives, as (sequence, bytes); `records_in` reads them and looks at their checksums.

        Raises JournalError like it.
        """
        for place in self._log.places(start, stop):
            segment, at, header = place
            if header.shard == shard or header.kind == Kind.CLOCK:
                raw = bytes(segment.raw[at : at + header.size])
                if not segment.still():
                    _trimmed(place)
                yield header.sequence, raw

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
        if sequence < fold.sequence:
            raise JournalError(f"{self.folder}: sequence {sequence} was trimmed; the log begins at {fold.sequence}")
        clock = _newest_clock(self._log.places(fold.sequence, sequence)) or fold.clock
        return clock.closed if clock else None

    def trim(self, below: int) -> None:
        """Let go of whole segments whose sequences all lie below `below`.

        What they say about sources, totals and clock is kept in the checkpoint first.
        """
        with self._exclusive():
            tail = self._log.recover()
            old = self._log.whole_below(below, tail)
            if old:
                fold = self._checkpoint()
                first = self._log.segment(old[-1] + 1).first
                write_checkpoint(self.folder / "checkpoint.json", _fold_on(fold, self._log, first))
                self._log.let_go(old, tail)

    def _check(self, entry: Entry, group: Sequence[Draft]) -> None:
        size = sum(d.size for d in group)
        if size > self.largest:
            raise JournalError(
                f"an entry of {entry.source!r} takes {size} bytes; the largest that fits is {self.largest}: "
                "split it into several entries"
            )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._log.mutex, ExitStack() as held:
            try:
                held.enter_context(locked(self.folder / "lock", deadline_s=LOCK_DEADLINE_S, poll_s=LOCK_POLL_S))
            except TimeoutError as error:
                raise JournalError(f"{error}; end it, or wait for it to finish") from error
            yield

    def _checkpoint(self) -> Fold:
        return read_checkpoint(self.folder / "checkpoint.json")

    def _folded(self, upto: int) -> Fold:
        with self._log.mutex:
            while True:
                first, fold = self.first, self._fold
                if fold is None or fold.sequence < first:
                    fold = self._checkpoint()
                try:
                    self._fold = _fold_on(fold, self._log, upto)
                except JournalError:
                    if self.first == first:
                        raise
                    continue  # another process trimmed meanwhile: what went is in its checkpoint
                return self._fold


def _fold_on(fold: Fold, log: Log, upto: int) -> Fold:
    """`fold` and the sequences from there up to `upto`."""
    fold = fold.copy()
    newest: Place | None = None
    for segment, at, header in log.places(fold.sequence, upto):
        source = source_at(segment.raw, at, header)
        said = Totals(accepted=header.accepted, rejected=header.rejected, quarantined=header.quarantined)
        fold.offsets[source] = header.source_offset
        fold.totals[source] = fold.totals.get(source, Totals()) + said
        newest = (segment, at, header) if header.kind == Kind.CLOCK else newest
    fold.clock = _newest_clock([newest] if newest else []) or fold.clock
    fold.sequence = max(upto, fold.sequence)
    return fold


def _newest_clock(places: Iterable[Place]) -> ClockDecision | None:
    newest: Place | None = None
    for place in places:
        newest = place if place[2].kind == Kind.CLOCK else newest
    if newest is None:
        return None
    segment, at, header = newest
    if not intact(segment.raw, at, header):
        _complain(newest)
    return record_at(segment.raw, at, header).clock


def _complain(place: Place) -> NoReturn:
    segment, at, header = place
    if not segment.still():
        _trimmed(place)
    raise JournalCorrupt(
        f"{segment.path}: sequence {header.sequence}, byte {at}: fails its checksum; "
        "restore the journal's folder from a copy"
    )


def _trimmed(place: Place) -> NoReturn:
    raise JournalError(
        f"{place[0].path}: sequence {place[2].sequence} was trimmed while it was being read; read again from `first`"
    )
