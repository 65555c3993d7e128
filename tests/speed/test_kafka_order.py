"""Messages of several partitions come out in the order of their times, whatever order they came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.speed.sources.kafka_order import STALLED_S, Order

SLICE_MS = 10
FULL = 1000
Event = tuple[int, int]
"""(partition, time)"""


@st.composite
def logs(draw: st.DrawFn) -> list[list[int]]:
    """Times of each partition's messages: rising, but for some that are a little older than the one before."""
    many = st.lists(st.integers(0, 500), max_size=30)
    return [sorted(times) for times in draw(st.lists(many, min_size=1, max_size=4))]


@given(logs=logs(), data=st.data())
def test_nothing_comes_out_that_is_much_older_than_what_came_out_before(
    logs: list[list[int]], data: st.DataObject
) -> None:
    """Whatever partition is read next, and whenever it is asked."""
    order: Order[int, Event] = Order(SLICE_MS, FULL)
    for part in range(len(logs)):
        order.add(part, 0.0)
    at, out = [0] * len(logs), []
    while any(at[p] < len(log) for p, log in enumerate(logs)):
        part = data.draw(st.sampled_from([p for p, log in enumerate(logs) if at[p] < len(log)]))
        for _ in range(data.draw(st.integers(1, 5))):
            if at[part] < len(logs[part]):
                order.put(part, logs[part][at[part]], 1, (part, logs[part][at[part]]), 0.0)
                at[part] += 1
        for p, log in enumerate(logs):
            order.tell(p, more=at[p] < len(log))
        if data.draw(st.booleans()):
            out += _all(order)
    out += _all(order)
    assert sorted(out) == sorted((p, t) for p, log in enumerate(logs) for t in log)
    for p, log in enumerate(logs):
        assert [t for part, t in out if part == p] == log
    newest = 0
    for _, t in out:
        assert t >= newest - 2 * SLICE_MS
        newest = max(newest, t)


def _all(order: Order[int, Event]) -> list[Event]:
    found = []
    while taken := order.take(0.0):
        found += [message for messages in taken.values() for message in messages]
    return found


def two() -> Order[str, int]:
    order: Order[str, int] = Order(SLICE_MS, FULL)
    order.add("P0", 0.0)
    order.add("P1", 0.0)
    return order


def test_who_is_ahead_waits_for_who_has_more() -> None:
    order = two()
    order.put("P0", 5000, 600, 5000, 0.0)
    assert order.take(0.0) == {}  # of P1 nothing is known yet
    order.put("P1", 1000, 600, 1000, 0.0)
    assert order.take(0.0) == {"P1": [1000]}
    assert order.take(0.0) == {}  # it has more, older than 5000
    assert order.waiting() == {"P0"}
    assert not order.full
    order.tell("P1", more=False)
    assert order.take(0.0) == {"P0": [5000]}
    assert order.waiting() == set()


def test_who_has_read_all_lets_nobody_wait() -> None:
    order = two()
    order.tell("P1", more=False)
    order.put("P0", 5000, 1, 5000, 0.0)
    assert order.take(0.0) == {"P0": [5000]}


def test_who_brings_nothing_for_long_holds_nobody_any_more() -> None:
    order = two()
    order.put("P0", 5000, FULL, 5000, 0.0)
    assert order.full
    assert order.take(STALLED_S - 0.1) == {}
    assert order.take(STALLED_S) == {"P0": [5000]}
    assert not order.full
