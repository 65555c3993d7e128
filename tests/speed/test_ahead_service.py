"""Forecasts through the whole speed layer: into the journal, past the clock, through kills, into windows."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import ahead_site as small
import numpy as np
import pytest
from small_site import Means
from test_ahead import by_batch, plainly

from penstock.cluster import local_cluster
from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.early import stamped
from penstock.data.frame import Frame
from penstock.data.grid import Cells, Grid
from penstock.data.journal import Entry, Journal
from penstock.data.journal.ledger import REVISED, late_list
from penstock.data.views.speed_view import SpeedView
from penstock.speed.clock import SourceClock
from penstock.speed.intake import Intake, resume
from penstock.speed.service import Service, Setup
from penstock.speed.source import Delivery
from penstock.speed.status import Report

TICKS, LATENESS = 80, SourceClock(lateness_ns=small.SECOND)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


class Plant:
    """A recording of readings and forecasts in the order in which they came, a group at a time; it may fall silent."""

    name, patient, link = "plant", True, None

    def __init__(self, seed: int, *, once: bool, silent_at: int | None = None) -> None:
        self.groups = small.readings(np.random.default_rng(seed), TICKS, once=once)
        self._silent_at = silent_at

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        for number, group in list(enumerate(self.groups))[offsets.get("", 0) :]:
            if number == self._silent_at:
                await asyncio.Event().wait()
            yield Delivery(offset=number + 1, readings=group)


def run(site: Path, scheduler: str, plant: Plant) -> Report:
    if not (site / "archive").exists():
        Archive.create(site / "archive", small.GRID)
    setup = Setup(
        site=site, grid=small.GRID, layout=lambda: small.LAYOUT, resolve=small.resolve, sources=[(plant, LATENESS)],
        scoring=Means(small.MEMBERS), scheduler=scheduler, segment_bytes=1 << 20, commit_every_s=0.2,
    )  # fmt: skip

    async def main() -> Report:
        return await Service(setup).run()

    return asyncio.run(main())


def said(site: Path) -> dict[tuple[str, int], tuple[int, bool, int]]:
    view, told = SpeedView.open(site / "views" / "speed.sqlite"), {}
    for member in small.MEMBERS:
        rows = view.read(member.name, -1000, 1000)
        for i, tick in enumerate(rows.ticks.tolist()):
            told[member.name, tick] = int(rows.reasons[i]), bool(rows.filled[i]), int(rows.hashes[i])
    view.close()
    return told


def everything(plant: Plant) -> Cells:
    cells = Cells.empty(-5, TICKS + 40, 4)
    for group in plant.groups:
        cells.put(group, small.GRID, small.IDS, None)
    return cells


def test_what_was_published_once_is_said_as_the_archive_has_it(scheduler: str, tmp_path: Path) -> None:
    plant = Plant(3, once=True)
    report = run(tmp_path, scheduler, plant)
    assert (report.ended, report.late, report.revised) == (True, 0, 0)
    told, archive = said(tmp_path), Archive.open(tmp_path / "archive")
    ticks = [tick for _, tick in told]
    assert max(ticks) == TICKS - 1, "a forecast closes no tick"
    assert told == by_batch(archive, min(ticks), max(ticks) + 1)
    assert sum(reason == 0 for reason, _, _ in told.values()) > TICKS
    head = archive.head()
    assert (head.newest, head.span[1]) == (TICKS, TICKS + 20)
    assert archive.span()[1] == TICKS
    assert not late_list(tmp_path / "journal", table=REVISED)


SERVICE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_ahead_service import Plant, run
if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], Plant(4, once=False, silent_at=int(sys.argv[4])))
"""


def test_killed_with_forecasts_ahead_it_loses_none(scheduler: str, tmp_path: Path) -> None:
    """Twice, with cells ahead of the watermark in the archive and in the journal behind it."""
    Archive.create(tmp_path / "archive", small.GRID)
    command = [sys.executable, "-c", SERVICE, str(tmp_path), scheduler, str(Path(__file__).parent)]
    for groups in (30, 50):
        with subprocess.Popen([*command, str(groups)]) as child:
            asyncio.run(reached(tmp_path, groups, child))
            os.kill(child.pid, signal.SIGKILL)
            child.wait(30)
    head = Archive.open(tmp_path / "archive").head()
    assert head.closed is not None
    assert head.span[1] > head.closed + 5, "cells lie ahead of the watermark"
    plant = Plant(4, once=False)
    report = run(tmp_path, scheduler, plant)
    assert report.ended
    assert 0 < report.ticks < TICKS, "the lives before said some"
    journal, archive, expected = (
        Journal.open(tmp_path / "journal"),
        Archive.open(tmp_path / "archive"),
        everything(plant),
    )
    assert journal.first == 0
    assert said(tmp_path) == plainly(journal)[0]
    got = archive.read(small.IDS, expected.first, expected.last)
    assert got.values.tobytes() == expected.values.tobytes()
    assert report.revised > 0
    assert sum(r.count for r in late_list(tmp_path / "journal", table=REVISED)) >= report.revised
    journal.close()


