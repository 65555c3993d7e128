"""What a model is measured with and against. Pure numpy, no engine.

The baselines know only what the model knows: persistence repeats the newest
target known then, ridge is a linear fit on the same windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32] | NDArray[np.float64]


def errors(truth: Float, predicted: Float) -> dict[str, float]:
    """`mae`, `rmse`, `bias` (predicted minus truth) and `r2` of [n] against [n], in the target's unit."""
    difference = predicted.astype(np.float64) - truth.astype(np.float64)
    spread = float(np.sum((truth.astype(np.float64) - truth.mean(dtype=np.float64)) ** 2))
    squares = float(np.sum(difference**2))
    return {
        "mae": float(np.mean(np.abs(difference))),
        "rmse": float(np.sqrt(squares / len(difference))),
        "bias": float(np.mean(difference)),
        "r2": 1.0 - squares / spread if spread > 0 else 0.0,
    }


def metrics(truth: Float, predicted: Float, baselines: Mapping[str, Float]) -> dict[str, float | int]:
    """One target's row for the card: `n`, the errors, and `<baseline>_mae`, `<baseline>_rmse`.

    A baseline is left out unless it is finite on every row: it must stand on the
    same rows as the model, or be no comparison.
    """
    row: dict[str, float | int] = {"n": len(truth), **errors(truth, predicted)}
    for name, values in baselines.items():
        if np.isfinite(values).all():
            found = errors(truth, values)
            row |= {f"{name}_mae": found["mae"], f"{name}_rmse": found["rmse"]}
    return row


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ridge:
    """A linear fit of the change: features(x) @ coefficients + intercept."""

    coefficients: NDArray[np.float64]
    """[2F, O] on the last row and the mean row, standardised."""
    intercept: NDArray[np.float64]
    """[O]"""
    mean: NDArray[np.float64]
    """[2F]"""
    inv: NDArray[np.float64]
    """[2F]"""

    def __call__(self, x: Float) -> NDArray[np.float64]:
        """[n, T, F] to [n, O]."""
        z = (_features(x) - self.mean) * self.inv
        result: NDArray[np.float64] = z @ self.coefficients + self.intercept
        return result


def fit_ridge(batches: Iterable[tuple[Float, Float]], penalty: float = 1e-3) -> Ridge:
    """Fit on batches of (x [n, T, F], change [n, O]) without ever holding them all.

    `penalty` is relative to the number of rows. The batches are gone through once:
    moments are summed and standardised afterwards.
    """
    moments: NDArray[np.float64] | None = None
    inputs = 0
    for x, change in batches:
        features = _features(x)
        inputs = features.shape[1]
        rows = np.concatenate([np.ones((len(x), 1)), features, change.astype(np.float64)], axis=1)
        part = rows.T @ rows
        moments = part if moments is None else moments + part
    if moments is None:
        raise ValueError("fit_ridge: no batches")
    moments = moments / moments[0, 0]
    average = moments[0, 1:]
    covariance = moments[1:, 1:] - np.outer(average, average)
    variance = np.diag(covariance)[:inputs]
    moves = variance > 1e-12 * (average[:inputs] ** 2 + 1e-30)
    inv = np.where(moves, 1.0 / np.sqrt(np.where(moves, variance, 1.0)), 0.0)
    gram = covariance[:inputs, :inputs] * np.outer(inv, inv) + penalty * np.eye(inputs)
    coefficients = np.linalg.solve(gram, covariance[:inputs, inputs:] * inv[:, None])
    return Ridge(coefficients=coefficients, intercept=average[inputs:], mean=average[:inputs], inv=inv)


def _features(x: Float) -> NDArray[np.float64]:
    """[n, T, F] to [n, 2F]: the last row and the mean row; T*F columns would cost the square of that."""
    return np.concatenate([x[:, -1, :], x.mean(axis=1, dtype=np.float64)], axis=1).astype(np.float64)
