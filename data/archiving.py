"""The archiver in a process of its own: what takes it seconds holds up no live tick.

    service ── Work ──► this process: archive, aggregate ── Done, or an error ──► service

It yields to the live path where both want the processor. It ends when the service does, however that ends: its pipe
breaks. One that was killed is begun anew with the next work; what it had not committed lies in the journal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.aggregating import Wanted, bring_up, standing_of
from penstock.data.archive.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.journal import Journal
from penstock.data.layout import Layout
from penstock.errors import ArchiveBusy, ArchiveError, PenstockError

NICE = 5
"""A third of the share that the live path gets of a processor that both want."""
KEPT: Mapping[str, str] = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(2 << 30)}
"""For glibc: what a commit took is kept for the next; given back, two of a million tags faulted 250,000 pages in."""
END_S = 10.0
"""How long it may take to end once it has nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregates:
    """What is to be aggregated once the archive stands."""

    folder: Path
    wanted: Wanted
    pieces: int | None
    """At most so many are computed; what is left is due the next time. None: all."""
    older_than_ns: int | None
    lock_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Bring the archive to a journal position, and the aggregates behind it."""

    site: Path
    segment_bytes: int
    stop: int
    double: NDArray[np.bool_]
    """[tags] true for float64 tags, as registered."""
    ahead: NDArray[np.int64]
    """[tags] ticks that each may be known before its time, or [0]: no tag may."""
    shards: int
    aggregates: Aggregates | None


@dataclass(frozen=True, slots=True)
class Done:
    """What it came to."""

    aggregated: int | None
    """The journal position that the aggregates have seen; None: there are none to keep."""
    until: int | None = None
    """Aggregated are the ticks below; None: nothing is known of them."""


def carry_out(work: Work) -> Done:
    """In this process. Raises ArchiveBusy, ArchiveError, JournalError."""
    journal, archive = _stores(work.site, work.segment_bytes)
    if archive.head().position < work.stop:
        layout = _layout(work.double.tobytes(), work.ahead.tobytes(), work.shards)
        drain(journal, archive, layout, stop=work.stop)
    return Done(None) if work.aggregates is None else _aggregate(work.aggregates, journal, archive)


def _aggregate(work: Aggregates, journal: Journal, archive: Archive) -> Done:
    """Another process that is at it is left alone: what it does not see is due the next time."""
    try:
        mark = bring_up(
            work.folder, archive, journal, work.wanted, pieces=work.pieces, older_than_ns=work.older_than_ns,
            lock_s=work.lock_s,
        )  # fmt: skip
    except ArchiveBusy:
        if work.pieces is None:
            raise
        return Done(standing_of(work.folder) or 0)
    return Done(mark.position, mark.until)


@lru_cache(maxsize=1)
def _stores(site: Path, segment_bytes: int) -> tuple[Journal, Archive]:
    return Journal.open(site / "journal", segment_bytes=segment_bytes), Archive.open(site / "archive")


@lru_cache(maxsize=1)
def _layout(double: bytes, ahead: bytes, shards: int) -> Layout:
    dtypes = np.where(np.frombuffer(double, bool), "float64", "float32").tolist()
    return Layout(dtypes, shards, ahead=np.frombuffer(ahead, np.int64).tolist())


class Gone(ArchiveError):
    """The process has ended: killed, or short of memory."""


class ArchivingProcess:
    """That process, begun with the first work; one thread at a time gives it some."""

    def __init__(self) -> None:
        self._working = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """None while there is no such process."""
        return None if self._process is None else self._process.pid

    def carry_out(self, work: Work) -> Done:
        """There. Raises what is raised there; Gone where it has ended meanwhile."""
        with self._working:
            try:
                pipe = self._begun()
                pipe.send(work)
                answer: Done | PenstockError = pipe.recv()
            except (EOFError, OSError):
                raise Gone(f"the archiver's process has ended with {self._ended()}") from None
        if isinstance(answer, PenstockError):
            raise answer
        return answer

    def end(self, patience_s: float) -> None:
        """Once its work is done, or after `patience_s` by force; safe at any time."""
        done = self._working.acquire(timeout=patience_s)
        try:
            if not done and self._process is not None:
                self._process.kill()
            self._ended()
        finally:
            if done:
                self._working.release()

    def _begun(self) -> Connection:
        if self._pipe is None:
            self._pipe, theirs = Pipe()
            command = [sys.executable, "-P", "-c", f"from {__name__} import main; main({theirs.fileno()})"]
            # A group of its own: a Ctrl-C is for the service, which ends this one when it has done its last.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], process_group=0, env={**os.environ, **KEPT}
            )  # fmt: skip
            theirs.close()
        return self._pipe

    def _ended(self) -> str:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return "no exit code"
        try:
            return f"exit code {process.wait(END_S)}"
        except subprocess.TimeoutExpired:
            process.kill()
            return f"exit code {process.wait()}"


def main(descriptor: int) -> None:
    """That process: work after work, until its pipe breaks."""
    os.nice(NICE)
    pipe = Connection(descriptor)
    with suppress(EOFError, OSError):
        while True:
            work: Work = pipe.recv()
            try:
                answer: Done | PenstockError = carry_out(work)
            except PenstockError as error:
                answer = error
            pipe.send(answer)
