"""A stream whose scoring cannot keep up with a live plant: what waits, what is passed over, what is kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from hypothesis import given
from hypothesis import strategies as st
from test_service import SEED, TICKS, setup

from penstock.cluster import local_cluster
from penstock.data.archive import Archive
from penstock.data.frame import Dense
from penstock.data.grid import Cells
from penstock.data.scoring import Ask, Member, Said
from penstock.data.views.speed_view import SaidRows, SpeedView
from penstock.data.windows import Reason, answers_at
from penstock.errors import Unavailable
from penstock.speed.clock import SourceClock
from penstock.speed.overload import Overload, newest_at, passed_over, reaches
from penstock.speed.service import Service
from penstock.speed.setup import Setup
from penstock.speed.source import Delivery
from penstock.speed.sources.replay import Replay
from penstock.speed.status import Report, read_status

BEHIND = 6


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


class Live(Replay):
    """A plant: it does not wait for anybody."""

    patient = False


class Slow(small.Means):
    """Answers when it is told to, as a stopped Triton that goes on; meanwhile every request waits for its deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.asked: list[int] = []

    def members(self) -> tuple[Member, ...]:
        if self.asked and not self.open.is_set():
            raise Unavailable("nobody answers; start Triton")
        return super().members()

    def score(self, asks: list[Ask]) -> list[Said]:
        self.asked.append(max((len(a.windows) for a in asks), default=0))
        if not self.open.wait(0.05):
            self.away = 1
        return super().score(asks)


def given_of(site: Path, scheduler: str, means: small.Means, policy: str, **more: object) -> Setup:
    source = Live("plant", lambda: [small.rows(0, TICKS, SEED)], rate=40.0, group=1, moments=TICKS)
    overload = Overload(policy=policy, behind_ticks=BEHIND)  # type: ignore[arg-type]
    made = setup(site, scheduler, means)
    return replace(made, sources=[(source, SourceClock())], overload=overload, commit_every_s=0.2, **more)  # type: ignore[arg-type]


def run_and_watch(service: Service, watch: Callable[[Service], bool], then: Callable[[], None]) -> Report:
    """Run it; once `watch` says yes of it, do `then`."""

    async def main() -> Report:
        running = asyncio.create_task(service.run(signals=False))
        until = time.monotonic() + 60
        while not running.done() and not watch(service):
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        then()
        return await running

    return asyncio.run(main())


def assert_archived(site: Path) -> None:
    expected = Cells.empty(0, TICKS, 5)
    expected.put(small.rows(0, TICKS, SEED), small.GRID, np.arange(5, dtype=np.int32), None)
    assert Archive.open(site / "archive").read(np.arange(5, dtype=np.int32), 0, TICKS).values.tobytes() == (
        expected.values.tobytes()
    )


def said(site: Path, member: Member) -> SaidRows:
    return SpeedView.open(site / "views" / "speed.sqlite").read(member.name, 0, TICKS)


def test_newest_passes_over_what_is_old_and_says_so(scheduler: str, tmp_path: Path) -> None:
    """Triton does not answer for a while: old ticks are given up at once, in the view, and the archive has all."""
    slow = Slow()
    service = Service(given_of(tmp_path, scheduler, slow, "newest"))
    seen: list[int] = []

    def enough(running: Service) -> bool:
        seen.append(running.report().passed_ticks)
        return seen[-1] > 40

    report = run_and_watch(service, enough, slow.open.set)
    assert (report.ended, report.ticks, report.late) == (True, TICKS, 0)
    assert seen[-1] > 40, "they are passed over while nobody answers, not afterwards"
    passed = {m.name: said(tmp_path, m).reasons == Reason.OVERLOAD for m in small.MEMBERS}
    assert report.passed == sum(int(p.sum()) for p in passed.values())
    assert report.passed_ticks >= seen[-1]
    for member in small.MEMBERS:
        rows = said(tmp_path, member)
        ticks = np.arange(TICKS)
        assert rows.ticks.tolist() == ticks[answers_at(member.spec, ticks)].tolist(), "each tick has its row"
        assert np.isnan(rows.values[passed[member.name]]).all()
        assert not passed[member.name][-1], "the newest tick is never passed over"
    assert report.predictions > 0
    assert_archived(tmp_path)
    status = read_status(tmp_path / "speed")
    assert status is not None
    assert status["report"]["passed_ticks"] == report.passed_ticks


