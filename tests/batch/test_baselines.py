"""Errors and baselines beside the slow obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.batch.baselines import errors, fit_ridge, metrics


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=1, max_size=30))
def test_errors_are_the_textbook_ones(pairs: list[tuple[float, float]]) -> None:
    truth, said = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    found = errors(truth, said)
    off = [float(s) - float(t) for t, s in zip(truth, said, strict=True)]
    mean = sum(map(float, truth)) / len(truth)
    spread = sum((float(t) - mean) ** 2 for t in truth)
    assert found["mae"] == pytest.approx(sum(map(abs, off)) / len(off), abs=1e-9)
    assert found["rmse"] == pytest.approx((sum(o * o for o in off) / len(off)) ** 0.5, abs=1e-9)
    assert found["bias"] == pytest.approx(sum(off) / len(off), abs=1e-9)
    if spread > 1e-6:
        assert found["r2"] == pytest.approx(1 - sum(o * o for o in off) / spread, rel=1e-6, abs=1e-6)


def test_a_baseline_that_lacks_a_row_is_no_comparison() -> None:
    truth = np.array([1, 2, 3], np.float32)
    row = metrics(truth, truth, {"persistence": np.array([1, np.nan, 3], np.float32), "ridge": truth + 1})
    assert row["n"] == 3
    assert row["ridge_mae"] == 1
    assert row["rmse"] == 0
    assert "persistence_mae" not in row


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 3))
def test_ridge_in_batches_is_least_squares_on_all_at_once(seed: int, features: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(200, 5, features)) * 10 + 1000).astype(np.float32)
    wanted = rng.normal(size=(2 * features, outputs))
    flat = np.concatenate([x[:, -1], x.mean(axis=1, dtype=np.float64)], axis=1)
    change = (flat @ wanted + 3 + 0.1 * rng.normal(size=(200, outputs))).astype(np.float32)
    ridge = fit_ridge(((x[i : i + 64], change[i : i + 64]) for i in range(0, 200, 64)), penalty=0.0)
    padded = np.column_stack([flat, np.ones(200)])
    expected = padded @ np.linalg.lstsq(padded, change.astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(ridge(x), expected, atol=2e-3)


def test_ridge_passes_over_columns_that_never_move() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 3, 2)).astype(np.float32)
    x[:, :, 1] = 5
    ridge = fit_ridge([(x, x[:, -1, :1] * 2)])
    assert ridge.coefficients[1, 0] == ridge.coefficients[3, 0] == 0
    np.testing.assert_allclose(ridge(x), x[:, -1, :1] * 2, atol=0.02)
