"""Sums of numbers that come out the same in any order and grouping: two float64 instead of one.

A sum is high + low, high being the whole sum rounded to float64 and low what that leaves: some 106 bits. Where all
that is added are multiples of one unit and the sum of their magnitudes stays below 2^104 of it, nothing is ever lost
and the pair is the one that any order gives. For n float32 this holds while n * largest / smallest magnitude (of
those that are not 0) is below 2^80, about 1e24; for the sum of their squares while n * (largest / smallest)^2 is
below 2^56. Beyond that the last bits of 106 are rounded, as those of 53 are in an ordinary sum.

Every function takes numbers or arrays, and has no branch: numpy and machine code compute the same bits with it.
The formulas are Knuth's (two_sum) and Dekker's (fast_two_sum, product).
"""

from __future__ import annotations

from typing import Any

SPLIT = 134217729.0
"""2^27 + 1: cuts a float64 into two halves whose products are exact."""


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b rounded, and exactly what the rounding left out."""
    whole = a + b
    of_b = whole - a
    return whole, (a - (whole - of_b)) + (b - of_b)


def fast_two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """`two_sum` where a is 0 or not smaller than b in magnitude."""
    whole = a + b
    return whole, b - (whole - a)


def added(high: Any, low: Any, number: Any) -> tuple[Any, Any]:
    """The sum with one number more."""
    whole, rest = two_sum(high, number)
    return fast_two_sum(whole, rest + low)


def moved(high: Any, low: Any, number: Any, gone: Any) -> tuple[Any, Any]:
    """The sum with one number more and one less."""
    whole, rest = two_sum(high, number)
    whole, other = two_sum(whole, -gone)
    return two_sum(whole, (rest + other) + low)


def joined(high: Any, low: Any, other_high: Any, other_low: Any) -> tuple[Any, Any]:
    """The sum of two sums."""
    whole, rest = two_sum(high, other_high)
    small, least = two_sum(low, other_low)
    whole, rest = fast_two_sum(whole, rest + small)
    return fast_two_sum(whole, rest + least)


def product(a: Any, b: Any) -> tuple[Any, Any]:
    """a * b rounded, and exactly what the rounding left out; magnitudes below 1e140, products above 1e-280."""
    whole = a * b
    left, right = a * SPLIT, b * SPLIT
    a1, b1 = left - (left - a), right - (right - b)
    a2, b2 = a - a1, b - b1
    return whole, a2 * b2 - (((whole - a1 * b1) - a2 * b1) - a1 * b2)


def spread(count: Any, high: Any, low: Any, squares: Any, squares_low: Any) -> Any:
    """count^2 times the variance (ddof 0) of numbers of this sum and this sum of squares; by rounding perhaps below 0.

    The two products that are nearly equal are taken with all their bits, so a level of 1e6 costs no digit of 1e-3.
    """
    of_squares, rest_of_squares = product(squares, count)
    of_sum, rest_of_sum = product(high, high)
    rest_of_squares = rest_of_squares + squares_low * count
    rest_of_sum = rest_of_sum + 2.0 * (high * low)
    apart, rest = two_sum(of_squares, -of_sum)
    return apart + (rest + (rest_of_squares - rest_of_sum))
