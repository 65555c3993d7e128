"""Summaries join with `+`, exactly, and say what the readings say."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.data.frame import BAD, GOOD, UNCERTAIN
from penstock.data.grid import PRESENT, Cells
from penstock.data.summary import Summary

NEAR = [0.0, -0.0, 1.0, 0.1, -2.5, 273.15, 1e6, 1e6 + 0.125]
"""12 (largest / smallest)^2 < 2^51: within the bound of `exact_sums` for squares."""
NUMBERS = [*NEAR, 1e-3, -7e7]
"""Within that of sums: 12 * largest / smallest < 2^40."""
UNFIT = [float("nan"), float("inf"), 2e8]
QUALITY = [0, PRESENT, PRESENT | GOOD, PRESENT | UNCERTAIN, PRESENT | BAD]
LOW, HIGH = np.array([-1e8, -1e8]), np.array([1e8, 1e8])
"""Ranges of the two tags."""


@st.composite
def cells(draw: st.DrawFn, dtype: str = "float32", numbers: tuple[float, ...] = tuple(NUMBERS)) -> Cells:
    """Up to 12 rows of two tags; some cells empty, bad or out of range."""
    k = draw(st.integers(0, 12))

    def column(of: list[float] | list[int]) -> list[float]:
        return draw(st.lists(st.sampled_from(of), min_size=2 * k, max_size=2 * k))

    return Cells(
        first=0,
        values=np.array(column([*numbers, *UNFIT]), dtype).reshape(k, 2),
        quality=np.array(column(QUALITY), np.uint16).reshape(k, 2),
        offset=np.zeros((k, 2), np.uint32),
    )  # fmt: skip


def read_of(block: Cells, tag: int) -> list[Fraction]:
    """The readings that count, exactly: the slow, obvious choice."""
    column = zip(block.values[:, tag].tolist(), block.quality[:, tag].tolist(), strict=True)
    return [Fraction(v) for v, q in column if q & PRESENT and q & 0xFF < BAD and math.isfinite(v) and abs(v) <= 1e8]


def raw(summary: Summary) -> list[bytes]:
    return [array.tobytes() for array in summary.columns().values()]


def raw_sums(summary: Summary) -> list[bytes]:
    return [array.tobytes() for name, array in summary.columns().items() if "squares" not in name]


def rows(block: Cells, at: NDArray[np.intp] | slice) -> Cells:
    return Cells(first=0, values=block.values[at], quality=block.quality[at], offset=block.offset[at])


@given(st.sampled_from(["float32", "float64"]).flatmap(cells))
@settings(max_examples=150, deadline=None)
def test_a_summary_says_what_the_readings_say(block: Cells) -> None:
    told = Summary.of(block, LOW, HIGH)
    for tag in range(2):
        read = read_of(block, tag)
        assert told.count[tag] == len(read)
        if not read:
            assert math.isnan(told.mean[tag])
            assert math.isnan(told.std[tag])
            continue
        mean = sum(read) / len(read)
        assert told.total[tag] == float(sum(read)), "rounded once"
        assert Fraction(told.total[tag]) + Fraction(told.total_rest[tag]) == sum(read)
        assert (told.low[tag], told.high[tag]) == (float(min(read)), float(max(read)))
        std = math.sqrt(sum((x - mean) ** 2 for x in read) / len(read))
        assert math.isclose(told.std[tag], std, rel_tol=1e-12)


CUTS, RANDOMS = st.lists(st.integers(0, 12), max_size=4), st.randoms(use_true_random=False)


@given(cells(numbers=tuple(NEAR)), CUTS, RANDOMS)
@settings(max_examples=150, deadline=None)
def test_any_order_and_grouping_gives_the_same_bits(block: Cells, cuts: list[int], random: object) -> None:
    whole = raw(Summary.of(block, LOW, HIGH))
    for other in regrouped(block, cuts, random):
        assert raw(other) == whole


@given(cells(), CUTS, RANDOMS)
@settings(max_examples=150, deadline=None)
def test_sums_are_exact_and_std_is_within_1e_12_where_squares_are_not(
    block: Cells, cuts: list[int], random: object
) -> None:
    """A period that holds both 1e-3 and 7e7 has squares of more than 106 bits."""
    whole = Summary.of(block, LOW, HIGH)
    for other in regrouped(block, cuts, random):
        assert raw_sums(other) == raw_sums(whole)
        np.testing.assert_allclose(other.std, whole.std, rtol=1e-12)


def regrouped(block: Cells, cuts: list[int], random: object) -> tuple[Summary, Summary]:
    """The summary of parts of the block in some order, added up from the left and from the right."""
    order = list(range(len(block.values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    parts = np.split(np.array(order, np.intp), sorted(min(cut, len(order)) for cut in cuts))
    summaries = [Summary.of(rows(block, part), LOW, HIGH) for part in parts]
    left = reduce(Summary.__add__, summaries, Summary.empty(2))
    right = reduce(lambda a, b: b + a, reversed(summaries), Summary.empty(2))
    return left, right


@given(st.lists(st.tuples(*[st.floats(width=32, min_value=2**-20, max_value=2**20)] * 1), min_size=1, max_size=200))
@settings(max_examples=60, deadline=None)
def test_within_the_bound_nothing_is_lost(numbers: list[tuple[float]]) -> None:
    """n (largest / smallest)^2 < 2^8 * 2^80: beyond the bound of squares, well within that of sums."""
    values = np.array(numbers, np.float32)
    block = Cells(first=0, values=values, quality=np.full(values.shape, PRESENT, np.uint16),
                  offset=np.zeros(values.shape, np.uint32))  # fmt: skip
    told = Summary.of(block, np.array([-np.inf]), np.array([np.inf]))
    assert Fraction(told.total[0]) + Fraction(told.total_rest[0]) == sum(Fraction(float(v)) for v in values[:, 0])


def test_minutes_make_hours() -> None:
    random = np.random.default_rng(0)
    values = random.normal(1e6, 1e-1, (120, 2)).astype(np.float32)
    block = Cells(first=0, values=values, quality=np.full(values.shape, PRESENT, np.uint16),
                  offset=np.zeros(values.shape, np.uint32))  # fmt: skip
    minutes = [Summary.of(rows(block, slice(a, a + 10)), LOW, HIGH) for a in range(0, 120, 10)]
    stacked = Summary(**{name: np.stack([m.columns()[name] for m in minutes]) for name in minutes[0].columns()})
    hours = [Summary.of(rows(block, slice(a, a + 60)), LOW, HIGH) for a in (0, 60)]
    assert raw(stacked.joined(6)) == [
        np.stack([h.columns()[name] for h in hours]).tobytes() for name in hours[0].columns()
    ]
