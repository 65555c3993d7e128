"""A stretch of the past, laid out as a log again: folding it gives the windows that the log itself gave.

live    s0    s1    s2 ...        the site's own log: readings in any order, decisions between them
again   [before] [late] [tick] [late] [tick] ... [copied records]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.frame import Dense, Readings
from penstock.data.grid import Grid
from penstock.data.journal import Entry, Journal
from penstock.data.journal.ledger import late_list
from penstock.data.past import LaidOut, Past, Stretch, lay_out
from penstock.data.scoring import Member
from penstock.data.windows import Reason
from penstock.speed.cutting import cut_all
from penstock.speed.plan import ReadPlan
from penstock.speed.rows import Newest
from penstock.speed.shard import Step, forget, run_step

TICKS = 160
LEAD = 40
Members = tuple[Member, ...]
IDS = np.arange(5, dtype=np.int32)


class Cut:
    """What was cut at every tick of a site's log, as the scorer would have; `beside`: members that wait too."""

    def __init__(
        self, site: Path, first: int, last: int, members: Members = small.MEMBERS, beside: Members = ()
    ) -> None:
        journal = Journal.open(site / "journal", segment_bytes=1 << 20)
        plan = ReadPlan.of([m.spec for m in (*members, *beside)], small.resolve, small.LAYOUT, small.GRID)
        newest = Newest(plan)
        for part in plan.shards:
            step = Step(
                site=str(site), shard=part.shard, start=journal.first, stop=journal.tail, want=first - plan.depth + 1,
                plan=part.save(site / "speed"),
            )  # fmt: skip
            newest.add(part.shard, run_step(step))
        self.closes = np.zeros(last - first, np.int64)
        self.hashes = {m.name: np.zeros(last - first, np.uint64) for m in members}
        self.reasons = {m.name: np.full(last - first, 255, np.uint8) for m in members}
        tick = first
        while tick < last:
            ready = min(newest.bring_up(tick), last)
            for name, answers in cut_all(members, newest, tick, ready).items():
                self.hashes[name][answers.ticks - first] = answers.hashes
                self.reasons[name][answers.ticks - first] = answers.reasons
            for t in range(tick, ready):
                self.closes[t - first] = newest.position(t)
            tick = ready
        journal.close()
        forget(str(site))

    def same(self, other: Cut, skip: int = 0) -> np.ndarray:
        """Ticks at which all models had the same windows for the same reasons."""
        pairs = [(self.hashes[n][skip:], other.hashes[n]) for n in self.hashes]
        pairs += [(self.reasons[n][skip:], other.reasons[n]) for n in self.reasons]  # type: ignore[misc]
        return np.logical_and.reduce([a == b for a, b in pairs])


def written(folder: Path, laid: LaidOut) -> Path:
    """The laid-out entries as a log with an empty archive beside it."""
    journal, _ = small.make_site(folder)
    journal.append(list(laid.entries))
    journal.close()
    return folder


def trimmed(journal: Journal, archive: Archive) -> None:
    """Nothing of the past is left in the journal: what makes it let go is more, as in a site that runs on."""
    nothing = [Entry(source="quiet", source_offset=i, parts={}, rejected=1) for i in range(2000)]
    tail = journal.tail
    while journal.first < tail:
        journal.append(nothing)
        drain(journal, archive, small.LAYOUT)
        journal.trim(archive.head().position)


def past_of(site: Path, journal: Journal, archive: Archive) -> Past:
    return Past(archive=archive, journal=journal, layout=small.LAYOUT, late=late_list(site / "journal"))


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), first=st.integers(1, TICKS - 20), commits=st.integers(0, 3))
@example(seed=1, first=60, commits=3)
@example(seed=2, first=20, commits=2)
def test_what_the_journal_holds_is_said_again_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, first: int, commits: int
) -> None:
    """Shuffled, repeated and late readings, commits of the archive at any place of the log."""
    tmp, rng = tmp_path_factory.mktemp("past"), np.random.default_rng(seed)
    journal, archive = small.make_site(tmp / "site")
    small.append_all(journal, small.unruly(rng, TICKS, late=True), 1.0)
    for stop in sorted(rng.integers(0, journal.tail + 1, commits).tolist()):
        drain(journal, archive, small.LAYOUT, stop=stop)
    closed = journal.clock()
    assert closed is not None
    last = closed.closed
    live = Cut(tmp / "site", 0, last)
    stretch = Stretch(first=first, last=last, lead=LEAD, ids=IDS, closes=live.closes[first:])
    laid = lay_out(past_of(tmp / "site", journal, archive), stretch)
    assert laid.exact == first
    again = Cut(written(tmp / "again", laid), first, last)
    assert live.same(again, first).all()
    assert (again.reasons["near"] == Reason.OK).any()
    journal.close()


