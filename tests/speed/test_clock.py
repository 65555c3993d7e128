"""The clock, told as numbered tables: what arrives, and which ticks close.

Ticks are 10 ns long from 0; a decision `-> 3` says that ticks 0, 1 and 2 are closed.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.frame import Dense, Frame
from penstock.data.grid import Grid
from penstock.speed.clock import Clock, SourceClock, begin_of, quarantine, span_of

GRID = Grid(period_ns=10)
Line = tuple[str, str, int, int, int | None, str]
"""(what, source, newest event time, arrival, closed or None: no decision, reason)"""

ONE_SOURCE: list[Line] = [
    # what      source newest arrival closed
    ("readings", "a", 24, 0, 2, "watermark"),  #  1. ticks 0 and 1 lie behind 24
    ("readings", "a", 29, 1, None, ""),  #        2. still inside tick 2
    ("readings", "a", 30, 2, 3, "watermark"),  #  3. 30 is the end of tick 2
    ("readings", "a", 5, 3, None, ""),  #         4. a late reading turns nothing back
    ("readings", "a", 71, 4, 7, "watermark"),  #  5. a gap closes all its ticks at once
    ("end", "a", 0, 5, 8, "end"),  #              6. tick 7 held the last reading
    ("readings", "a", 79, 6, None, ""),  #        7. it goes on after all
    ("readings", "a", 95, 7, 9, "watermark"),
]
TWO_SOURCES: list[Line] = [
    ("readings", "a", 55, 0, None, ""),  #        1. b has said nothing yet: everything waits
    ("readings", "b", 20, 1, 2, "watermark"),  #  2. the slower one decides
    ("readings", "b", 90, 2, 5, "watermark"),  #  3. now a is the slower one
    ("readings", "import:x", 500, 3, None, ""),  # 4. imports take no part
    ("wait", "", 0, 40, None, ""),  #             5. nobody has been silent for 50 yet
    ("readings", "b", 100, 45, None, ""),
    ("wait", "", 0, 50, 10, "idle"),  #           6. a has: b alone decides
    ("readings", "a", 60, 51, None, ""),  #       7. a is back, and late
    ("readings", "b", 130, 52, None, ""),  #      8. and holds the watermark again
    ("readings", "a", 140, 53, 13, "watermark"),
    ("wait", "", 0, 200, 14, "idle"),  #          9. all silent: the furthest mark stands
]
NEVER_HEARD: list[Line] = [
    ("wait", "", 0, 0, None, ""),
    ("readings", "b", 35, 10, None, ""),  #       1. a might still come
    ("wait", "", 0, 49, None, ""),
    ("wait", "", 0, 50, 3, "idle"),  #            2. its silence counts from the first look
]


def play(clock: Clock, lines: list[Line]) -> list[tuple[int | None, str]]:
    said = []
    for what, source, newest, arrival, *_ in lines:
        match what:
            case "readings":
                decision = clock.observe(source, newest, arrival)
            case "wait":
                decision = clock.wait(arrival)
            case _:
                decision = clock.end(source)
        said.append((None, "") if decision is None else (decision.closed, decision.reason))
    return said


def clock(**sources: SourceClock) -> Clock:
    return Clock(GRID, sources)


@pytest.mark.parametrize(
    ("lines", "sources"),
    [
        (ONE_SOURCE, {"a": SourceClock()}),
        (TWO_SOURCES, {"a": SourceClock(idle_ns=50), "b": SourceClock(idle_ns=50)}),
        (NEVER_HEARD, {"a": SourceClock(idle_ns=50), "b": SourceClock(idle_ns=50)}),
    ],
    ids=["one source", "two sources", "never heard"],
)
def test_stories(lines: list[Line], sources: dict[str, SourceClock]) -> None:
    assert play(clock(**sources), lines) == [line[4:] for line in lines]


def test_lateness_holds_ticks_open() -> None:
    late = clock(a=SourceClock(lateness_ns=25))
    assert play(late, [("readings", "a", t, 0, None, "") for t in (20, 34, 35, 45)]) == [
        (-1, "watermark"), (0, "watermark"), (1, "watermark"), (2, "watermark"),
    ]  # fmt: skip


def test_the_first_decision_says_where_the_story_begins() -> None:
    two = clock(a=SourceClock(lateness_ns=20))
    assert two.observe("a", 1000, 0, 995) is not None
    late = clock(a=SourceClock(), b=SourceClock())
    assert late.observe("a", 55, 0, 32) is None
    restarted = clock(a=SourceClock(), b=SourceClock())
    restarted.note("a", 55, 32)  # nothing was decided: the row alone remembers it
    for one in (late, restarted):
        decision = one.observe("b", 60, 0)
        assert decision is not None
        assert (begin_of(decision), decision.closed) == (3, 5)
        later = one.observe("a", 90, 0, 10)
        assert later is not None
        assert begin_of(later) == 3


def test_a_stale_first_reading_opens_no_year() -> None:
    decision = clock(a=SourceClock()).observe("a", 10**9, 0, 5)
    assert decision is not None
    assert decision.closed - begin_of(decision) == 1024


times = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300)), min_size=1, max_size=40)


@given(times, st.integers(0, 30), st.data())
def test_a_restart_decides_nothing_anew(log: list[tuple[str, int]], lateness: int, data: st.DataObject) -> None:
    """Restarted at any row from the newest decision and the rows behind it, the decisions are the same."""
    rules = {"a": SourceClock(lateness_ns=lateness), "b": SourceClock()}
    cut = data.draw(st.integers(0, len(log)))
    straight = Clock(GRID, rules)
    expected = [straight.observe(s, t, 0) for s, t in log]
    state, since = None, 0
    for row, decision in enumerate(expected[:cut]):
        if decision is not None:
            state, since = json.loads(json.dumps(decision.state)), row + 1
    restarted = Clock(GRID, rules)
    if state is not None:
        restarted.resume(state)
    for source, time in log[since:cut]:
        restarted.note(source, time)
    assert [restarted.observe(s, t, 0) for s, t in log[cut:]] == expected[cut:]


@given(times, st.data())
def test_grouping_changes_no_final_close(log: list[tuple[str, int]], data: st.DataObject) -> None:
    """Readings that arrive together close, in the end, what they close one by one; closes never go back."""
    rules = {"a": SourceClock(), "b": SourceClock(lateness_ns=7)}
    single, grouped = Clock(GRID, rules), Clock(GRID, rules)
    closes = [d.closed for s, t in log if (d := single.observe(s, t, 0)) is not None]
    at = 0
    while at < len(log):
        size = data.draw(st.integers(1, 5))
        for source in "ab":
            group = [t for s, t in log[at : at + size] if s == source]
            if group:
                grouped.observe(source, max(group), 0)
        at += size
    assert grouped.closed == single.closed
    assert closes == sorted(set(closes))


def frame(*seconds: int) -> Frame:
    n = len(seconds)
    return Frame(
        times=np.array(seconds, np.int64),
        tags=np.zeros(n, np.int32),
        values=np.ones(n, np.float32),
        quality=np.zeros(n, np.uint8),
    )


def test_quarantine_keeps_the_future_out() -> None:
    kept, away = quarantine(frame(1, 99, 3, 11), 10)
    assert (kept.times.tolist(), away) == ([1, 3], 2)
    assert span_of(kept) == (1, 3)
    kept, away = quarantine(frame(1, 99), None)
    assert (len(kept), away) == (2, 0)


def test_an_empty_row_is_no_news() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan]], np.float32)
    dense = Dense(
        times=np.array([5, 9]), tags=np.arange(2, dtype=np.int32), values=values, quality=np.zeros((2, 2), np.uint8)
    )
    assert span_of(dense) == (5, 5)
    kept, away = quarantine(dense, 4)
    assert (len(kept), away, span_of(kept)) == (0, 1, None)
