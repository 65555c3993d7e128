"""Old commits of the archive go; those that models name, that shards need, and that are young stay."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from penstock.data.archive import Archive, Head
from penstock.data.archive.retention import EVERY_NS, Retention, needed_from
from penstock.data.frame import Dense
from penstock.data.grid import PRESENT, Cells, Grid
from penstock.data.journal import ClockDecision, Entry, Journal
from penstock.data.models import Draft, Golden, ModelStore
from penstock.errors import ArchiveBusy, ArchiveError

GRID = Grid(period_ns=1_000_000_000)
TAGS = np.arange(400, dtype=np.int32)
COMMITS = 12


def commit(archive: Archive, number: int) -> Head:
    """Commit `number`: position 10 * number, 50 ticks of 400 tags that are all new."""
    random = np.random.default_rng(number)
    with archive.committer() as committer:
        committer.admit(np.zeros(len(TAGS), bool))
        shape = (50, len(TAGS))
        committer.merge(
            "float32", 0,
            Cells(
                first=0, values=random.normal(size=shape).astype(np.float32),
                quality=np.full(shape, PRESENT, np.uint16), offset=np.full(shape, number, np.uint32),
            ),
        )  # fmt: skip
        return committer.commit(10 * number, None, {}, {})


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive", GRID)


def bytes_in(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def card_of(store: ModelStore, snapshot: str) -> None:
    """A stored model whose card names `snapshot`."""
    golden = Golden(windows=np.zeros((1, 2, 1)), predictions=np.zeros((1, 1)), scale=np.ones(1))
    card = {"trained": {"snapshot": snapshot}}
    store.save(Draft(name="m", kind="lstm", card=card, keras=b"k", golden=golden, serving={"a": np.zeros(1)}))


#  commit     1    2    3    4 ... 8    9   10   11   12     positions 10, 20, ... 120
#  named           x
#  needed from position 95:             x    x    x    x     9 holds all below 90: the newest at or before 95
def test_what_is_named_and_what_shards_need_stays(archive: Archive, tmp_path: Path) -> None:
    heads = [commit(archive, n) for n in range(1, COMMITS + 1)]
    kept = archive.read(TAGS, 0, 50, snapshot=heads[1].snapshot)
    store = ModelStore(tmp_path / "models")
    card_of(store, heads[1].snapshot)
    card_of(store, heads[2].snapshot)
    (tmp_path / "models" / "m" / "2" / "card.json").write_text("{")  # damaged: names nothing
    card_of(store, Archive.create(tmp_path / "other", GRID).head().snapshot)
    card_of(store, "no snapshot at all")
    large = bytes_in(archive.folder)

    retention = Retention(snapshots_ns=0, named=store.snapshots)
    assert retention.apply(archive, 95, time.time_ns()) >= 7
    assert bytes_in(archive.folder) < large * 0.55
    fresh = Archive.open(archive.folder)
    assert [fresh.at(p) for p in (95, 100, 119, 500)] == [heads[8], heads[9], heads[10], heads[11]]
    for snapshot in (heads[1], *heads[8:]):
        fresh.read(TAGS, 0, 50, snapshot=snapshot.snapshot)
    assert fresh.read(TAGS, 0, 50, snapshot=heads[1].snapshot).values.tobytes() == kept.values.tobytes()
    with pytest.raises(ArchiveError):
        fresh.read(TAGS, 0, 50, snapshot=heads[2].snapshot)
    with pytest.raises(ArchiveError, match="expired"):
        fresh.at(85)
    later = commit(fresh, COMMITS + 1)
    assert Archive.open(archive.folder).head() == later


def test_a_snapshot_goes_with_the_model_that_named_it(archive: Archive) -> None:
    heads = [commit(archive, n) for n in range(1, 4)]
    named = {heads[0].snapshot}
    retention = Retention(snapshots_ns=0, named=lambda: named)
    retention.apply(archive, 30, time.time_ns())
    Archive.open(archive.folder).read(TAGS, 0, 50, snapshot=heads[0].snapshot)
    named.clear()
    retention.apply(archive, 30, time.time_ns())
    with pytest.raises(ArchiveError):
        Archive.open(archive.folder).read(TAGS, 0, 50, snapshot=heads[0].snapshot)


def test_the_young_stay(archive: Archive) -> None:
    heads = [commit(archive, n) for n in range(1, 4)]
    now = time.time_ns()
    assert Retention(snapshots_ns=60_000_000_000, named=set).apply(archive, 30, now) == 0
    assert [Archive.open(archive.folder).at(10 * n) for n in (1, 2, 3)] == heads


def test_it_looks_once_an_hour(archive: Archive) -> None:
    retention = Retention(snapshots_ns=24 * EVERY_NS, named=set)
    now = 10**18
    assert retention.due(archive, now)
    retention.apply(archive, 0, now)
    assert not retention.due(archive, now + EVERY_NS - 1)
    assert retention.due(archive, now + EVERY_NS)
    assert retention.due(archive, now - 1), "a clock set back must not stop it for years"
    with archive.committer():
        assert retention.apply(archive, 0, now + 1) == 0  # not due: nobody's lock is asked for
        with pytest.raises(ArchiveBusy):
            retention.apply(archive, 0, now + EVERY_NS)
    assert retention.due(archive, now + EVERY_NS)


def test_what_shards_may_still_need(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", segment_bytes=1 << 20)
    row = Dense(
        times=np.zeros(1, np.int64), tags=np.zeros(1, np.int32), values=np.ones((1, 1), np.float32),
        quality=np.zeros((1, 1), np.uint8),
    )  # fmt: skip
    journal.append([Entry(source="import", source_offset=1, parts={0: row})] * 3)
    assert needed_from(journal, None) == 3, "nothing was decided: a shard will begin behind what is there"
    journal.append(
        [Entry(source="s", source_offset=1, parts={}, clock=ClockDecision(closed=1, reason="end", state={}))]
    )
    assert needed_from(journal, None) == 0, "decided and not said: a service may begin anywhere"
    assert needed_from(journal, 2) == 2
