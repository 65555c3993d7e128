"""Which late readings may explain a difference, beside a slow obvious model; and that they explain no more."""

from __future__ import annotations

import ahead_site
import numpy as np
import pytest
import small_site
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.grid import PRESENT, Cells
from penstock.data.journal.ledger import LateRange
from penstock.data.quality import assess
from penstock.data.rules import Rules
from penstock.data.scoring import Member
from penstock.data.views.reconciled import Span
from penstock.data.views.speed_view import SaidRows
from penstock.data.windows import Reason, cut, prepare, window_hash
from penstock.reconcile_found import consecutive
from penstock.reconcile_looks import _merged
from penstock.verdicts import Reach, judged, near, same_inputs, touched, touching

TICKS = 120
MEMBERS = [*small_site.MEMBERS, *small_site.JOINED, *ahead_site.MEMBERS]


def late(sequence: int, shard: int, t0: int, length: int) -> LateRange:
    return LateRange(sequence=sequence, shard=shard, t0=t0, t1=t0 + length, count=length, source="import:x")


RANGES = st.lists(
    st.builds(late, st.integers(0, 30), st.integers(0, 1), st.integers(-5, 45), st.integers(1, 6)), max_size=6
)
SAID = st.lists(st.integers(0, 60), unique=True, max_size=20).map(sorted)


@given(RANGES, SAID, st.integers(0, 9), st.integers(0, 4), st.integers(0, 30))
def test_a_range_touches_the_windows_that_read_its_ticks_and_were_said_before(
    ranges: list[LateRange], said: list[int], back: int, onward: int, begin: int
) -> None:
    ticks = np.array(said, np.int64)
    said_at = begin + np.arange(len(ticks)) // 3
    reach = Reach(back=back, onward=onward)

    def reads(r: LateRange, tick: int) -> bool:
        return not set(range(r.t0, r.t1)).isdisjoint(range(tick - back, tick + onward + 1))

    slow = [any(reads(r, t) and r.sequence > at for r in ranges) for t, at in zip(said, said_at.tolist(), strict=True)]
    assert touched(ranges, ticks, reach, said_at).tolist() == slow
    assert touched(ranges, ticks, reach).tolist() == [any(reads(r, t) for r in ranges) for t in said]
    assert set(touching(ranges, ticks, reach)) == {r for r in ranges if any(reads(r, t) for t in said)}
    if said:
        close_by = near(ranges, {0}, said[0], said[-1] + 1, reach)
        mine = [r for r in ranges if r.shard == 0]
        assert touched(close_by, ticks, reach).tolist() == touched(mine, ticks, reach).tolist()


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_no_cell_outside_its_reach_changes_a_window(member: Member) -> None:
    """Every cell is changed in turn: windows that do not read it, by the reach, keep their bits."""
    spec = member.spec
    rules, rng = Rules.of(spec.base_tags, spec.period_ns), np.random.default_rng(3)
    names = list(dict.fromkeys(tag.name for tag in spec.base_tags))
    values = rng.normal(0, 10, (TICKS, len(names))).astype(np.float32)
    values[:, rng.random(len(names)) < 0.3] = 2.0  # so that something stands still

    def windows(values: np.ndarray, there: np.ndarray) -> dict[int, tuple[int, bool, int]]:
        cells = Cells.empty(0, TICKS, len(names))
        cells.values[there], cells.quality[there] = values[there], PRESENT

        def read(at: np.ndarray, first: int, last: int) -> Cells:
            columns = [names.index(spec.base_tags[i].name) for i in at.tolist()]
            rows = cells.rows(first, last)
            return Cells(
                first=first, values=rows.values[:, columns], quality=rows.quality[:, columns],
                offset=rows.offset[:, columns],
            )  # fmt: skip

        end = TICKS - spec.look_ahead
        block = assess(Cells.read_ahead(read, np.array(spec.base_ahead, np.int64), 0, end), rules)
        begin, end = rules.reach, end - rules.wait
        prepared = prepare(spec, type(block)(
            first=begin, tags=spec.base, values=block.values[begin:end], flags=block.flags[begin:end]
        ))  # fmt: skip
        ends = np.arange(begin + spec.depth, end)
        found = cut(spec, prepared, ends)
        x = np.ascontiguousarray(found.take(np.arange(len(ends))))
        hashes = np.where(found.reason == Reason.OK, window_hash(x), 0)
        return dict(zip(ends.tolist(), zip(found.reason, found.filled, hashes, strict=True), strict=True))

    there = rng.random(values.shape) < 0.85
    reach, before, changed = Reach.of(spec), windows(values, there), 0
    for tick in range(41, 80, 7):
        for column in range(len(names)):
            other, gone = values.copy(), there.copy()
            other[tick, column] += 7
            gone[tick, column] ^= tick % 2 == 1
            after = windows(other, gone)
            differ = [t for t in before if before[t] != after[t]]
            changed += len(differ)
            assert all(t - reach.back <= tick <= t + reach.onward for t in differ)
    assert changed, "no cell changes any window"


def said_rows(value: float, *, reason: int = 0, window: int = 7, filled: bool = False) -> SaidRows:
    return SaidRows(
        ticks=np.array([4]), values=np.array([[value]], np.float32), versions=np.array([1], np.int32),
        reasons=np.array([reason], np.uint8), filled=np.array([filled]), hashes=np.array([window], np.uint64),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("live", "verdict"),
    [
        (said_rows(2.0), "equal"),
        (said_rows(2.00001), "close"),
        (said_rows(2.1), "unexplained"),  # from the same window: no late reading explains that
        (said_rows(2.1, window=8), "late"),
        (said_rows(2.0, filled=True), "late"),
        (said_rows(np.nan, reason=Reason.BAD_INPUT, window=0), "late"),
        (said_rows(np.nan, reason=Reason.NO_ANSWER), "no_answer_live"),
        (said_rows(np.nan, reason=Reason.NO_ANSWER, window=8), "late"),
        (said_rows(np.nan, reason=Reason.OVERLOAD, window=0), "passed_over_live"),
    ],
)
def test_late_readings_explain_other_inputs_and_no_other_answer(live: SaidRows, verdict: str) -> None:
    again = said_rows(2.0)
    may = np.array([True]) & ~same_inputs(again, live)
    assert judged(again, live, np.array([5.0], np.float32), may).tolist() == [verdict]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
def test_merged_spans_hold_the_same_ticks_once(spans: list[Span]) -> None:
    merged = _merged(spans)
    ticks = [t for first, end in merged for t in range(first, end)]
    assert ticks == sorted({t for first, end in spans for t in range(first, end)})
    runs = consecutive(np.array(ticks, np.int64))
    assert [t for run in runs for t in run.tolist()] == ticks
    assert all(run[-1] - run[0] == len(run) - 1 for run in runs)
