"""Records and segment files: what is written comes back, and what is torn is seen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from reading_strategies import readings

from penstock.data.frame import Dense, Readings
from penstock.data.journal import segment as files
from penstock.data.journal.record import ClockDecision, Entry, Kind
from penstock.data.journal.record_format import PROGRESSION, drafts, intact, parse_header, record_at
from penstock.data.journal.segment import Segment
from penstock.errors import JournalError

SIZE = 1 << 16


def written(entry: Entry, stamp: int = 3, sequence: int = 5) -> bytes:
    chain, out = 0, b""
    for draft in drafts(entry):
        buffers, chain = draft.bytes_at(stamp, sequence, chain)
        assert sum(len(b) for b in buffers) == draft.size
        out += b"".join(bytes(b) for b in buffers)
    return out


def same(a: Readings, b: Readings) -> bool:
    return type(a) is type(b) and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes() and getattr(a, name).dtype == getattr(b, name).dtype
        for name in ("times", "tags", "values", "quality")
    )


@given(readings(tags=5, ticks=4), readings(tags=5, ticks=4, dtype="float64"))
@settings(max_examples=80, deadline=None)
def test_records_come_back_bit_for_bit(single: Readings, double: Readings) -> None:
    clock = ClockDecision(closed=-4, reason="idle", state={"a": [1.5, None], "ü": "x"})
    entry = Entry(
        source="mühle/1", source_offset=-9, parts={2: double, 0: single}, rejected=3, quarantined=4, clock=clock
    )
    raw, at, records = written(entry), 0, []
    while header := parse_header(raw, at):
        assert intact(raw, at, header)
        records.append(record_at(raw, at, header))
        at += header.size
    assert at == len(raw)
    assert [r.shard for r in records] == [0, 2, -1]
    assert [r.kind for r in records] == [Kind.DATA, Kind.DATA, Kind.CLOCK]
    assert [(r.rejected, r.quarantined) for r in records] == [(3, 4), (0, 0), (0, 0)]
    assert [r.accepted for r in records] == [len(single), len(double), 0]
    assert {(r.source, r.source_offset, r.sequence) for r in records} == {("mühle/1", -9, 5)}
    assert records[0].readings is not None
    assert records[1].readings is not None
    assert same(records[0].readings, single)
    assert same(records[1].readings, double)
    assert records[2].clock == clock


def test_a_row_of_good_readings_takes_four_bytes_a_tag() -> None:
    row = Dense(
        times=np.zeros(1, np.int64),
        tags=np.arange(1, 20_000, 2, dtype=np.int32),
        values=np.ones((1, 10_000), np.float32),
        quality=np.zeros((1, 10_000), np.uint8),
    )
    raw = written(Entry(source="s", source_offset=0, parts={0: row}))
    assert len(raw) < 40_200
    header = parse_header(raw, 0)
    assert header is not None
    assert header.form & PROGRESSION
    back = record_at(raw, 0, header).readings
    assert back is not None
    assert same(back, row)


def test_any_changed_byte_is_seen() -> None:
    raw = written(Entry(source="s", source_offset=1, clock=ClockDecision(closed=1, reason="end")))
    for at in range(len(raw)):
        bad = bytearray(raw)
        bad[at] ^= 1
        header = parse_header(bad, 0)
        assert header is None or not intact(bytes(bad), 0, header), at


def test_a_segment_used_again_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    files.begin(tmp_path, 0, 0, 0, SIZE)
    old = Segment(tmp_path / files.name_of(0), 0)
    assert old.still()
    files.begin(tmp_path, 1, 7, 99, SIZE)
    files.retire(tmp_path, [0], SIZE)
    assert old.still(), "a spare keeps its records until it is used"
    files.begin(tmp_path, 2, 9, 98, SIZE)
    assert not old.still()
    assert files.stamps(tmp_path) == [1, 2]
    new = Segment(tmp_path / files.name_of(2), 2)
    assert (new.first, new.chain) == (9, 98)
    assert new.sequence_end(files.HEAD.size, 9, 98) is None
    with pytest.raises(JournalError, match="not segment 5"):
        Segment(tmp_path / files.name_of(2), 5)


def test_few_spares_are_kept_and_only_of_the_right_size(tmp_path: Path) -> None:
    for stamp in range(5):
        files.begin(tmp_path, stamp, stamp, 0, SIZE)
    files.begin(tmp_path, 5, 5, 0, SIZE * 2)
    files.begin(tmp_path, 6, 6, 0, SIZE)
    files.retire(tmp_path, [0, 1, 2, 3, 4, 5], SIZE)
    spares = list(tmp_path.glob(f"{files.SPARE}*"))
    assert len(spares) == files.SPARES
    assert {p.stat().st_size for p in spares} == {SIZE}
    assert files.stamps(tmp_path) == [6]


def test_a_segments_blocks_all_exist_from_the_start(tmp_path: Path) -> None:
    files.begin(tmp_path, 0, 0, 0, SIZE)
    status = os.stat(tmp_path / files.name_of(0))
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE
