"""Windows cut from what shards return equal the windows of a slow, obvious model; and on time, the archive's."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.frame import Dense
from penstock.data.grid import Cells
from penstock.data.journal import Entry, Journal, Kind
from penstock.data.quality import Flag, Rules, assess
from penstock.data.scoring import Member
from penstock.data.windows import answers_at, cut, prepare, window_hash
from penstock.speed import shard
from penstock.speed.clock import begin_of
from penstock.speed.cutting import cut_all
from penstock.speed.plan import ReadPlan
from penstock.speed.rows import Newest
from penstock.speed.shard import Failure, Step, attempt, run_step

Told = dict[tuple[str, int], tuple[int, bool, int]]
"""(model, tick) -> (reason, filled, hash of the window)."""


def first_decision(journal: Journal) -> tuple[int, int]:
    records = journal.read(journal.first, journal.tail, -1)
    return next((begin_of(r.clock), r.sequence) for r in records if r.kind is Kind.CLOCK and r.clock is not None)


def plainly(journal: Journal, members: tuple[Member, ...] = small.MEMBERS) -> tuple[Told, Told]:
    """For each tick: all readings up to the decision that closed it, folded from nothing. (told, told of the end)

    Where tags are joined: up to the decision that closed the last tick whose readings may come onto it.
    """
    wait = max(m.spec.wait for m in members)
    records = list(journal.read(0, journal.tail))
    begin, told, final = first_decision(journal)[0], {}, {}
    last = max(r.clock.closed for r in records if r.clock is not None)
    closing: dict[int, int] = {}
    closed: int | None = None
    for r in records:
        if r.clock is not None:
            since = begin + wait if closed is None else closed
            closing.update(dict.fromkeys(range(since, r.clock.closed), r.sequence))
            closed = r.clock.closed
    last -= wait
    closing = {tick - wait: sequence for tick, sequence in closing.items()}
    known: dict[int, Cells] = {}
    for sequence in sorted({*closing.values(), journal.tail}):
        cells, closed = Cells.empty(-60, last + 120, 5), None
        for r in records:
            if r.sequence > sequence:
                break
            if r.readings is not None:
                cells.put(r.readings, small.GRID, np.arange(5, dtype=np.int32), closed)
            elif r.clock is not None:
                closed = r.clock.closed
        known[sequence] = cells
    for member in members:
        tell(told, member, {t: known[closing[t]] for t in range(begin, last)})
        tell(final, member, dict.fromkeys(range(begin, last), known[journal.tail]))
    return told, final


def tell(told: Told, member: Member, cells: dict[int, Cells]) -> None:
    spec, names = member.spec, ("A", "B", "C", "D", "E")
    columns = [names.index(n) for n in spec.base]
    rules = Rules.of(spec.base_tags, spec.period_ns)
    for tick, all_cells in cells.items():
        if not answers_at(spec, [tick])[0]:
            continue
        rows = all_cells.rows(tick - spec.depth - rules.reach, tick + 1 + rules.wait)
        mine = Cells(
            first=rows.first,
            values=rows.values[:, columns],
            quality=rows.quality[:, columns],
            offset=rows.offset[:, columns],
        )
        block = assess(mine, rules).rows(tick - spec.depth + 1, tick + 1)
        windows = cut(spec, prepare(spec, block), [tick])
        reason = int(windows.reason[0])
        told[member.name, tick] = reason, bool(windows.filled[0]), 0 if reason else int(window_hash(windows.x)[0])


def by_steps(
    site: Path, journal: Journal, archive: Archive, rng: np.random.Generator, members: tuple[Member, ...]
) -> Told:
    """What the speed layer says, in steps of random length, with restarts, workers lost and drains in between."""
    told: Told = {}
    tick, position = first_decision(journal)
    closed = max(r.clock.closed for r in journal.read(0, journal.tail, -1) if r.clock is not None)
    while tick < closed - max(m.spec.wait for m in members):
        depth_more = [m.spec for m in members]
        plan = ReadPlan.of(depth_more, small.resolve, small.LAYOUT, small.GRID)
        newest = Newest(plan)
        stop_at = int(rng.integers(position + 1, journal.tail + 1)) if rng.random() < 0.5 else journal.tail
        for part in plan.shards:
            name, at, want = part.save(site / "speed"), position, tick - plan.depth + 1
            while at < stop_at:
                stop = min(stop_at, at + int(rng.integers(1, 12)))
                newest.add(part.shard, run_step(step(site, part.shard, at, stop, want, name)))
                at, want = stop, None
                if rng.random() < 0.2:
                    shard._kept.clear()  # the worker was killed
                if rng.random() < 0.2:
                    drain(journal, archive, small.LAYOUT, stop=int(rng.integers(0, journal.tail + 1)))
        while newest.ready(tick):
            last = min(newest.bring_up(tick), tick + int(rng.integers(1, 9)))
            for name, a in cut_all(members, newest, tick, last).items():
                for i, t in enumerate(a.ticks.tolist()):
                    told[name, t] = int(a.reasons[i]), bool(a.filled[i]), int(a.hashes[i])
            position = newest.position(last - 1)
            tick = last
    return told


def step(site: Path, number: int, start: int, stop: int, want: int | None, plan: str) -> Step:
    return Step(site=str(site), shard=number, start=start, stop=stop, want=want, plan=plan)


@pytest.mark.parametrize("members", [small.MEMBERS, small.JOINED], ids=["last", "joined"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), late=st.booleans(), lateness_s=st.sampled_from([0.0, 2.0, 6.5]))
def test_windows_are_those_of_the_log(members: tuple[Member, ...], seed: int, late: bool, lateness_s: float) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        journal, archive = small.make_site(site)
        lateness_s = lateness_s if late else 6.5
        small.append_all(journal, small.unruly(rng, 40, late=late, slow=members is small.JOINED), lateness_s)
        expected, final = plainly(journal, members)
        assert by_steps(site, journal, archive, rng, members) == expected
        if not late:
            assert expected == final
        drain(journal, archive, small.LAYOUT)
        from_archive: Told = {}
        for member in members:
            ticks = [t for name, t in final if name == member.name]
            cells = archive.read(np.arange(5, dtype=np.int32), -60, max(ticks) + 1 + member.spec.wait)
            tell(from_archive, member, dict.fromkeys(ticks, cells))
        assert from_archive == final


def test_a_reading_from_far_ahead_waits_for_its_tick(tmp_path: Path) -> None:
    journal, _ = small.make_site(tmp_path)
    for first in (0, 6000):  # more than the ring holds ahead
        journal.append(
            [Entry(source="s", source_offset=first, parts=small.LAYOUT.split(small.rows(first, first + 5, 1)))]
        )
    clock = small.Clock(small.GRID, {"s": small.SourceClock()})
    for second in (5, 5999, 6005):
        decision = clock.observe("s", second * small.SECOND, 0)
        journal.append([Entry(source="s", source_offset=second, parts={}, clock=decision)])
    plan = ReadPlan.of([m.spec for m in small.MEMBERS], small.resolve, small.LAYOUT, small.GRID)
    part = plan.shards[0]
    result = run_step(step(tmp_path, part.shard, 0, journal.tail, None, part.save(tmp_path / "speed")))
    assert [r.closed for r in result][-1] == 6005
    assert sum(len(r.closes) for r in result) >= 3
    newest = np.concatenate([r.block.values for r in result])[-5:]
    expected = Cells.empty(6000 - part.reach, 5 + part.reach, len(part.columns))
    wanted: Dense = small.rows(6000, 6005, 1)
    column_of = np.full(5, -1, np.int32)
    column_of[part.ids] = np.arange(len(part.ids))
    expected.put(wanted, small.GRID, column_of, None)
    np.testing.assert_array_equal(newest, assess(expected, part.rules).values[part.reach :])


def test_a_rebuilt_ring_knows_what_was_late(tmp_path: Path) -> None:
    journal, archive = small.make_site(tmp_path)
    clock = small.Clock(small.GRID, {"s": small.SourceClock()})
    times = ((0, 20), (15, 16), (20, 24))  # the second group is late; the archive ends before it
    for number, (first, last) in enumerate(times):
        decision = clock.observe("s", last * small.SECOND, 0)
        parts = small.LAYOUT.split(small.rows(first, last, number))
        journal.append([Entry(source="s", source_offset=number, parts=parts, clock=decision)])
    drain(journal, archive, small.LAYOUT, stop=1)
    part = ReadPlan.of([m.spec for m in small.MEMBERS], small.resolve, small.LAYOUT, small.GRID).shards[0]
    rows = run_step(step(tmp_path, part.shard, 2, 3, 14, part.save(tmp_path / "speed")))
    late = (rows[-1].block.flags & Flag.LATE).any(axis=1)
    assert [rows[-1].block.first + int(i) for i in np.flatnonzero(late)] == [15]


def test_two_models_may_judge_one_tag_differently(tmp_path: Path) -> None:
    strict = {**small.TAGS, "A": replace(small.TAGS["A"], range=(-1.0, 1.0))}
    near = small.MEMBERS[0].spec
    other = type(near).of(small.MODELS["near"], replace(small.PLANT, tags=strict))
    plan = ReadPlan.of([near, other], small.resolve, small.LAYOUT, small.GRID)
    assert plan.covers([near, other])
    assert not plan.covers([small.MEMBERS[1].spec])
    part = plan.shards[0]
    assert [c.tag.name for c in part.columns] == ["A", "E", "A"]
    journal, _ = small.make_site(tmp_path)
    small.append_all(journal, [small.rows(0, 30, 3)], 0.0)
    rows = run_step(step(tmp_path, 0, 0, journal.tail, 0, part.save(tmp_path / "speed")))
    values = np.concatenate([r.block.values for r in rows])
    loose, tight = values[:, 0], values[:, 2]
    assert np.isnan(tight).sum() > np.isnan(loose).sum()


def test_a_step_that_cannot_be_done_says_why(tmp_path: Path) -> None:
    small.make_site(tmp_path)
    plan = ReadPlan.of([], small.resolve, small.LAYOUT, small.GRID)
    name = plan.shards[0].save(tmp_path / "speed")
    answer = attempt(step(tmp_path, 0, 0, 5, None, name))
    assert isinstance(answer, Failure)
    assert "0" in answer.reason
    answer = attempt(step(tmp_path, 0, 0, 0, None, "plan-none.json"))
    assert isinstance(answer, Failure)
    assert "plan-none.json" in answer.reason
