"""How far all variables were delivered, and history in order of time: beside slow obvious models, without a server."""

from __future__ import annotations

import numpy as np
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from penstock.speed.opcua.history import Merge
from penstock.speed.opcua.marks import NOTHING, QUIET_S, REACH_NS, UNKNOWN, Marks

LATEST = 10**12
SLACK = 7
NAMES = ("a", "b", "c", "d")

# Who speaks next, and how much later than before: a variable's own times only rise.
SAID = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=60)


def readings(said: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(variable, time), in the order in which they come."""
    at = [100, 140, 90, 120]
    found = []
    for variable, later in said:
        at[variable] += later
        found.append((variable, at[variable]))
    return found


def see(marks: Marks, rows: np.ndarray, batch: list[tuple[int, int]], now_s: float) -> None:
    marks.see(rows[[v for v, _ in batch]], np.array([t for _, t in batch], np.int64), now_s)


@given(SAID, st.data())
def test_after_a_kill_history_begins_before_whatever_was_not_delivered(
    said: list[tuple[int, int]], data: st.DataObject
) -> None:
    marks = Marks(None, SLACK)
    rows = marks.connect(NAMES, 0.0)
    marks.filled(0.0)
    coming = readings([(v, 0) for v in range(4)] + said)
    killed = data.draw(st.integers(4, len(coming)))
    see(marks, rows, coming[:4], 1.0)
    offset = marks.offset(1.0, LATEST)
    while killed > 4:
        cut = data.draw(st.integers(1, killed - 4))
        see(marks, rows, coming[4 : 4 + cut], 2.0)
        offset = marks.offset(2.0, LATEST)
        del coming[4 : 4 + cut]
        killed -= cut
    after = Marks(offset, SLACK)
    after.connect(NAMES, 0.0)
    since = after.since()
    assert all(time >= since[variable] for variable, time in coming[4:])


@given(SAID, st.integers(0, 400), st.integers(0, 3))
def test_a_kill_while_history_is_read_costs_none_of_it(said: list[tuple[int, int]], begin: int, unread: int) -> None:
    marks = Marks(begin, SLACK)
    rows = marks.connect(NAMES, 0.0)
    see(marks, rows, [(v, t) for v, t in readings(said) if v != unread and t >= begin], 10 * QUIET_S)
    again = Marks(marks.offset(10 * QUIET_S, LATEST), SLACK)
    again.connect(NAMES, 0.0)
    assert again.since()[unread] <= begin - SLACK


def test_who_is_quiet_is_not_waited_for_nor_who_is_wrong_about_the_time() -> None:
    marks = Marks(None, 0)
    rows = marks.connect(NAMES, 0.0)
    marks.filled(0.0)
    see(marks, rows, [(0, REACH_NS), (1, 5), (2, 2 * REACH_NS), (3, LATEST * 100)], 1.0)
    assert marks.offset(1.0, 10 * REACH_NS) == REACH_NS  # 1 is too far behind, 3 in the future
    see(marks, rows, [(2, 2 * REACH_NS + 1)], 2 * QUIET_S)
    assert marks.offset(2 * QUIET_S, 10 * REACH_NS) == 2 * REACH_NS + 1  # 0 says nothing any more


def test_a_variable_that_never_had_a_value_has_all_its_history_before_it() -> None:
    marks = Marks(None, 0)
    rows = marks.connect(NAMES[:2], 0.0)
    assert marks.since().tolist() == [UNKNOWN, UNKNOWN]  # the first contact: it begins now
    marks.silent(rows[:1])
    see(marks, rows, [(1, 50)], 1.0)
    marks.connect(NAMES[:2], 2.0)
    assert marks.since().tolist() == [NOTHING, 50]


@given(st.lists(st.lists(st.integers(0, 30), max_size=25).map(sorted), min_size=1, max_size=4), st.data())
def test_history_comes_in_order_and_all_of_it(times: list[list[int]], data: st.DataObject) -> None:
    merge, left = Merge(dict.fromkeys(range(len(times)), 0)), [list(own) for own in times]
    found: list[tuple[int, int]] = []
    while wanted := merge.wanted():
        for at in data.draw(st.lists(st.sampled_from(sorted(wanted)), min_size=1, unique=True)):
            size = data.draw(st.integers(1, 8))
            chunk, left[at] = left[at][:size], left[at][size:]
            merge.add(at, [(time, ua.DataValue()) for time in chunk], more=bool(left[at]))
        part = [(time, at) for time, at, _ in merge.take()]
        assert not found or not part or part[0][0] >= found[-1][0]
        assert part == sorted(part)
        found += part
    assert sorted(found) == sorted((time, at) for at, own in enumerate(times) for time in own)
