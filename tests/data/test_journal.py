"""The journal: atoms in order, from any process, across segments, trims and torn tails."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.data.frame import Frame
from penstock.data.journal import ClockDecision, Entry, Journal, Kind, Record, Totals
from penstock.data.journal import journal as journal_module
from penstock.data.journal.files import Fold, read_checkpoint
from penstock.data.journal.record_format import drafts
from penstock.data.journal.segment import HEAD, name_of
from penstock.errors import JournalCorrupt, JournalError

SMALL = 1 << 14


def frame(number: int, n: int = 3) -> Frame:
    return Frame(
        times=np.arange(n, dtype=np.int64) + number,
        tags=np.arange(n, dtype=np.int32),
        values=np.full(n, number, np.float32),
        quality=np.zeros(n, np.uint8),
    )


def entry(number: int, *, source: str = "s", parts: int = 2, clock: bool = False) -> Entry:
    decision = ClockDecision(closed=number, reason="watermark", state={"n": number}) if clock else None
    shards = {shard: frame(number) for shard in range(parts)}
    return Entry(source=source, source_offset=number, parts=shards, rejected=1, clock=decision)


def numbers(records: Iterator[Record]) -> list[int]:
    return [r.source_offset for r in records]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "journal", segment_bytes=SMALL)
    yield opened
    opened.close()


def test_what_is_appended_is_read_by_others_in_order(journal: Journal) -> None:
    reader = Journal.open(journal.folder, segment_bytes=SMALL)
    assert (reader.first, reader.tail) == (0, 0)
    assert journal.append([entry(10, clock=True), entry(11)]) == range(2)
    assert journal.append([entry(12, parts=0)]) == range(2, 3)
    assert journal.append([]) == range(0)
    assert reader.tail == 3

    records = list(reader.read(0, 3))
    assert [(r.sequence, r.shard, r.kind) for r in records] == [
        (0, 0, Kind.DATA), (0, 1, Kind.DATA), (0, -1, Kind.CLOCK), (1, 0, Kind.DATA), (1, 1, Kind.DATA),
        (2, -1, Kind.DATA),
    ]  # fmt: skip
    assert [(r.sequence, r.shard) for r in reader.read(0, 3, shard=1)] == [(0, 1), (0, -1), (1, 1)]
    assert numbers(reader.read(1, 2)) == [11, 11]
    assert list(reader.read(2, 2)) == []
    with pytest.raises(JournalError, match=r"sequences 2\.\.3 asked for; there are 0\.\.2"):
        list(reader.read(2, 4))
    reader.close()


def test_offsets_totals_and_clock_survive_trimming(journal: Journal) -> None:
    """
    segments  | 0 .. | .. | .. | .. 99 |        each holds ~ 25 sequences
    trim(80)  ............|              whole segments below 80 go; what they said stays
    """
    journal.append([entry(0, source="early", clock=True)])
    for number in range(1, 100):
        journal.append([entry(number)])
    before = journal.offsets(), journal.totals(), journal.clock()
    assert before[0] == {"early": 0, "s": 99}
    assert before[1]["s"] == Totals(accepted=6 * 99, rejected=99)
    assert before[2] is not None
    assert before[2].closed == 0

    journal.trim(80)
    assert 0 < journal.first <= 80
    other = Journal.open(journal.folder, segment_bytes=SMALL)
    for one in (journal, other):
        assert (one.offsets(), one.totals(), one.clock()) == before
        assert one.closed_before(journal.first) == 0
        assert numbers(one.read(journal.first, 100, shard=0)) == list(range(journal.first, 100))
    with pytest.raises(JournalError, match="asked for"):
        list(other.read(0, 100))
    with pytest.raises(JournalError, match="trimmed"):
        other.closed_before(0)

    for number in range(100, 300):
        other.append([entry(number, clock=number == 250)])
    assert numbers(journal.read(journal.first, 300, shard=0)).count(250) == 2
    assert journal.totals()["s"].accepted == 6 * 299
    assert (journal.closed_before(250), journal.closed_before(251)) == (0, 250)
    assert len(list(journal.folder.glob("spare-*"))) <= 2
    other.close()


def test_trimmed_segments_are_used_again(journal: Journal) -> None:
    for number in range(400):
        journal.append([entry(number)])
        journal.trim(number)
    assert len(list(journal.folder.glob("*.seg"))) + len(list(journal.folder.glob("spare-*"))) <= 4
    assert numbers(journal.read(journal.first, 400, shard=1)) == list(range(journal.first, 400))


def test_a_reader_learns_that_its_records_were_trimmed(journal: Journal) -> None:
    journal.append([entry(n) for n in range(40)])
    reader = Journal.open(journal.folder, segment_bytes=SMALL)
    records = reader.read(0, 40)
    next(records)
    for number in range(40, 400):
        journal.append([entry(number)])
        journal.trim(number)
    with pytest.raises(JournalError, match="trimmed while it was being read"):
        list(records)
    reader.close()


def test_an_entry_larger_than_a_segment_is_refused_whole(journal: Journal) -> None:
    large = Entry(source="import:x", source_offset=1, parts={0: frame(1, n=SMALL)})
    with pytest.raises(JournalError, match=f"largest that fits is {journal.largest}: split it"):
        journal.append([entry(0), large])
    assert journal.tail == 0
    fits = Entry(source="import:x", source_offset=1, parts={0: frame(1, n=(journal.largest - 200) // 16)})
    assert journal.append([fits, fits, entry(2)]) == range(3)
    assert [r.accepted for r in journal.read(0, 2)] == [(journal.largest - 200) // 16] * 2


@pytest.mark.parametrize("clock", [False, True])
def test_a_tail_torn_at_any_byte_is_cut_and_the_rest_stays(tmp_path: Path, clock: bool) -> None:
    """The last sequence (two or three records) is on disk up to some byte; the tail file is from before."""
    folder = tmp_path / "journal"
    journal = Journal.open(folder, segment_bytes=1 << 12)
    journal.append([entry(0), entry(1)])
    before = (folder / "tail").read_bytes(), (folder / name_of(0)).read_bytes()
    journal.append([entry(2, clock=clock)])
    after = (folder / name_of(0)).read_bytes()
    journal.close()
    changed = [at for at in range(len(after)) if after[at] != before[1][at]]
    begin, end = changed[0], changed[-1] + 1
    for length in range(begin, end + 1):
        for tail in (before[0], b"")[: 1 + (length % 9 == 0)]:  # an unsynced tail file may be gone as well
            (folder / "tail").write_bytes(tail)
            (folder / name_of(0)).write_bytes(after[:length] + before[1][length:])
            again = Journal.open(folder, segment_bytes=1 << 12)
            assert again.tail == (3 if length == end else 2), length
            again.append([entry(7)])
            assert numbers(again.read(0, again.tail, shard=0))[:2] == [0, 1]
            assert again.offsets() == {"s": 7}
            again.close()


def test_what_lies_behind_a_torn_record_never_comes_back(tmp_path: Path) -> None:
    """After a power cut sequence 1 may be torn while 2 and 3, written with it, are whole."""
    folder = tmp_path / "journal"
    journal = Journal.open(folder, segment_bytes=1 << 12)
    journal.append([entry(0)])
    tail, whole = (folder / "tail").read_bytes(), (folder / name_of(0)).read_bytes()
    journal.append([entry(1), entry(2), entry(3)])
    journal.close()
    torn = bytearray((folder / name_of(0)).read_bytes())
    first = next(at for at in range(len(torn)) if torn[at] != whole[at])
    torn[first + 20] ^= 0xFF
    (folder / name_of(0)).write_bytes(torn)
    (folder / "tail").write_bytes(tail)
    journal = Journal.open(folder, segment_bytes=1 << 12)
    assert journal.tail == 1
    journal.append([entry(9)])  # of the same length, so that 2 and 3 stand right behind it
    journal.close()
    (folder / "tail").write_bytes(b"")
    journal = Journal.open(folder, segment_bytes=1 << 12)
    assert numbers(journal.read(0, journal.tail, shard=0)) == [0, 9]
    journal.close()


def test_a_damaged_record_before_the_tail_is_an_error_not_a_gap(journal: Journal) -> None:
    journal.append([entry(n) for n in range(5)])
    path = journal.folder / name_of(0)
    raw = bytearray(path.read_bytes())
    raw[HEAD.size + 100] ^= 1
    with path.open("r+b") as file:
        file.write(raw)
    with pytest.raises(JournalCorrupt, match="sequence 0, byte 64"):
        list(journal.read(0, 5))


def test_the_tail_file_is_only_a_hint(journal: Journal) -> None:
    for number in range(200):
        journal.append([entry(number)])
    journal.trim(120)
    first, totals = journal.first, journal.totals()
    (journal.folder / "tail").unlink()
    again = Journal.open(journal.folder, segment_bytes=SMALL)
    assert (again.first, again.tail, again.totals()) == (first, 200, totals)
    again.close()


def test_a_trim_killed_half_way_is_finished_at_the_next_opening(journal: Journal) -> None:
    for number in range(200):
        journal.append([entry(number)])
    aside = journal.folder / name_of(0)
    copy = aside.read_bytes()
    journal.trim(120)
    aside.write_bytes(copy)
    shutil.copy(aside, journal.folder / name_of(1))  # not a segment 1 at all: must not even be opened
    again = Journal.open(journal.folder, segment_bytes=SMALL)
    assert again.first == journal.first
    assert not aside.exists()
    again.close()


def append_many(folder: Path, source: str, count: int) -> None:
    journal = Journal.open(folder, segment_bytes=SMALL)
    for number in range(count):
        journal.append([entry(number, source=source)])
    journal.close()


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    folder, count = tmp_path / "journal", 300
    writers = [spawn.Process(target=append_many, args=(folder, f"w{n}", count)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    journal = Journal.open(folder, segment_bytes=SMALL)
    assert journal.tail == 2 * count
    found = [(r.source, r.source_offset) for r in journal.read(0, journal.tail, shard=0)]
    for source in ("w0", "w1"):
        assert [n for s, n in found if s == source] == list(range(count))
    assert journal.totals()["w0"] == Totals(accepted=6 * count, rejected=count)
    journal.close()


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", segment_bytes=SMALL)
    journal.close()
    with pytest.raises(JournalError, match="was closed"):
        _ = journal.tail


def fill(journal: Journal) -> None:
    """The first segment, so that the next entry begins another one."""
    for number in range(journal.largest // sum(d.size for d in drafts(entry(0)))):
        journal.append([entry(number)])
    assert not (journal.folder / name_of(1)).exists()


def test_a_write_that_failed_leaves_nothing_behind(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    segments | 0 ....... | 1: a b c |       the disk fails when segment 1 is flushed
    a, b, c were not acknowledged: none may come back, though all of them lie whole in the page cache
    """
    fill(journal)
    stop, flushes, real = journal.tail, [0], os.fdatasync

    def failing(fd: int) -> None:
        flushes[0] += 1
        if flushes[0] == 3:  # segment 0, the header of segment 1, what was written there
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(JournalError, match="nothing was acknowledged"):
        journal.append([entry(1000 + n) for n in range(8)])
    assert flushes[0] > 3
    monkeypatch.undo()
    other = Journal.open(journal.folder, segment_bytes=SMALL)
    assert (journal.tail, other.tail) == (stop, stop)
    again = [entry(2000 + n) for n in range(40)]
    assert journal.append(again) == range(stop, stop + 40)
    for one in (journal, other):
        assert numbers(one.read(stop, stop + 40, shard=0)) == list(range(2000, 2040))
        assert one.totals()["s"].rejected == stop + 40
    assert {p.stat().st_size for p in journal.folder.glob("*.seg")} == {SMALL}
    other.close()


