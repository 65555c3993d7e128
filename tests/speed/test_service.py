"""The whole speed layer on real workers: what it says is what an uninterrupted in-process run says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_site as small

from penstock.cluster import local_cluster
from penstock.data.archive import Archive
from penstock.data.archive.retention import Retention
from penstock.data.frame import Frame
from penstock.data.grid import Cells
from penstock.data.journal import Entry, Journal
from penstock.data.layout import Layout
from penstock.data.plant import CorrectSpec, LiveSpec
from penstock.data.quality import Rules, assess
from penstock.data.scoring import Ask, Member, Said
from penstock.data.views.adjusted import COLUMNS
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.windows import Reason, answers_at, cut, prepare, window_hash
from penstock.errors import ArchiveError, DeadlineExceeded, SiteError, SourceError, Unavailable
from penstock.speed import following
from penstock.speed.clock import SourceClock
from penstock.speed.service import Service, Setup
from penstock.speed.sources.replay import Replay
from penstock.speed.status import Report, read_status
from penstock.speed.upkeep import Upkeep

TICKS = 300
SEED = 11


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


def setup(site: Path, scheduler: str, means: small.Means, *, rate: float | None = None, ticks: int = TICKS) -> Setup:
    if not (site / "archive").exists():
        Archive.create(site / "archive", small.GRID)
    source = Replay("replay", lambda: [small.rows(0, TICKS, SEED)], rate=rate, group=8, moments=ticks)
    return Setup(
        site=site, grid=small.GRID, layout=lambda: small.LAYOUT, resolve=small.resolve,
        sources=[(source, SourceClock())], scoring=means, scheduler=scheduler, segment_bytes=1 << 20,
    )  # fmt: skip


def run(given: Setup) -> Report:
    async def main() -> Report:
        return await Service(given).run()

    return asyncio.run(main())


def assert_said(site: Path, ticks: int = TICKS, members: tuple[Member, ...] = small.MEMBERS, since: int = 0) -> None:
    """Against windows cut at once from the cells of all rows."""
    cells = Cells.empty(-40, 40 + ticks, 5)
    cells.put(small.rows(0, ticks, SEED), small.GRID, np.arange(5, dtype=np.int32), None)
    for member in members:
        spec = member.spec
        columns = [small.NAMES.index(n) for n in spec.base]
        mine = replace_columns(cells, columns)
        block = assess(mine, Rules.of(spec.base_tags, spec.period_ns))
        all_ticks = np.arange(since, ticks)
        expected = cut(spec, prepare(spec, block), all_ticks[answers_at(spec, all_ticks)])
        said = SpeedView.open(site / "views" / "speed.sqlite").read(member.name, since, ticks)
        ok = expected.reason == Reason.OK
        assert np.array_equal(said.ticks, expected.ends)
        assert np.array_equal(said.reasons, expected.reason)
        assert np.array_equal(said.hashes[ok], window_hash(expected.x[ok]))
        np.testing.assert_allclose(said.values[ok, 0], expected.x[ok].mean(axis=(1, 2)), rtol=1e-5, atol=1e-5)
        assert np.isnan(said.values[~ok]).all()
        assert ok.sum() > 20


def replace_columns(cells: Cells, columns: list[int]) -> Cells:
    return Cells(
        first=cells.first,
        values=cells.values[:, columns],
        quality=cells.quality[:, columns],
        offset=cells.offset[:, columns],
    )


def test_a_replay_is_said_and_archived(scheduler: str, tmp_path: Path) -> None:
    told: list[int] = []
    report = run(replace(setup(tmp_path, scheduler, small.Means()), on_tick=lambda s: told.append(s.tick)))
    assert report.ended
    assert report.readings == len(small.rows(0, TICKS, SEED))
    assert told == list(range(TICKS))
    assert (report.ticks, report.failed_requests, report.late) == (TICKS, 0, 0)
    assert 0 < report.said_ms["count"] < TICKS  # the first decision closes ticks of before, which are not measured
    assert report.predictions > 0
    assert_said(tmp_path)
    archive, journal = Archive.open(tmp_path / "archive"), Journal.open(tmp_path / "journal")
    assert archive.head().position == journal.tail
    expected = Cells.empty(0, TICKS, 5)
    expected.put(small.rows(0, TICKS, SEED), small.GRID, np.arange(5, dtype=np.int32), None)
    got = archive.read(np.arange(5, dtype=np.int32), 0, TICKS)
    assert got.values.tobytes() == expected.values.tobytes()
    assert got.quality.tobytes() == expected.quality.tobytes()
    status = read_status(tmp_path / "speed")
    assert status is not None
    assert status["report"]["ticks"] == TICKS
    # Run again, there is nothing to say; with more rows it goes on where it was.
    again = run(setup(tmp_path, scheduler, small.Means()))
    assert (again.ticks, again.readings, again.ended) == (0, 0, True)


def test_a_stream_tells_its_rate_while_it_runs(scheduler: str, tmp_path: Path) -> None:
    told: list[float | None] = []

    def look(spoken: Spoken) -> None:
        told.append((read_status(tmp_path / "speed") or {}).get("rate"))

    run(replace(setup(tmp_path, scheduler, small.Means(), rate=40.0, ticks=120), on_tick=look))
    rates = [rate for rate in told if rate is not None]
    assert told[0] is None
    assert rates[-1] > 0
    ended = read_status(tmp_path / "speed")
    assert ended is not None
    assert ended["rate"] is None


def test_a_site_has_one_service(scheduler: str, tmp_path: Path) -> None:
    async def two() -> None:
        one = Service(setup(tmp_path, scheduler, small.Means(), rate=20.0))
        running = asyncio.create_task(one.run())
        await asyncio.sleep(1.0)
        with pytest.raises(SiteError, match="already runs"):
            await Service(setup(tmp_path, scheduler, small.Means())).run(signals=False)
        one.stop()
        report = await running
        assert not report.ended
        assert report.ticks > 0

    asyncio.run(two())


def test_no_scheduler_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"tcp://127\.0\.0\.1:9"):
        run(replace(setup(tmp_path, "tcp://127.0.0.1:9", small.Means()), connect_s=1.0))


def test_a_source_that_fails_ends_the_run_with_its_words(scheduler: str, tmp_path: Path) -> None:
    given = setup(tmp_path, scheduler, small.Means())
    source = Replay("replay", lambda: [small.rows(5, 9, SEED), small.rows(0, 5, SEED)])
    with pytest.raises(SourceError, match="sort it by time"):
        run(replace(given, sources=[(source, SourceClock())]))


def test_it_goes_on_where_it_ended(scheduler: str, tmp_path: Path) -> None:
    assert run(setup(tmp_path, scheduler, small.Means(), ticks=100)).ticks == 100
    assert run(setup(tmp_path, scheduler, small.Means())).ticks == 200
    assert_said(tmp_path)


def test_triton_away_loses_no_tick(scheduler: str, tmp_path: Path) -> None:
    means = small.Means()
    means.away = 6
    report = run(setup(tmp_path, scheduler, means))
    assert report.failed_requests == 6
    assert report.ticks == TICKS
    assert_said(tmp_path)


class Busy(small.Means):
    """A server that answers in time only when few windows are asked for."""

    def score(self, asks: list[Ask]) -> list[Said]:
        if sum(len(a.windows) for a in asks) > 40:
            raise DeadlineExceeded("no answer in time; is the machine overloaded?")
        return super().score(asks)


def test_a_busy_server_is_asked_for_less_at_a_time(scheduler: str, tmp_path: Path) -> None:
    busy = Busy()
    report = run(setup(tmp_path, scheduler, busy))
    assert (report.ticks, report.ended) == (TICKS, True)
    assert 0 < report.failed_requests < busy.requests
    assert_said(tmp_path)


def test_a_new_member_is_heard_at_the_next_tick(scheduler: str, tmp_path: Path) -> None:
    means = small.Means(small.MEMBERS[:1])
    deployed: list[int] = []

    def on_tick(spoken: object) -> None:
        if spoken.tick >= 60 and not deployed:  # type: ignore[attr-defined]
            means.current = small.MEMBERS
            deployed.append(spoken.tick)  # type: ignore[attr-defined]

    report = run(replace(setup(tmp_path, scheduler, means, rate=200.0), on_tick=on_tick))
    assert report.rereadings == 1
    assert report.ticks == TICKS
    far = SpeedView.open(tmp_path / "views" / "speed.sqlite").read("far", 0, TICKS)
    assert deployed[0] < far.ticks[0] <= deployed[0] + 40
    assert far.ticks.tolist() == list(range(int(far.ticks[0]), TICKS, 2))
    assert_said(tmp_path, members=small.MEMBERS[:1])


def test_an_import_in_the_middle_is_followed(scheduler: str, tmp_path: Path) -> None:
    """Another process' records move nothing, stop nothing, and count as late where they are."""
    history = small.rows(-50, 0, SEED)
    done: list[int] = []

    def on_tick(spoken: object) -> None:
        if spoken.tick >= 50 and not done:  # type: ignore[attr-defined]
            done.append(1)
            journal = Journal.open(tmp_path / "journal", segment_bytes=1 << 20)
            journal.append([Entry(source="import:x", source_offset=50, parts=small.LAYOUT.split(history))])

    report = run(replace(setup(tmp_path, scheduler, small.Means(), rate=200.0), on_tick=on_tick))
    assert (report.ticks, report.late) == (TICKS, len(history))
    assert_said(tmp_path, since=60)
    assert Archive.open(tmp_path / "archive").span()[0] == -50


