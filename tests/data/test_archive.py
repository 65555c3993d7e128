"""The archive: versions that never change, read exactly, whatever chunks they lie in."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from reading_strategies import raw

from penstock.data.archive import Archive
from penstock.data.archive.committer import Committer
from penstock.data.archive.repository import closed_chunks, open_chunks, segment_ticks
from penstock.data.grid import PRESENT, Cells, Grid
from penstock.data.plant import HOUR_NS, Tag
from penstock.errors import ArchiveBusy, ArchiveError

GRID = Grid(period_ns=HOUR_NS)
YEAR = 366 * 24
DOUBLE = np.array([False, True, False, False])
SECOND_NS = 1_000_000_000


def cells(first: int, k: int, m: int, seed: int, dtype: str = "float32") -> Cells:
    """Full cells of random readings."""
    random = np.random.default_rng(seed)
    return Cells(
        first=first,
        values=random.normal(size=(k, m)).astype(dtype),
        quality=np.full((k, m), PRESENT, np.uint16),
        offset=random.integers(0, 2**32, (k, m), dtype=np.uint32),
    )


def put(committer: Committer, dtype: str, column: int, block: Cells) -> None:
    """Merge a block that may lie across chunks and segments."""
    tick = block.first
    while tick < block.last:
        last = min(committer.block(dtype, tick)[1], block.last)
        committer.merge(dtype, column, block.rows(tick, last))
        tick = last


def ids(*tags: int) -> NDArray[np.int32]:
    return np.array(tags, np.int32)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive", GRID)


def test_an_empty_archive(archive: Archive) -> None:
    head = archive.head()
    assert (head.position, head.closed, head.span) == (0, None, (0, 0))
    assert archive.at(99) == head
    assert raw(archive.read(ids(0, 3), -5, 5)) == raw(Cells.empty(-5, 10, 2))
    with pytest.raises(ArchiveError, match="already holds an archive"):
        Archive.create(archive.folder, GRID)
    with pytest.raises(ArchiveError, match="holds no archive"):
        Archive.open(archive.folder / "nothing")


def test_cells_come_back_across_chunks_and_segments(archive: Archive) -> None:
    """A block from before tick 0 into the second segment after it; another on top of its end."""
    one, two = cells(-700, 700 + YEAR + 100, 3, 1), cells(YEAR + 50, 100, 2, 2)
    wide = cells(10, 20, 1, 3, "float64")
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        put(committer, "float32", 0, one)
        put(committer, "float32", 1, two)
        put(committer, "float64", 0, wide)
        committer.commit(7, 5, {"s": 3}, {})
    expected = Cells.empty(-700, 700 + YEAR + 150, 3)
    expected.merge(Cells(first=-700, values=one.values, quality=one.quality, offset=one.offset))
    padded = Cells.empty(YEAR + 50, 100, 3)
    padded.values[:, 1:], padded.quality[:, 1:], padded.offset[:, 1:] = two.values, two.quality, two.offset
    expected.merge(padded)

    assert archive.span() == (-700, YEAR + 150)
    assert raw(archive.read(ids(0, 2, 3), -700, YEAR + 150)) == raw(expected)
    swapped = archive.read(ids(3, 0, 99, 1), 12, 14)
    assert swapped.values.dtype == np.float64
    assert swapped.values[:, 0].tolist() == expected.rows(12, 14).values[:, 2].astype(float).tolist()
    assert swapped.values[:, 3].tolist() == wide.values[2:4, 0].tolist()
    assert (swapped.quality[:, 2] == 0).all()
    assert len(archive.read(ids(0), 5, 5).values) == 0


def test_a_closed_segment_reads_the_same_and_takes_late_cells(archive: Archive) -> None:
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        put(committer, "float32", 0, cells(0, YEAR + 10, 3, 1))
        committer.commit(1, YEAR + 1, {}, {})
        before = archive.read(ids(0, 2, 3), 0, YEAR + 10)
        assert committer.open_segments(YEAR + 1) == [("float32", 0)]
        committer.close_segment("float32", 0)
        committer.close_segment("float32", 0)
        assert committer.open_segments(YEAR + 1) == []
        assert archive.view().array(archive.view().segments["float32", 0], "value").chunks == (8192, 8)
        assert raw(archive.read(ids(0, 2, 3), 0, YEAR + 10)) == raw(before)
        assert archive.head().position == 1

        late = cells(8000, 300, 3, 9)
        put(committer, "float32", 0, late)
        committer.commit(2, YEAR + 1, {}, {})
    before.merge(late)
    assert raw(archive.read(ids(0, 2, 3), 0, YEAR + 10)) == raw(before)


def test_tags_appended_later_have_columns_and_no_past(archive: Archive) -> None:
    more = np.append(DOUBLE, np.zeros(200, bool))
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        put(committer, "float32", 0, cells(0, 5, 3, 1))
        first = committer.commit(1, None, {}, {})
        committer.admit(more)
        committer.commit(2, None, {}, {})
        assert (archive.read(ids(150), 0, 5).quality == 0).all()
        new = cells(3, 4, 203, 2)
        put(committer, "float32", 0, new)
        committer.commit(3, None, {}, {})
    assert archive.read(ids(150), 0, 7).values[3:, 0].tolist() == new.values[:, 149].tolist()
    assert (archive.read(ids(150), 0, 7, snapshot=first.snapshot).quality == 0).all()
    assert len(archive.dtypes()) == len(more)


def test_snapshots_stay_as_they_were(archive: Archive) -> None:
    heads = []
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        for number in range(6):
            put(committer, "float32", 0, cells(number, 1, 3, number))
            heads.append(committer.commit(10 * number + 10, None, {}, {}))
        assert archive.at(35) == heads[2]
        assert archive.at(30) == heads[2]
        old = archive.read(ids(0), 0, 6, snapshot=heads[1].snapshot)
        assert (old.quality != 0).sum() == 2
        assert archive.span(snapshot=heads[1].snapshot) == (0, 2)

        assert committer.expire({heads[1].snapshot}, 45) >= 2
        assert raw(archive.read(ids(0), 0, 6, snapshot=heads[1].snapshot)) == raw(old)
        fresh = Archive.open(archive.folder)
        assert raw(fresh.read(ids(0), 0, 6, snapshot=heads[1].snapshot)) == raw(old)
        assert fresh.at(45) == heads[3]
        assert fresh.head() == heads[5]
        with pytest.raises(ArchiveError, match="expired"):
            fresh.at(35)
        with pytest.raises(ArchiveError):
            fresh.read(ids(0), 0, 6, snapshot=heads[2].snapshot)
        assert raw(fresh.read(ids(0, 2, 3), 5, 6)) == raw(cells(5, 1, 3, 5))
        committer.expire(set(), 60)
    assert Archive.open(archive.folder).head() == heads[5]


def test_what_was_not_committed_is_forgotten(archive: Archive) -> None:
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        put(committer, "float32", 0, cells(0, 5, 3, 1))
    assert archive.head().position == 0
    assert (archive.read(ids(0), 0, 5).quality == 0).all()


def try_to_commit(folder: Path) -> None:
    with Archive.open(folder).committer():
        pass


def test_one_process_commits_at_a_time(archive: Archive) -> None:
    spawn = multiprocessing.get_context("spawn")
    with archive.committer(), spawn.Pool(1) as pool:
        with pytest.raises(ArchiveBusy, match="another process is writing"):
            pool.apply(try_to_commit, (archive.folder,))
        with pytest.raises(ArchiveBusy), Archive.open(archive.folder).committer():
            pass
    try_to_commit(archive.folder)


def test_a_changed_byte_in_a_chunk_is_an_error(archive: Archive) -> None:
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        put(committer, "float32", 0, cells(0, 500, 3, 1))
        committer.commit(1, None, {}, {})
    for path in (archive.folder / "chunks").iterdir():
        chunk = bytearray(path.read_bytes())
        chunk[len(chunk) // 2] ^= 1
        path.write_bytes(chunk)
    with pytest.raises(ArchiveError, match=r"checksum.*restore"):
        Archive.open(archive.folder).read(ids(0), 0, 500)


def test_a_changed_byte_in_a_closed_segment_is_an_error(archive: Archive) -> None:
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        put(committer, "float32", 0, cells(0, 500, 3, 1))
        committer.commit(1, None, {}, {})
        kept = set((archive.folder / "chunks").iterdir())
        committer.close_segment("float32", 0)
    long = set((archive.folder / "chunks").iterdir()) - kept
    assert long
    for path in long:
        chunk = bytearray(path.read_bytes())
        chunk[len(chunk) // 2] ^= 1
        path.write_bytes(chunk)
    with pytest.raises(ArchiveError, match=r"closed\.0/.*checksum.*restore"):
        Archive.open(archive.folder).read(ids(0), 0, 500)
    with archive.committer() as committer, pytest.raises(ArchiveError, match="checksum"):
        put(committer, "float32", 0, cells(5, 1, 3, 2))


def test_the_dataset_is_lazy_and_equals_read(archive: Archive) -> None:
    tags = [Tag(name="B", unit="MWh"), Tag(name="A", unit="degC")]
    with archive.committer() as committer:
        committer.admit(DOUBLE)
        put(committer, "float32", 0, cells(YEAR - 50, 100, 3, 1))
        head = committer.commit(1, None, {}, {})
    data = archive.dataset(tags, ids(3, 0))
    stored = archive.read(ids(3, 0), *archive.span())
    assert data.attrs["snapshot"] == head.snapshot
    assert data.value.shape == (100, 2)
    assert data.value.values.tobytes() == stored.values.tobytes()
    assert data.offset.sel(tag="A").values.tolist() == stored.offset[:, 1].tolist()
    picked = data.quality.isel(time=[70, 2], tag=1)
    assert picked.values.tolist() == stored.quality[[70, 2], 1].tolist()
    assert data.value.isel(time=slice(90, 10, -20)).values.tolist() == stored.values[90:10:-20].tolist()
    assert data.value.isel(time=3, tag=0).item() == stored.values[3, 0]
    assert data.unit.sel(tag="A").item() == "degC"
    assert str(data.quality.attrs["flag_meanings"]).split()[-1] == "late"
    part = archive.dataset(tags, ids(3, 0), start=GRID.time(YEAR - 3) - 1, end=GRID.time(YEAR))
    assert part.time.values.astype(np.int64).tolist() == GRID.times(YEAR - 3, YEAR).tolist()


def test_an_archive_travels_by_its_folder(archive: Archive) -> None:
    assert pickle.loads(pickle.dumps(archive)).head() == archive.head()


@pytest.mark.parametrize(
    ("period_ns", "ticks"),
    [
        (HOUR_NS, YEAR),
        (60 * SECOND_NS, YEAR * 60),
        (SECOND_NS, 86_400),
        (SECOND_NS // 100, 360_000),
        (SECOND_NS // 1_000_000, 600_000),
        (400 * 24 * HOUR_NS, 1),
    ],
)
def test_segments_are_a_year_or_a_day_long(period_ns: int, ticks: int) -> None:
    assert segment_ticks(period_ns) == ticks


def test_chunks_of_an_open_segment_hold_about_the_same_number_of_cells() -> None:
    assert [open_chunks(86_400, n) for n in (1, 11, 1_000, 8_192, 1_000_000)] == [
        (512, 64), (512, 64), (512, 1024), (64, 8192), (64, 8192)
    ]  # fmt: skip
    assert open_chunks(100, 11) == (100, 64)


def test_chunks_of_a_closed_segment_are_no_wider_than_the_plant() -> None:
    assert [closed_chunks(86_400, n) for n in (1, 11, 33, 1_000)] == [(8192, 8), (8192, 16), (8192, 64), (8192, 64)]
    assert closed_chunks(100, 11) == (100, 16)
