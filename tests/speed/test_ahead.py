"""Windows that look ahead: cut live they are those of what was known when their tick closed; on time, the archive's."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import ahead_site as small
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.batch.history import Source
from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.block import Block
from penstock.data.frame import Frame
from penstock.data.grid import Cells
from penstock.data.journal import Entry, Journal, Kind
from penstock.data.journal.ledger import LATE, REVISED, late_list
from penstock.data.past import Past, Stretch, lay_out
from penstock.data.quality import Rules, assess
from penstock.data.scoring import Member
from penstock.data.window_form import form_of
from penstock.data.windows import Reason, Windows, answers_at, cut, prepare, window_hash
from penstock.speed import shard
from penstock.speed.clock import begin_of
from penstock.speed.cutting import cut_all
from penstock.speed.plan import ReadPlan
from penstock.speed.rows import Newest
from penstock.speed.shard import Step, run_step

BEFORE, BEHIND = -60, 60
"""Ticks before the first and behind the last one that the slow model looks at."""
Told = dict[tuple[str, int], tuple[int, bool, int]]
"""(model, tick) -> (reason, filled, hash of the window)."""


def of(windows: Windows) -> tuple[int, bool, int]:
    reason = int(windows.reason[0])
    return reason, bool(windows.filled[0]), 0 if reason else int(window_hash(windows.x)[0])


def plain(member: Member, tick: int, whole: Block) -> tuple[int, bool, int]:
    """One window from all that is known: every tag judged where it stands, then read where the model reads it."""
    spec = member.spec
    first = tick - spec.depth + 1
    values = np.zeros((spec.depth, len(spec.base)), np.float32)
    flags = np.zeros(values.shape, np.uint16)
    for column, (tag, ahead) in enumerate(zip(spec.base_tags, spec.base_ahead, strict=True)):
        for row in range(spec.depth):
            at = first + row + ahead - whole.first, small.NAMES.index(tag.name)
            values[row, column], flags[row, column] = whole.values[at], whole.flags[at]
    return of(cut(spec, prepare(spec, Block(first=first, tags=spec.base, values=values, flags=flags)), [tick]))


def closings(journal: Journal) -> dict[int, int]:
    """The sequence that closed each tick, from the first that is said on."""
    closing: dict[int, int] = {}
    closed: int | None = None
    for r in journal.read(0, journal.tail, -1):
        if r.clock is not None:
            begin = begin_of(r.clock) if closed is None else closed
            closing.update(dict.fromkeys(range(begin, r.clock.closed), r.sequence))
            closed = r.clock.closed
    return closing


def plainly(journal: Journal) -> tuple[Told, Told, int]:
    """For each tick all readings up to the decision that closed it; those of the end; and the first tick."""
    records, closing = list(journal.read(0, journal.tail)), closings(journal)
    begin, last = min(closing), max(closing) + 1
    known = {s: as_of(records, s, last) for s in {*closing.values(), journal.tail}}
    told: Told = {}
    final: Told = {}
    for member in small.MEMBERS:
        for tick in range(begin, last):
            if answers_at(member.spec, [tick])[0]:
                told[member.name, tick] = plain(member, tick, known[closing[tick]])
                final[member.name, tick] = plain(member, tick, known[journal.tail])
    return told, final, begin


def as_of(records: list, sequence: int, last: int) -> Block:  # type: ignore[type-arg]
    cells, closed = Cells.empty(BEFORE, last + BEHIND - BEFORE, 4), None
    for r in records:
        if r.sequence > sequence:
            break
        if r.readings is not None:
            cells.put(r.readings, small.GRID, small.IDS, closed)
        elif r.clock is not None:
            closed = r.clock.closed
    return assess(cells, Rules.of([small.TAGS[n] for n in small.NAMES], small.SECOND))


def by_steps(site: Path, journal: Journal, archive: Archive, rng: np.random.Generator) -> Told:
    """What the speed layer says, in steps of random length, with restarts, workers lost and drains in between."""
    told: Told = {}
    first = next(r for r in journal.read(0, journal.tail, -1) if r.kind is Kind.CLOCK and r.clock is not None)
    tick, position = begin_of(first.clock), first.sequence  # type: ignore[arg-type]
    last = max(r.clock.closed for r in journal.read(0, journal.tail, -1) if r.clock is not None)
    while tick < last:
        plan = ReadPlan.of([m.spec for m in small.MEMBERS], small.resolve, small.LAYOUT, small.GRID)
        newest = Newest(plan)
        stop_at = int(rng.integers(position + 1, journal.tail + 1)) if rng.random() < 0.5 else journal.tail
        for part in plan.shards:
            name, at, want = part.save(site / "speed"), position, tick - plan.depth + 1
            while at < stop_at:
                stop = min(stop_at, at + int(rng.integers(1, 12)))
                step = Step(site=str(site), shard=part.shard, start=at, stop=stop, want=want, plan=name)
                newest.add(part.shard, run_step(step))
                at, want = stop, None
                if rng.random() < 0.2:
                    shard._kept.clear()  # the worker was killed
                if rng.random() < 0.2:
                    drain(journal, archive, small.LAYOUT, stop=int(rng.integers(0, journal.tail + 1)))
        while newest.ready(tick):
            end = min(newest.bring_up(tick), tick + int(rng.integers(1, 9)))
            for name, a in cut_all(small.MEMBERS, newest, tick, end).items():
                for i, t in enumerate(a.ticks.tolist()):
                    told[name, t] = int(a.reasons[i]), bool(a.filled[i]), int(a.hashes[i])
            position, tick = newest.position(end - 1), end
    return told


def by_batch(archive: Archive, begin: int, last: int) -> Told:
    """What the batch layer cuts from the archive, all ticks at once."""
    told: Told = {}
    source = Source(folder=archive.folder, snapshot=archive.head().snapshot)
    for member in small.MEMBERS:
        spec = member.spec
        ids = [small.NAMES.index(t.name) for t in spec.base_tags]
        rows = source.block(
            spec.base_tags, ids, small.SECOND, begin - spec.depth + 1, last, ahead=spec.base_ahead
        )  # fmt: skip
        ticks = np.arange(begin, last)[answers_at(spec, np.arange(begin, last))]
        windows = cut(spec, prepare(spec, rows), ticks)
        for i, t in enumerate(ticks.tolist()):
            reason = int(windows.reason[i])
            told[member.name, t] = reason, bool(windows.filled[i]), 0 if reason else int(windows.hash[i])
    return told


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), once=st.booleans(), lateness_s=st.sampled_from([0.0, 2.0]))
def test_windows_are_those_of_the_log(seed: int, once: bool, lateness_s: float) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        journal, archive = small.make_site(site)
        small.append_all(journal, small.readings(rng, 40, once=once), lateness_s)
        expected, final, begin = plainly(journal)
        assert by_steps(site, journal, archive, rng) == expected
        drain(journal, archive, small.LAYOUT)
        assert by_batch(archive, begin, max(t for _, t in final) + 1) == final
        if once:
            # Not the first few: the clock began after what they might have been told about.
            assert expected == final
        assert {reason for reason, _, _ in final.values()} >= {Reason.OK}
        journal.close()


def test_models_that_look_equally_far_ahead_have_one_form() -> None:
    forms = {m.name: form_of(m.spec) for m in small.MEMBERS}
    assert forms["wind"] == forms["twin"]
    assert len(set(forms.values())) == len(forms) - 1


def test_what_lies_ahead_takes_no_room_of_the_other_tags(tmp_path: Path) -> None:
    journal, _ = small.make_site(tmp_path)
    small.append_all(journal, small.readings(np.random.default_rng(1), 20, once=True), 0.0)
    at = np.arange(20, 3000) * small.SECOND
    further = Frame(
        times=at, tags=np.full(len(at), 2, np.int32), values=np.ones(len(at), np.float32),
        quality=np.zeros(len(at), np.uint8),
    )  # fmt: skip
    journal.append([Entry(source="s", source_offset=99, parts=small.LAYOUT.split(further))])
    part = ReadPlan.of([m.spec for m in small.MEMBERS], small.resolve, small.LAYOUT, small.GRID).shards[0]
    run_step(
        Step(site=str(tmp_path), shard=0, start=0, stop=journal.tail, want=None, plan=part.save(tmp_path / "speed"))
    )
    rings = shard._kept[str(tmp_path), 0].ring
    assert rings._far is not None
    assert rings._far.rows(2999, 3000).values[0].tolist() == [1.0]
    assert rings._near._cells.last < 200
    journal.close()


# The past said again.


def trimmed(journal: Journal, archive: Archive) -> None:
    """Nothing of the past is left in the journal."""
    nothing = [Entry(source="quiet", source_offset=i, parts={}, rejected=1) for i in range(2000)]
    tail = journal.tail
    while journal.first < tail:
        journal.append(nothing)
        drain(journal, archive, small.LAYOUT)
        journal.trim(archive.head().position)


def again(folder: Path, past: Past, stretch: Stretch) -> Told:
    """The stretch, laid out as a log of its own and cut from that."""
    journal, archive = small.make_site(folder)
    journal.append(list(lay_out(past, stretch).entries))
    told = by_steps(folder, journal, archive, np.random.default_rng(1))
    journal.close()
    return told


def past_of(journal: Journal, archive: Archive) -> Past:
    late, revised = (late_list(journal.folder, table=table) for table in (LATE, REVISED))
    return Past(archive=archive, journal=journal, layout=small.LAYOUT, late=late, revised=revised)


def stretch_of(closing: dict[int, int], first: int) -> Stretch:
    last = max(closing) + 1
    closes = np.array([closing[t] for t in range(first, last)])
    return Stretch(first=first, last=last, lead=40, ids=small.IDS, closes=closes)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), first=st.integers(10, 40), commits=st.integers(0, 2))
def test_what_the_journal_holds_is_said_again_bit_for_bit(seed: int, first: int, commits: int) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        journal, archive = small.make_site(Path(folder) / "site")
        small.append_all(journal, small.readings(rng, 60, once=False), 1.0)
        for stop in sorted(rng.integers(0, journal.tail + 1, commits).tolist()):
            drain(journal, archive, small.LAYOUT, stop=stop)
        live = by_steps(Path(folder) / "site", journal, archive, rng)
        stretch = stretch_of(closings(journal), first)
        told = again(Path(folder) / "again", past_of(journal, archive), stretch)
        assert told == {key: said for key, said in live.items() if key[1] >= first}
        journal.close()


def test_with_the_journal_gone_the_list_of_revisions_tells_when_a_forecast_came(tmp_path: Path) -> None:
    """PLAN of ticks 60..67 comes when tick 57 has closed, 12 ticks too late for some windows; nothing is replaced."""
    journal, archive = small.make_site(tmp_path / "site")
    groups = small.readings(np.random.default_rng(5), 90, once=True)
    held = [(g.tags == 2) & (g.times >= 60 * small.SECOND) & (g.times < 68 * small.SECOND) for g in groups]
    kept = [g.only(~h) for g, h in zip(groups, held, strict=True)]
    came = next(i for i, g in enumerate(kept) if ((g.tags < 2) & (g.times >= 57 * small.SECOND)).any()) + 1
    missing = [g.only(h) for g, h in zip(groups, held, strict=True) if h.any()]
    small.append_all(journal, [*kept[:came], *missing, *kept[came:]], 0.0)
    live = by_steps(tmp_path / "site", journal, archive, np.random.default_rng(2))
    closing = closings(journal)
    drain(journal, archive, small.LAYOUT)
    trimmed(journal, archive)
    past = past_of(journal, archive)
    assert not past.late
    assert {(r.t0, r.t1) for r in past.revised} <= {(a, b) for a in range(60, 68) for b in range(61, 69)}
    assert sum(r.count for r in past.revised) == 8
    for first in (30, 50, 59, 75):
        told = again(tmp_path / f"again-{first}", past, stretch_of(closing, first))
        assert told == {key: said for key, said in live.items() if key[1] >= first}
    # As it stands the plan was there from the beginning.
    stored = replace(stretch_of(closing, 30), closes=None)
    told = again(tmp_path / "stored", past, stored)
    different = {tick for (name, tick), said in told.items() if live[name, tick] != said}
    assert different
    assert min(different) >= 60 - 12
    assert max(different) < 60
    journal.close()