def test_a_shard_that_the_others_wait_for_is_never_held(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for waiting rows at all: each shard still goes as far as the next tick, or nothing would ever be said."""
    monkeypatch.setattr(following, "BACKLOG_VALUES", -1)

    async def main() -> Report:
        return await asyncio.wait_for(Service(setup(tmp_path, scheduler, small.Means())).run(), 30)

    assert asyncio.run(main()).ticks == TICKS
    assert_said(tmp_path)


def test_tags_registered_while_the_archiver_begins_wait_for_the_next_time(tmp_path: Path) -> None:
    """Another process registers a tag and appends its readings between the look at the tags and the drain."""
    journal, archive = small.make_site(tmp_path)
    journal.append([Entry(source="s", source_offset=1, parts=small.LAYOUT.split(small.rows(0, 3, SEED)))])
    wider = Layout(dtypes=["float32"] * 6, shards=2)
    known = [small.LAYOUT, wider]

    def layout() -> Layout:
        now = known.pop(0)
        if known:
            row = Frame(
                times=np.array([0]), tags=np.array([5], np.int32), values=np.array([7.0], np.float32),
                quality=np.zeros(1, np.uint8),
            )  # fmt: skip
            journal.append([Entry(source="import:x", source_offset=1, parts=wider.split(row))])
        return now

    upkeep = Upkeep(replace(setup(tmp_path, "", small.Means()), layout=layout), journal)
    asyncio.run(upkeep.at_the_end(None))
    assert archive.head().position == 1
    asyncio.run(upkeep.at_the_end(None))
    assert archive.head().position == 2
    upkeep.let_go()
    assert archive.read(np.array([5], np.int32), 0, 1).values.tolist() == [[7.0]]
    journal.close()


def test_old_commits_and_read_plans_go_and_the_next_run_finds_what_it_needs(scheduler: str, tmp_path: Path) -> None:
    """Retention of nothing, and a commit ten times a second: only what a card names and a shard needs is left."""
    named: set[str] = set()
    leftover = tmp_path / "speed" / "plan-0-0123456789abcdef.json"
    leftover.parent.mkdir()
    leftover.write_text("{}")

    def given(ticks: int) -> Setup:
        made = setup(tmp_path, scheduler, small.Means(), rate=50.0, ticks=ticks)
        return replace(made, commit_every_s=0.1, retention=Retention(snapshots_ns=0, named=lambda: named))

    assert run(given(100)).ticks == 100
    assert not leftover.exists()
    archive = Archive.open(tmp_path / "archive")
    named.add(archive.head().snapshot)
    before = archive.read(np.arange(5, dtype=np.int32), 0, 100).values.tobytes()
    assert run(given(TICKS)).ticks == TICKS - 100
    assert_said(tmp_path)

    fresh = Archive.open(tmp_path / "archive")
    (snapshot,) = named
    assert fresh.read(np.arange(5, dtype=np.int32), 0, 100, snapshot=snapshot).values.tobytes() == before
    said = SpeedView.open(tmp_path / "views" / "speed.sqlite").last_position()
    assert said is not None
    assert fresh.at(said).position <= said
    with pytest.raises(ArchiveError, match="expired"):
        fresh.at(0)
    # The named one, the newest, and what a shard at the last tick said may need; the run made several times as many.
    assert len(list((fresh.folder / "snapshots").iterdir())) <= 5
    assert (tmp_path / "archive" / "expired").exists()


def test_the_archive_is_committed_as_often_as_asked(scheduler: str, tmp_path: Path) -> None:
    """A minute between commits: nothing is archived before the end, and all is at the end."""
    seen: list[int] = []

    def on_tick(spoken: object) -> None:
        seen.append(Archive.open(tmp_path / "archive").head().position)

    given = replace(setup(tmp_path, scheduler, small.Means(), rate=100.0), commit_every_s=60.0, on_tick=on_tick)
    assert run(given).ticks == TICKS
    assert set(seen) == {0}
    archive, journal = Archive.open(tmp_path / "archive"), Journal.open(tmp_path / "journal")
    assert archive.head().position == journal.tail


SERVICE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import small_site as small
from test_service import run, setup
if __name__ == "__main__":
    given = setup(Path(sys.argv[1]), sys.argv[2], small.Means(), rate=90.0)  # three lives of 0.9 s do not end it
    print("begun", flush=True)
    print(run(given).ended, flush=True)
"""


def test_killed_and_stopped_it_says_the_same(scheduler: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVICE, str(tmp_path), scheduler, str(Path(__file__).parent)]
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            time.sleep(0.9)
            os.kill(child.pid, number)
            child.wait(30)
            assert child.returncode == (0 if number == signal.SIGTERM else -number)
            if number == signal.SIGTERM:
                assert child.stdout.read() == "False\n"
    assert run(setup(tmp_path, scheduler, small.Means())).ended
    assert_said(tmp_path)


LIVE = {
    "near": LiveSpec(correct=CorrectSpec(by="bias", over_ns=9 * small.SECOND), interval=0.9, limits=(3.0,)),
    "far": LiveSpec(correct=CorrectSpec(by="ewm", over_ns=9 * small.SECOND), interval=0.8),
}


def test_what_is_said_beside_has_the_same_bits_over_restarts_and_a_failed_write(scheduler: str, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert run(replace(setup(whole, scheduler, small.Means()), live=LIVE)).ended
    for ticks in (90, 91, 240):
        run(replace(setup(parted, scheduler, small.Means(), ticks=ticks), live=LIVE, commit_every_s=0.05))
    fails_to_write(parted, scheduler)
    run(replace(setup(parted, scheduler, small.Means()), live=LIVE))
    views = [SpeedView.open(site / "views" / "speed.sqlite") for site in (whole, parted)]
    for member in small.MEMBERS:
        one, two = (view.read(member.name, 0, TICKS) for view in views)
        assert one.adjusted is not None
        assert two.adjusted is not None
        assert one.ticks.tolist() == two.ticks.tolist()
        for name in COLUMNS:
            assert getattr(one.adjusted, name).tobytes() == getattr(two.adjusted, name).tobytes()
        assert np.isfinite(one.adjusted.lows).mean() > 0.5
    assert views[0].state() == views[1].state()
    told = read_status(whole / "speed")
    assert told is not None
    near = told["beside"]["near"]["E"]
    assert near["judged"] > 100
    assert near["recent"] == pytest.approx(near["inside"] / near["judged"], abs=0.1)


def fails_to_write(site: Path, scheduler: str) -> None:
    """A run that ends between a tick's correction and its row, as a kill would end it there."""

    class Failing(SpeedView):
        def write(self, spoken: object, state: bytes | None = None) -> int:
            raise SiteError("the disk is full")

    view = Failing.open(site / "views" / "speed.sqlite")
    given = replace(setup(site, scheduler, small.Means(), ticks=270), live=LIVE)
    service = Service(given)
    service._scorer._view = view  # the process ends here, whatever it had in memory
    with pytest.raises(SiteError, match="the disk is full"):
        asyncio.run(service.run())