@pytest.mark.parametrize(
    ("again", "beside"), [(small.JOINED, ()), (small.MEMBERS, small.JOINED)], ids=["it waits", "it waited for others"]
)
@pytest.mark.parametrize("kept", [True, False], ids=["journal", "archive"])
def test_ticks_that_waited_for_joined_tags_are_said_again(
    tmp_path: Path, again: Members, beside: Members, kept: bool
) -> None:
    """Late readings in the ticks between a tick and the decision with which it was said: they are in its windows."""
    journal, archive = small.make_site(tmp_path / "site")
    rows, day = small.rows(0, TICKS, 3).long(), range(60, 70)
    rows = small.seldom(rows) if again is small.JOINED else rows
    ticks = small.GRID.tick(rows.times)
    groups: list[Readings] = [rows.only(ticks == tick) for tick in range(TICKS) if tick not in day]
    for tick in day:
        groups.insert(tick + 3, rows.only(ticks == tick))  # when the tick three behind it was closed
    small.append_all(journal, groups, 0.0)
    last = TICKS - max(m.spec.wait for m in small.JOINED)
    live = Cut(tmp_path / "site", 0, last, again, beside)
    drain(journal, archive, small.LAYOUT)
    if not kept:
        trimmed(journal, archive)
    past = past_of(tmp_path / "site", journal, archive)
    assert sum(r.count for r in past.late) > 10
    wait = max(m.spec.wait for m in again)
    for first in (30, 62, 105):
        stretch = Stretch(first=first, last=last, lead=LEAD, wait=wait, ids=IDS, closes=live.closes[first:])
        laid = lay_out(past, stretch)
        assert laid.exact == (first if kept else last)
        said = Cut(written(tmp_path / f"again-{first}", laid), first, last, again)
        assert live.same(said, first).all()
        assert all((reasons == Reason.OK).any() for reasons in said.reasons.values())
    journal.close()


def test_a_day_that_came_late_is_left_out_until_it_came(tmp_path: Path) -> None:
    """The journal is trimmed: the archive's marks and the late list say it all, as nothing was replaced."""
    journal, archive = small.make_site(tmp_path / "site")
    rows, day = small.rows(0, TICKS, 3), range(60, 70)
    on_time = rows.rows(np.array([i for i in range(TICKS) if i not in day]))
    groups = [on_time.rows(slice(i, i + 1)) for i in range(len(on_time.times))]
    groups.insert(100, rows.rows(slice(day.start, day.stop)))  # when 110 ticks were closed
    small.append_all(journal, groups, 0.0)
    live = Cut(tmp_path / "site", 0, TICKS)
    drain(journal, archive, small.LAYOUT)
    trimmed(journal, archive)
    past = past_of(tmp_path / "site", journal, archive)
    assert sum(r.count for r in past.late) > 30
    for first in (30, 65, 105):
        stretch = Stretch(first=first, last=TICKS, lead=LEAD, ids=IDS, closes=live.closes[first:])
        laid = lay_out(past, stretch)
        assert laid.exact == TICKS, "nothing of it is in the journal any more"
        again = Cut(written(tmp_path / f"again-{first}", laid), first, TICKS)
        assert live.same(again, first).all()
    # As it stands the day is there from the beginning, so the windows that had to do without it differ.
    stored = Stretch(first=30, last=TICKS, lead=LEAD, ids=IDS, closes=None)
    again = Cut(written(tmp_path / "stored", lay_out(past, stored)), 30, TICKS)
    different = np.flatnonzero(~live.same(again, 30)) + 30
    assert set(range(60, 70)) <= set(different.tolist())
    assert different.max() < 110
    journal.close()


def test_only_what_a_late_reading_has_replaced_is_lost(tmp_path: Path) -> None:
    """Tick 60 was read in time and once more later in its cell: the archive keeps the second reading only."""
    journal, archive = small.make_site(tmp_path / "site")
    rows = small.rows(0, TICKS, 4)
    whole = replace_values(rows, np.where(np.isnan(rows.values), np.float32(1.5), rows.values))
    groups = [whole.rows(slice(i, i + 1)) for i in range(TICKS)]
    second = whole.rows(slice(60, 61))
    groups.insert(90, Dense(times=second.times + 1000, tags=IDS, values=second.values + 1, quality=second.quality))
    small.append_all(journal, groups, 0.0)
    live = Cut(tmp_path / "site", 0, TICKS)
    drain(journal, archive, small.LAYOUT)
    trimmed(journal, archive)
    stretch = Stretch(first=30, last=TICKS, lead=LEAD, ids=IDS, closes=live.closes[30:])
    laid = lay_out(past_of(tmp_path / "site", journal, archive), stretch)
    again = Cut(written(tmp_path / "again", laid), 30, TICKS)
    different = np.flatnonzero(~live.same(again, 30)) + 30
    assert 60 in different
    assert different.min() >= 60
    assert different.max() < 60 + LEAD
    journal.close()


def replace_values(rows: Dense, values: np.ndarray) -> Dense:
    return replace(rows, values=values.astype(np.float32))


@given(period=st.integers(1, 86_400 * 10**9), at=st.integers(0, 2**60))
def test_a_time_in_its_cell_comes_back_with_its_offset(period: int, at: int) -> None:
    grid = Grid(period_ns=period, origin_ns=17)
    times = np.array([at], np.int64)
    back = grid.time(grid.tick_of(at)) + grid.elapsed(grid.offset(times))
    assert grid.tick(back) == grid.tick(times)
    assert grid.offset(back) == grid.offset(times)
    assert back[0] <= at
