"""The expression language: what it computes, and what it says of what it cannot read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.expressions import evaluate, names
from penstock.errors import ExpressionError

COLUMNS = {"A": np.array([1.0, 4.0, -2.0, np.nan]), "B": np.array([2.0, 0.0, 3.0, 1.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A + 2 * B", [5.0, 4.0, 4.0, math.nan]),
        ("-A ** 2", [-1.0, -16.0, -4.0, math.nan]),
        ("A / B", [0.5, math.nan, -2 / 3, math.nan]),
        ("0 < A <= 4", [1, 1, 0, 0]),
        ("A != 1", [0, 1, 1, 0]),
        ("not (A > 0) or B == 2", [1, 0, 1, 1]),
        ("A > 0 and B", [1, 0, 0, 0]),
        ("max(abs(A), B, 3)", [3, 4, 3, math.nan]),
        ("min(A, B)", [1, 0, -2, math.nan]),
        ("where(isnan(A), -1, sqrt(A))", [1, 2, math.nan, -1]),
        ("log(exp(B))", [2, 0, 3, 1]),
        ('tag("A") - tag("B")', [-1, 4, -5, math.nan]),
        ("1e3", [1000, 1000, 1000, 1000]),
        ("(A > 0) + (B > 0)", [2, 1, 1, 1]),
    ],
)
def test_values(text: str, expected: list[float]) -> None:
    np.testing.assert_allclose(evaluate(text, COLUMNS, 4), expected, rtol=1e-15)


def test_names_in_order_each_once() -> None:
    assert names('B + A * B - tag("U1/TE-01") + U1.TE') == ("B", "A", "U1/TE-01", "U1.TE")
    assert names("1 + 2") == ()


@pytest.mark.parametrize(
    ("text", "found", "near"),
    [
        ("A +", "invalid syntax", None),
        ("sqr(A)", "'sqr'", "sqrt"),
        ("sqrt(A, B)", "2 arguments", None),
        ("tag(A)", "tag()", None),
        ("A if B else 3", "A if B else 3", None),
        ("A.__class__()", "A.__class__()", None),
        ("[A for A in B]", "for A in B", None),
        ("(lambda: 1)()", "lambda", None),
        ("'text'", "'text'", None),
        ("True", "True", None),
        ("A % 2", "A % 2", None),
        ("A in B", "A in B", None),
        ("~A", "~A", None),
        ("sqrt(x=A)", "sqrt(x=A)", None),
        ("1" + "0" * 400, "too large", None),
        ("(" * 300 + "A" + ")" * 300, "", None),
        ("-" * 1000 + "A", "levels", None),
        ("A + " * 2000 + "A", "characters", None),
        ("", "", None),
        ("A\0", "", None),
    ],
)
def test_refused_with_place_and_remedy(text: str, found: str, near: str | None) -> None:
    with pytest.raises(ExpressionError) as caught:
        names(text)
    assert found in caught.value.found
    assert caught.value.near == near
    assert caught.value.allowed


def test_unknown_name_says_the_nearest() -> None:
    with pytest.raises(ExpressionError, match="Did you mean 'TEMP'"):
        evaluate("TEMQ > 1", {"TEMP": np.ones(3)}, 3)


@given(
    st.lists(st.floats(-50, 50, allow_subnormal=False), min_size=1, max_size=40),
    st.sampled_from(["log(x)", "exp(x)", "x ** x", "x ** 2", "abs(x) ** 0.3", "sqrt(x) / x", "1 / (x - x)"]),
)
def test_a_row_depends_on_itself_alone(values: list[float], text: str) -> None:
    x = np.array(values)
    together = evaluate(text, {"x": x}, len(x))
    for i in range(len(x)):
        assert evaluate(text, {"x": x[i : i + 1]}, 1).tobytes() == together[i : i + 1].tobytes()
        assert evaluate(text, {"x": x[i:]}, len(x) - i).tobytes() == together[i:].tobytes()


def test_any_layout_of_the_columns_gives_the_same() -> None:
    x = np.random.default_rng(1).lognormal(size=(300, 3))
    assert evaluate("log(x)", {"x": x[:, 1]}, 300).tobytes() == np.log(x[:, 1].copy()).tobytes()


def test_no_rows() -> None:
    assert evaluate("A + 1", {"A": np.empty(0)}, 0).shape == (0,)
