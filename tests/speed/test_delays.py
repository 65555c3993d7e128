"""Percentiles from classes, beside numpy's from the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.speed.delays import Delays


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
