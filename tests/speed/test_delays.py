"""Percentiles from classes, beside numpy's from the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.speed.delays import CLOSES, Closes, Delays


def test_nothing_seen_is_nothing_told() -> None:
    assert Delays().told() == {"count": 0, "p50": None, "p99": None}


@given(st.lists(st.tuples(st.floats(0.02, 1e5), st.integers(1, 200)), min_size=1, max_size=60))
def test_percentiles_are_right_within_a_class(seen: list[tuple[float, int]]) -> None:
    delays = Delays()
    for ms, ticks in seen:
        delays.see(ms, ticks)
    values = np.repeat([ms for ms, _ in seen], [ticks for _, ticks in seen])
    told = delays.told()
    assert told["count"] == len(values)
    for key, share in (("p50", 50), ("p99", 99)):
        exact = np.percentile(values, share, method="inverted_cdf")
        assert told[key] == pytest.approx(exact, rel=0.011, abs=0.001)  # type: ignore[literal-required]


def test_the_shortest_and_the_longest_have_a_class_too() -> None:
    delays = Delays()
    delays.see(0.0, 1)
    delays.see(1e12, 1)
    assert delays.told()["count"] == 2


def test_a_tick_waits_from_its_close_until_it_is_said() -> None:
    closes = Closes()
    closes.close(5, 10.0)  # ticks below were closed by somebody else, who knows when
    closes.close(6, 20.0)
    closes.close(6, 20.5)
    closes.close(8, 30.0)
    for tick, now_s in ((4, 30.1), (5, 30.1), (6, 30.2), (7, 30.4), (8, 99.0)):
        closes.say(tick, now_s)
    told = closes.delays.told()
    assert told["count"] == 3
    assert told["p50"] == pytest.approx(400, rel=0.011)
    assert told["p99"] == pytest.approx(10100, rel=0.011)


def test_closes_of_which_nothing_is_said_do_not_pile_up() -> None:
    closes = Closes()
    for tick in range(CLOSES + 10):
        closes.close(tick, float(tick))
    for tick in range(CLOSES + 10):
        closes.say(tick, 1e4)
    assert closes.delays.told()["count"] == CLOSES
