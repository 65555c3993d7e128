"""Coarsening keeps every extreme, in the order in which it came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.serving.buckets import any_in, bucket_ticks, extremes

NUMBERS = st.lists(st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=60)


def test_the_docstrings_example() -> None:
    values = np.array([3, 1, 2, 5, np.nan, 9, np.nan, np.nan, np.nan], np.float32)
    positions, kept = extremes(values, 3)
    assert positions.tolist() == [0, 1, 3, 5, 6, 6]
    np.testing.assert_array_equal(kept, np.array([3, 1, 5, 9, np.nan, np.nan], np.float32))


@given(NUMBERS, st.integers(1, 20))
def test_each_bucket_keeps_its_smallest_and_largest(numbers: list[float], size: int) -> None:
    values = np.array(numbers, np.float32)
    positions, kept = extremes(values, size)
    assert (np.diff(positions) >= 0).all()
    for k, start in enumerate(range(0, len(values), size)):
        finite = [v for v in values[start : start + size] if np.isfinite(v)]
        pair = kept[2 * k : 2 * k + 2]
        if finite:
            assert (pair.min(), pair.max()) == (min(finite), max(finite))
        else:
            assert np.isnan(pair).all()


@given(st.integers(1, 10**9), st.integers(1, 5000))
def test_there_are_never_more_buckets_than_asked(ticks: int, buckets: int) -> None:
    assert -(-ticks // bucket_ticks(ticks, buckets)) <= buckets


@pytest.mark.parametrize(("marks", "size", "begins"), [("..x..x", 2, [2, 4]), ("xxxx", 4, [0]), ("....", 2, [])])
def test_a_mark_marks_its_bucket(marks: str, size: int, begins: list[int]) -> None:
    assert any_in(np.array([m == "x" for m in marks]), size).tolist() == begins