class Behind(Live):
    """Comes some ticks later than the others."""

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        await asyncio.sleep(0.4)
        async for delivery in super().deliveries(offsets):
            yield delivery


def two_sources(given: Setup) -> Setup:
    """Each has some of the tags; the second one is what ticks wait for."""
    whole = small.rows(0, TICKS, SEED)

    def part(tags: list[int]) -> Dense:
        quality = None if whole.quality is None else whole.quality[:, tags]
        return Dense(times=whole.times, tags=np.array(tags, np.int32), values=whole.values[:, tags], quality=quality)

    kinds = ((Live, [0, 1, 2]), (Behind, [3, 4]))
    rules = SourceClock(idle_ns=2_000_000_000)
    sources = [
        (kind(f"plant {tags}", lambda tags=tags: [part(tags)], rate=40.0, group=1, moments=TICKS), rules)  # type: ignore[misc]
        for kind, tags in kinds
    ]
    return replace(given, sources=sources)


def test_block_reads_no_further_and_nobody_falls_silent(scheduler: str, tmp_path: Path) -> None:
    """Longer than the sources' idle time-out: what the slower one brings is not late for that."""
    slow, held, most = Slow(), [0.0], list[int]()

    def enough(running: Service) -> bool:
        if running._waiting() > BEHIND and not held[0]:
            held[0] = time.monotonic()
        if held[0] and not most and time.monotonic() - held[0] > 1.0:  # what was on its way has come
            most.append(running._waiting())
        return bool(held[0]) and time.monotonic() - held[0] > 3.0

    service = Service(two_sources(given_of(tmp_path, scheduler, slow, "block")))
    told: list[bool] = []

    def look() -> None:
        most.append(service._waiting())
        told.append(service.told is not None and service.told.held)
        slow.open.set()

    report = run_and_watch(service, enough, look)
    assert BEHIND < most[0] == most[1] < TICKS - 100
    assert told == [True]
    assert (report.ended, report.ticks, report.late, report.passed) == (True, TICKS, 0, 0)
    for member in small.MEMBERS:
        assert not (said(tmp_path, member).reasons == Reason.NO_ANSWER).any()
    assert_archived(tmp_path)


def test_all_takes_in_everything_and_says_it_late(scheduler: str, tmp_path: Path) -> None:
    slow = Slow()
    service = Service(given_of(tmp_path, scheduler, slow, "all"))
    report = run_and_watch(service, lambda running: running._waiting() > 100, slow.open.set)
    assert (report.ended, report.ticks, report.late, report.passed) == (True, TICKS, 0, 0)
    assert_archived(tmp_path)


def test_a_replay_of_files_is_no_overload(scheduler: str, tmp_path: Path) -> None:
    made = setup(tmp_path, scheduler, small.Means())
    service = Service(replace(made, overload=Overload(policy="newest", behind_ticks=1)))
    report = run_and_watch(service, lambda running: True, lambda: None)
    assert (report.ticks, report.passed) == (TICKS, 0)


@given(st.integers(-50, 50), st.integers(1, 40), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_of_each_model_the_newest_tick_is_asked_for_and_no_other(tick: int, ticks: int, everies: list[int]) -> None:
    spec, until = small.MEMBERS[0].spec, tick + ticks
    members = tuple(
        Member(name=f"m{i}", version=1, slot=i, spec=replace(spec, every=every)) for i, every in enumerate(everies)
    )
    asked: dict[str, list[int]] = {m.name: [] for m in members}
    passed: dict[str, list[int]] = {m.name: [] for m in members}
    at = tick
    while at < until:
        last = reaches(members, at, until)
        assert at < last <= until
        for m in members:
            if newest_at(m, until) >= last:
                passed[m.name] += passed_over(m, at, last).ticks.tolist()
            else:
                asked[m.name] += [t for t in range(at, last) if t % m.spec.every == 0]
        at = last
    for m in members:
        mine = [t for t in range(tick, until) if t % m.spec.every == 0]
        assert (passed[m.name], asked[m.name]) == (mine[:-1], mine[-1:])
