"""Sliding statistics: each answer is that of its own rows, computed exactly, wherever they began."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.data import machine_code
from penstock.data.sliding import Slid, Sliding

compiled = pytest.mark.skipif(not machine_code.available(), reason="numba is not installed (penstock[site])")
TAGS = 3
LEVELS = [0.0, -0.0, 1.0, 1.0000001, -2.5, 1e-3, 273.15, 1e6, 1e6 + 0.125, float("nan"), float("inf")]
WILD = [3e38, -1e30, 1e20, 1e-30]
FIELDS = ("count", "mean", "low", "high", "std")


def rows_of(numbers: list[float]) -> st.SearchStrategy[NDArray[np.float32]]:
    row = st.lists(st.sampled_from(numbers), min_size=TAGS, max_size=TAGS)
    return st.lists(row, min_size=1, max_size=25).map(lambda rows: np.array(rows, np.float32))


def model(rows: NDArray[np.float32], window: int, row: int) -> tuple[list[float], ...]:
    """(count, mean, low, high, std) per tag of the window that ends with `row`, in exact fractions."""
    told: list[tuple[float, ...]] = []
    for column in rows[max(0, row - window + 1) : row + 1].T:
        read = [Fraction(float(x)) for x in column if math.isfinite(x)]
        if not read:
            told.append((0, *[math.nan] * 4))
            continue
        mean = sum(read) / len(read)
        variance = sum((x - mean) ** 2 for x in read) / len(read)
        told.append((len(read), float(sum(read)) / len(read), float(min(read)), float(max(read)), math.sqrt(variance)))
    return tuple(map(list, zip(*told, strict=True)))


def pushed(sliding: Sliding, rows: NDArray[np.float32], cuts: list[int]) -> list[Slid]:
    bounds = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    return [sliding.push(rows[a:b]) for a, b in pairwise(bounds) if b > a]


def raw(slid: list[Slid]) -> list[bytes]:
    return [np.concatenate([getattr(s, name) for s in slid]).tobytes() for name in FIELDS]


@given(rows_of(LEVELS), st.integers(1, 8), st.integers(1, 3), st.lists(st.integers(0, 25), max_size=3))
@settings(max_examples=120, deadline=None)
def test_every_answer_is_that_of_its_rows(rows: NDArray[np.float32], window: int, stride: int, cuts: list[int]) -> None:
    said = pushed(Sliding(window, TAGS, stride=stride, compiled=False), rows, cuts)
    ends = np.concatenate([s.rows for s in said]).tolist()
    assert ends == [row for row in range(len(rows)) if row % stride == 0]
    for name, column in zip(FIELDS, zip(*(model(rows, window, row) for row in ends), strict=True), strict=True):
        got = np.concatenate([getattr(s, name) for s in said])
        if name == "std":
            np.testing.assert_allclose(got, np.array(column), rtol=1e-12, atol=0)
        else:
            np.testing.assert_array_equal(got, np.array(column))


@given(rows_of(LEVELS + WILD), rows_of(LEVELS), st.integers(1, 6), st.lists(st.integers(0, 25), max_size=3))
@settings(max_examples=80, deadline=None)
def test_what_has_left_the_window_leaves_no_trace(
    before: NDArray[np.float32], rows: NDArray[np.float32], window: int, cuts: list[int]
) -> None:
    """Readings of 1e38 before: from the row on at which they have left, the bits are those of a beginning."""
    late, fresh = Sliding(window, TAGS, compiled=False), Sliding(window, TAGS, compiled=False)
    late.push(before)
    after, alone = raw_rows(pushed(late, rows, cuts)), raw_rows([fresh.push(rows)])
    assert after[window - 1 :] == alone[window - 1 :]


def raw_rows(slid: list[Slid]) -> list[bytes]:
    columns = [np.concatenate([getattr(s, name) for s in slid]) for name in FIELDS]
    return [b"".join(column[i].tobytes() for column in columns) for i in range(len(columns[0]))]


@compiled
@pytest.mark.parametrize("numbers", [LEVELS, LEVELS + WILD], ids=["levels", "wild"])
def test_machine_code_says_the_same_bits(numbers: list[float]) -> None:
    """More tags than a tile, on two threads, in blocks of any length; fewer and more rows than the window."""
    random, tags, window = np.random.default_rng(7), 2100, 7
    rows = random.choice(np.array(numbers, np.float32), (40, tags))
    rows[:, ::2] = random.normal(1e5, 1, (40, tags // 2)).astype(np.float32)
    cuts = [1, 2, 5, 8, 30]
    numpy_says = raw(pushed(Sliding(window, tags, stride=2, compiled=False), rows, []))
    assert raw(pushed(Sliding(window, tags, stride=2, compiled=True, threads=2), rows, cuts)) == numpy_says
    assert raw(pushed(Sliding(window, tags, stride=2, compiled=True), rows, cuts[:2])) == numpy_says


def test_answers_may_be_laid_into_former_ones() -> None:
    rows, sliding = np.ones((4, TAGS), np.float32), Sliding(2, TAGS, dtype="float32", compiled=False)
    first = sliding.push(rows)
    second = sliding.push(rows * 3, into=first)
    assert second.mean is first.mean
    assert second.mean[-1].tolist() == [3.0] * TAGS
    assert second.rows.tolist() == [4, 5, 6, 7]


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Sliding(0, TAGS)
    with pytest.raises(ValueError, match=r"\[rows, 3\]"):
        Sliding(2, TAGS).push(np.zeros((1, 2), np.float32))
