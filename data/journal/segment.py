"""Segment files: where the journal's records lie.

    journal/0000000007.seg     header (64 bytes: magic, stamp, first sequence, chain, crc) | records ...
    journal/spare-0000000003   written once, waiting to be used (again)

A segment is preallocated and written once, so that a later write touches no metadata and one
fdatasync makes it durable; a trimmed segment becomes a spare. Its *stamp* (its number) stands in
every record, so that records of a former use are never taken for new ones. This file knows nothing
of locks and of what records say.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock.data.durable import sync_folder
from penstock.data.journal.record_format import Buffer, Header, intact, parse_header
from penstock.errors import JournalError

SEGMENT_MAGIC = 0x31474553_4B54534E
HEAD = struct.Struct("<QQQII32x")
"""magic, stamp, first sequence, chain, crc."""
SUFFIX = ".seg"
SPARE = "spare-"
SPARES = 2
"""Trimmed segments kept for use; more are deleted."""
BLOCK = bytes(1 << 20)


class Segment:
    """One segment file, mapped for reading."""

    def __init__(self, path: Path, stamp: int) -> None:
        """Raises JournalError when the file is missing or is not segment `stamp`."""
        self.path = path
        self.stamp = stamp
        try:
            with path.open("rb") as file:
                self.raw = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise JournalError(f"{path}: cannot read this segment ({error}); it may have been trimmed") from error
        head = read_head(self.raw)
        if head is None or head[0] != stamp:
            raise JournalError(f"{path}: not segment {stamp}: trimmed while it was being read")
        _, self.first, self.chain = head
        self.index: list[int] = []
        """Byte of each sequence found so far: sequence `first + i` begins at `index[i]`."""
        self.scanned = HEAD.size
        """Where the next sequence begins."""

    def still(self) -> bool:
        """Whether the file is still this segment; false once it was trimmed and used again."""
        head = read_head(self.raw)
        return head is not None and head[0] == self.stamp

    def find(self, sequence: int) -> int:
        """The byte at which `sequence` begins.

        Raises JournalError when no whole header chain leads there.
        """
        while len(self.index) <= sequence - self.first:
            begin, at, part, parts = self.scanned, self.scanned, 0, 1
            while part < parts:
                header = parse_header(self.raw, at)
                expected = self.first + len(self.index)
                if header is None or header.stamp != self.stamp or header.sequence != expected:
                    raise JournalError(f"{self.path}: sequence {expected} is not at byte {at}: restore the journal")
                at, part, parts = at + header.size, part + 1, header.parts
            self.index.append(begin)
            self.scanned = at
        return self.index[sequence - self.first]

    def sequence_end(self, at: int, sequence: int, chain: int) -> tuple[int, int] | None:
        """End and last checksum of the sequence at byte `at` if it is whole and follows `chain`, else None."""
        part, parts = 0, 1
        while part < parts:
            header = parse_header(self.raw, at)
            if header is None or not self._follows(header, sequence, chain, part):
                return None
            if not intact(self.raw, at, header):
                return None
            at, chain, part, parts = at + header.size, header.crc, part + 1, header.parts
        return at, chain

    def _follows(self, header: Header, sequence: int, chain: int, part: int) -> bool:
        place = (header.stamp, header.sequence, header.chain, header.part)
        return place == (self.stamp, sequence, chain, part)

    def headers(self, at: int, count: int) -> Iterator[tuple[int, Header]]:
        """Byte and header of the records of the next `count` sequences from byte `at`."""
        for _ in range(count):
            part, parts = 0, 1
            while part < parts:
                header = parse_header(self.raw, at)
                if header is None or header.stamp != self.stamp:
                    raise JournalError(f"{self.path}: no record at byte {at}: trimmed while it was being read")
                yield at, header
                at, part, parts = at + header.size, part + 1, header.parts


def name_of(stamp: int) -> str:
    """File name of a segment."""
    return f"{stamp:010d}{SUFFIX}"


def read_head(raw: Buffer) -> tuple[int, int, int] | None:
    """Stamp, first sequence and chain of a segment, or None when its header is not whole."""
    if len(raw) < HEAD.size:
        return None
    magic, stamp, first, chain, crc = HEAD.unpack_from(raw, 0)
    good = magic == SEGMENT_MAGIC and crc == zlib.crc32(HEAD.pack(magic, stamp, first, chain, 0))
    return (stamp, first, chain) if good else None


def stamps(folder: Path) -> list[int]:
    """Numbers of the segments in `folder`, ascending: the newest contiguous run of them."""
    found = sorted(int(p.stem) for p in folder.glob(f"*{SUFFIX}") if p.stem.isdigit())
    run = found[-1:]
    for stamp in reversed(found[:-1]):
        if stamp != run[0] - 1:
            break
        run.insert(0, stamp)
    return run


def begin(folder: Path, stamp: int, first: int, chain: int, size: int) -> None:
    """Make segment `stamp` durable and empty, from a spare of this size or from new blocks."""
    spare = next((p for p in sorted(folder.glob(f"{SPARE}*")) if p.stat().st_size == size), None)
    if spare is None:
        spare = preallocate(folder / f"{SPARE}new-{stamp:010d}", size)
    head = HEAD.pack(SEGMENT_MAGIC, stamp, first, chain, 0)
    fd = os.open(spare, os.O_WRONLY)
    try:
        os.pwrite(fd, HEAD.pack(SEGMENT_MAGIC, stamp, first, chain, zlib.crc32(head)), 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)
    spare.rename(folder / name_of(stamp))
    sync_folder(folder)


def preallocate(path: Path, size: int) -> Path:
    """A file of `size` zeros, every block of it written once."""
    fresh = path.with_name(f"fresh-{path.name}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.posix_fallocate(fd, 0, size)
        for at in range(0, size, len(BLOCK)):
            os.pwrite(fd, BLOCK[: size - at], at)
        os.fsync(fd)
    except OSError:
        fresh.unlink(missing_ok=True)  # a full disk gets its space back
        raise
    finally:
        os.close(fd)
    fresh.rename(path)
    return path


def retire(folder: Path, old: Sequence[int], size: int) -> None:
    """Turn segments, oldest first, into spares; delete what is too many or of another size."""
    for stamp in old:
        (folder / name_of(stamp)).rename(folder / f"{SPARE}{stamp:010d}")
    spares = sorted(folder.glob(f"{SPARE}*"))
    usable = [p for p in spares if p.stat().st_size == size]
    for path in [p for p in spares if p not in usable] + usable[SPARES:]:
        path.unlink(missing_ok=True)
    sync_folder(folder)


def write(fd: int, buffers: Sequence[Buffer], at: int) -> int:
    """Write all buffers from byte `at`; the byte after them."""
    waiting = [memoryview(b).cast("B") for b in buffers if len(b)]
    while waiting:
        done = os.pwritev(fd, waiting[:512], at)
        at += done
        while waiting and done >= len(waiting[0]):
            done -= len(waiting.pop(0))
        if done:
            waiting[0] = waiting[0][done:]
    return at


def room(size: int) -> int:
    """Bytes of records that a segment of `size` bytes can hold."""
    return size - HEAD.size