async def reached(site: Path, groups: int, child: subprocess.Popen[bytes]) -> None:
    """Until all that came is archived and said."""
    archive = Archive.open(site / "archive")
    async with asyncio.timeout(60):
        while child.poll() is None:
            head = archive.head()
            if head.source_offsets.get("plant") == groups and head.closed is not None:
                view = SpeedView.open(site / "views" / "speed.sqlite")
                newest = view.last_tick()
                view.close()
                if newest == head.closed - 1:
                    return
            await asyncio.sleep(0.05)
    raise AssertionError(f"it ended with {child.returncode}")


class Told:
    """What arrives when: (wall clock, readings)."""

    name, patient, link = "live", False, None

    def __init__(self, told: list[tuple[float, Frame]]) -> None:
        self.told, self.now_ns = told, 0

    def now(self) -> int:
        return self.now_ns

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        for number, (now_s, readings) in enumerate(self.told):
            taken = asyncio.Event()

            async def ack(taken: asyncio.Event = taken) -> None:
                taken.set()

            self.now_ns = int(now_s * small.SECOND)
            yield Delivery(offset=number + 1, readings=readings, ack=ack)
            await taken.wait()


def frame(*rows: tuple[int, float, float]) -> Frame:
    """(tag, second, value)"""
    return Frame(
        times=np.array([int(second * small.SECOND) for _, second, _ in rows], np.int64),
        tags=np.array([tag for tag, _, _ in rows], np.int32),
        values=np.array([value for *_, value in rows], np.float32),
        quality=np.zeros(len(rows), np.uint8),
    )


def test_what_was_told_last_counts_and_nothing_too_far_ahead_comes_in(tmp_path: Path) -> None:
    """PLAN may be 12 s ahead, clocks may be 2 s apart."""
    journal, archive = small.make_site(tmp_path)
    source = Told(
        [
            (1000.0, frame((0, 1000, 1), (2, 1010.7, 50), (2, 1014.0, 7), (2, 1011, 5), (3, 1004, 8))),
            (1000.5, frame((2, 1014.9, 9), (3, 1008, 1))),  # 2 s and 12 s ahead at most; 2 s and 5 s
            (1001.0, frame((0, 1001, 1), (2, 1010.1, 40))),  # less than before, and earlier in its cell
            (1001.2, frame((2, 1011.2, 6), (2, 1011.8, 4))),  # two of one cell: the last of them
            (1002.0, frame((0, 1004.5, 1), (1, 1004, 2), (0, 1003, 1))),
        ]
    )
    rule = SourceClock(skew_ns=2 * small.SECOND)
    intake = Intake(journal, small.GRID, lambda: small.LAYOUT, [(source, rule)], now=source.now)
    assert asyncio.run(intake.run(asyncio.Event()))
    assert (intake.counts.accepted, intake.counts.quarantined) == (11, 3)
    drain(journal, archive, small.LAYOUT)
    cells = archive.read(small.IDS, 1000, 1020)
    assert cells.values[[10, 11, 14], 2].tolist() == [40, 4, 7]
    assert np.isnan(cells.values[8, 3])
    assert intake.clock.closed == 1005
    later = small.LAYOUT.split(frame((2, 1015, 3)))  # behind the last decision
    journal.append([Entry(source="live", source_offset=6, parts=later)])
    anew = Intake(journal, small.GRID, lambda: small.LAYOUT, [(source, rule)], now=source.now).clock
    resume(anew, journal, small.LAYOUT.ahead_of())
    assert anew.heard("live") == intake.clock.heard("live")
    journal.close()


@pytest.mark.parametrize("period_ns", [1_000, 10**6, 10**9, 3_600 * 10**9, 86_400 * 10**9])
def test_a_stamp_stays_in_its_cell_and_grows_with_arrival(period_ns: int) -> None:
    grid, ahead, skew_ns = Grid(period_ns=period_ns), np.array([24]), period_ns // 2
    first = grid.time(1000) - 24 * period_ns - skew_ns
    arrivals = np.linspace(first, grid.time(1001) - 1, 40).astype(np.int64)
    offsets = []
    for now_ns in arrivals.tolist():
        at = Frame(
            times=grid.time(1000) + np.array([0, period_ns // 2, period_ns - 1]), tags=np.zeros(3, np.int32),
            values=np.zeros(3, np.float32), quality=np.zeros(3, np.uint8),
        )  # fmt: skip
        times = stamped(at, ahead, grid, now_ns, skew_ns).times
        assert grid.tick(times).tolist() == [1000] * 3
        offsets.append(grid.offset(times).astype(np.int64))
    within, between = np.diff(np.array(offsets), axis=1), np.diff(np.array(offsets), axis=0)
    if period_ns >= 10**6:
        assert (within > 0).all()
        assert (between > 0).all()
    else:  # a microsecond has not the places for all
        assert (between >= 0).all()
