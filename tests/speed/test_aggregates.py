"""Aggregates are a pure function of the archive: whatever came when, and whoever was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from test_service import run, setup

from penstock.batch.history import Source
from penstock.batch.summaries import across
from penstock.cluster import client_for, local_cluster
from penstock.data.aggregating import Wanted, bring_up, pending, standing_of
from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.grid import Cells
from penstock.data.journal import Entry
from penstock.data.summary import Summary
from penstock.data.views.aggregates import AggregatesView, Mark
from penstock.data.views.changes import joined
from penstock.data.views.speed_view import Spoken


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


TAGS = np.arange(5, dtype=np.int32)
BOUNDS = np.array([[-np.inf, np.inf], [-50, 50], [-np.inf, np.inf], [np.nan, np.nan], [-np.inf, np.inf]])
"""Tag D is left out."""
KEPT = np.array([0, 1, 2, 4], np.int32)
WANTED = Wanted(periods=(4, 12), bounds=BOUNDS)


def view_of(folder: Path) -> AggregatesView:
    view = AggregatesView.open(folder / "aggregates")
    assert view is not None
    return view


def assert_told(folder: Path, archive: Archive, wanted: Wanted = WANTED) -> Mark:
    """Every period that is over holds what its cells give, computed from all of them at once; no other holds any."""
    view, head = view_of(folder), archive.head()
    mark = view.mark
    assert mark is not None
    assert (mark.position, mark.todo) == (head.position, ())
    for period in wanted.periods:
        first, last = head.span[0] // period - 1, head.span[1] // period + 2
        told = view.read(period, TAGS, first, last)
        for p in range(first, last):
            cells = archive.read(wanted.tags, p * period, (p + 1) * period)
            over = (p + 1) * period <= mark.until
            low, high = wanted.bounds[wanted.tags].T
            expected = Summary.of(cells, low, high) if over else Summary.empty(len(wanted.tags))
            for name, column in expected.columns().items():
                assert told.columns()[name][p - first, wanted.tags].tobytes() == column.tobytes(), (period, p, name)
        assert not told.count[:, [t for t in TAGS if t not in wanted.tags]].any()
    return mark


def test_dask_workers_give_the_same_bits_and_a_kill_between_two_commits_costs_nothing(
    tmp_path: Path, scheduler: str
) -> None:
    """All of it anew, by workers, a commit at a time; what is left after one is done here; then late readings."""
    random = np.random.default_rng(8)
    journal, archive = small.make_site(tmp_path)
    small.append_all(journal, small.unruly(random, 150, late=True), lateness_s=1.0)
    drain(journal, archive, small.LAYOUT, stop=journal.tail * 2 // 3)
    folder = tmp_path / "aggregates"
    with client_for(scheduler) as client:
        spread = across(client, Source(folder=archive.folder, snapshot=""))
        assert pending(folder, archive, journal, WANTED) > 200
        mark = bring_up(folder, archive, journal, WANTED, pieces=1, cells=40, across=spread, jobs=3)
        assert mark.todo
        assert mark.told > archive.head().span[0], "a commit holds several jobs"
        bring_up(folder, archive, journal, WANTED, cells=40)
        assert_told(tmp_path, archive)
        assert pending(folder, archive, journal, WANTED) == 0
        drain(journal, archive, small.LAYOUT)
        bring_up(folder, archive, journal, WANTED, cells=40, across=spread, jobs=3)
        assert_told(tmp_path, archive)
        wider = Wanted(periods=(4, 12, 24), bounds=BOUNDS)
        bring_up(folder, archive, journal, wider, cells=100, across=spread, jobs=2)
        assert_told(tmp_path, archive, wider)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_came_when_each_period_is_that_of_its_cells(tmp_path: Path, seed: int) -> None:
    """Unruly readings with late ones, archived and aggregated now and then, some pieces at a time."""
    random = np.random.default_rng(seed)
    journal, archive = small.make_site(tmp_path)
    small.append_all(journal, small.unruly(random, 150, late=True), lateness_s=1.0)
    left = 0
    for stop in [*sorted(random.integers(1, journal.tail, 5).tolist()), journal.tail]:
        drain(journal, archive, small.LAYOUT, stop=stop)
        mark = bring_up(tmp_path / "aggregates", archive, journal, WANTED, pieces=2, cells=100)
        left += len(mark.todo)
    assert left, "something was left to be done at a later time"
    bring_up(tmp_path / "aggregates", archive, journal, WANTED, cells=100)
    mark = assert_told(tmp_path, archive)
    assert mark.until > 130
    before = view_of(tmp_path).read(12, KEPT, 0, 10).columns()["count"].copy()

    # A reading that is far too late changes its own periods alone.
    late = small.rows(20, 21, 77)
    journal.append([Entry(source="s", source_offset=10_000, parts=small.LAYOUT.split(late))])
    drain(journal, archive, small.LAYOUT)
    assert bring_up(tmp_path / "aggregates", archive, journal, WANTED).position == journal.tail
    assert_told(tmp_path, archive)
    after = view_of(tmp_path).read(12, KEPT, 0, 10).columns()["count"]
    assert np.flatnonzero((after != before).any(axis=1)).tolist() in ([], [1])
    journal.close()


def test_imports_alone_have_no_clock_and_earlier_years_may_come_later(tmp_path: Path) -> None:
    """Ticks below 0 lie in another block of the view."""
    journal, archive = small.make_site(tmp_path)
    for first, last in ((100, 131), (-30, 5), (140, 150)):
        journal.append(
            [Entry(source="import:x", source_offset=last, parts=small.LAYOUT.split(small.rows(first, last, 5)))]
        )
        drain(journal, archive, small.LAYOUT)
        bring_up(tmp_path / "aggregates", archive, journal, WANTED)
        mark = assert_told(tmp_path, archive)
        assert mark.until == archive.head().span[1]
    journal.close()


def test_another_range_new_tags_and_a_trimmed_journal(tmp_path: Path) -> None:
    journal, archive = small.make_site(tmp_path)
    small.append_all(journal, small.unruly(np.random.default_rng(4), 60, late=False), lateness_s=2.0)
    drain(journal, archive, small.LAYOUT)
    bring_up(tmp_path / "aggregates", archive, journal, Wanted(periods=(4, 12), bounds=BOUNDS[:2]))
    assert_told(tmp_path, archive, Wanted(periods=(4, 12), bounds=BOUNDS[:2]))

    narrow = BOUNDS.copy()
    narrow[1] = -5, 5
    wanted = Wanted(periods=(6,), bounds=narrow)
    bring_up(tmp_path / "aggregates", archive, journal, wanted)
    assert_told(tmp_path, archive, wanted)
    assert not view_of(tmp_path).read(4, KEPT, 0, 20).count.any()

    # The view is gone, and the log that told what came: all is computed from the archive.
    other = tmp_path / "other"
    journal.trim(journal.tail)
    bring_up(other / "aggregates", archive, journal, wanted, older_than_ns=0)
    assert_told(other, archive, wanted)
    journal.close()


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_aggregates as test
from penstock.data.archive import Archive
from penstock.data.journal import Journal
folder = Path(sys.argv[1])
archive, journal = Archive.open(folder / "archive"), Journal.open(folder / "journal")
print("begun", flush=True)
for _ in range(10_000):
    test.bring_up(folder / "aggregates", archive, journal, test.WANTED, pieces=1, cells=60)
    print("piece", flush=True)
"""


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    journal, archive = small.make_site(tmp_path)
    small.append_all(journal, small.unruly(np.random.default_rng(6), 200, late=True), lateness_s=1.0)
    drain(journal, archive, small.LAYOUT)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    for lines in (1, 3, 8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    assert (standing_of(tmp_path / "aggregates") or 0) <= archive.head().position
    bring_up(tmp_path / "aggregates", archive, journal, WANTED)
    assert_told(tmp_path, archive)
    journal.close()


def test_ranges_are_joined() -> None:
    assert joined([(5, 7), (1, 2), (2, 3), (6, 9), (4, 4), (20, 10)]) == ((1, 3), (5, 9))


def test_a_summary_of_no_cells_is_empty() -> None:
    told = Summary.of(Cells.empty(0, 0, 2), *np.zeros((2, 2)))
    assert told.count.tolist() == [0, 0]
    assert np.isnan(told.mean).all()


def test_a_stream_keeps_them(scheduler: str, tmp_path: Path) -> None:
    """Committed ten times a second while it runs, the journal trimmed behind both."""
    seen: set[int | None] = set()

    def on_tick(spoken: Spoken) -> None:
        if spoken.tick % 50 == 0:
            seen.add(standing_of(tmp_path / "views" / "aggregates"))

    given = setup(tmp_path, scheduler, small.Means(), rate=30.0)
    assert run(replace(given, commit_every_s=0.1, aggregates=lambda: WANTED, on_tick=on_tick)).ended
    mark = assert_told(tmp_path / "views", Archive.open(tmp_path / "archive"))
    assert seen - {None, mark.position}, "it was brought up while the stream ran"
