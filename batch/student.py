"""Student's t distribution: the share of it above a value. Pure arithmetic; nothing else of statistics is needed."""

from __future__ import annotations

import math

_MOST = 10_000
_ENOUGH = 1e-15
_TINY = 1e-300


def share_above(value: float, freedom: float) -> float:
    """P(t > value) with `freedom` > 0 degrees of freedom, not necessarily whole; relative error below 1e-10.

    By the regularised incomplete beta function: Abramowitz and Stegun (1964), 26.5.27 and 26.5.8.
    """
    if math.isnan(value):
        return math.nan
    half = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + value * value))
    return half if value >= 0 else 1.0 - half


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b); the continued fraction converges quickly on the near side of the mean, the far one is mirrored."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction, by Lentz's method."""
    c, d = 1.0, _away(1.0 - (a + b) * x / (a + 1.0))
    d = 1.0 / d
    value = d
    for m in range(1, _MOST):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away(1.0 + step * d)
            c = _away(1.0 + step / c)
            value *= d * c
        if abs(d * c - 1.0) < _ENOUGH:
            break
    return value


def _away(value: float) -> float:
    """`value`, kept away from 0."""
    return value if abs(value) > _TINY else _TINY