def test_a_full_disk_gets_its_space_back(journal: Journal) -> None:
    """A segment that the disk has no room for is not left half-made; the journal goes on when there is room."""
    fill(journal)
    stop = journal.tail
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL // 2, hard))
    try:
        with pytest.raises(JournalError, match="free the disk"):
            journal.append([entry(n) for n in range(60)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(journal.folder.glob("fresh-*"))
    assert journal.tail == stop
    assert journal.append([entry(n) for n in range(60)]) == range(stop, stop + 60)


def test_totals_are_found_while_another_process_trims(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append([entry(n) for n in range(200)])
    other = Journal.open(journal.folder, segment_bytes=SMALL)
    trims = iter([80, 160])

    def then_trimmed(path: Path) -> Fold:
        fold = read_checkpoint(path)
        monkeypatch.setattr(journal_module, "read_checkpoint", read_checkpoint)
        if (below := next(trims, None)) is not None:
            other.trim(below)
            monkeypatch.setattr(journal_module, "read_checkpoint", then_trimmed)
        return fold

    monkeypatch.setattr(journal_module, "read_checkpoint", then_trimmed)
    reader = Journal.open(journal.folder, segment_bytes=SMALL)
    assert reader.totals()["s"] == Totals(accepted=6 * 200, rejected=200)
    assert reader.offsets() == {"s": 199}
    assert journal.first > 80
    reader.close()
    other.close()


def test_a_reader_of_another_segment_size_leaves_the_spares(journal: Journal) -> None:
    journal.append([entry(n) for n in range(200)])
    journal.trim(150)
    spares = sorted(journal.folder.glob("spare-*"))
    assert spares
    Journal.open(journal.folder, segment_bytes=4 * SMALL).close()
    assert sorted(journal.folder.glob("spare-*")) == spares
