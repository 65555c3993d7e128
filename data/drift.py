"""Whether what a model sees and says is still what it was trained on, and if not, in which of four ways.

    an input's readings are bad, or stand still            sensor fault                  look at the sensor
    an input lies outside the span it was trained on       outside the trained range     train on more, or trust it less
    inputs inside, but together as never before,
    or the errors jumped                                   new regime                    train again
    inputs as trained, the errors moved bit by bit         slow ageing                   correct live, train again

Pure: arrays in, findings out. What is explained by a finding further up is not told again further down: a model that
errs while a sensor is broken has not aged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Quantiles of each input that a card keeps."""
MOST_JOINT = 64
"""Inputs up to which a card keeps how they go together: a matrix of their number squared."""
FAULTY = 0.05
"""Share of bad rows from which a sensor is at fault; of rows outside from which an input is."""
STRANGE = 0.1
"""Share of rows further out than all but 1 in 200 of the training from which it is another regime."""
FEWEST = 48
"""Rows, and residuals, below which nothing is judged."""
OFF = 0.3
"""Of the validation's RMSE: a smaller move of the mean residual is none,"""
SURE = 3.0
"""nor one within so many standard errors, autocorrelation counted."""
BLOCKS = 16

Float = NDArray[np.float64]


class Kind(StrEnum):
    """What has happened."""

    FAULT = "sensor fault"
    OUTSIDE = "outside the trained range"
    REGIME = "new regime"
    AGEING = "slow ageing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it was."""

    kind: Kind
    what: str
    """An input or a target."""
    told: str
    """How it shows, with figures."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """The inputs of a training, as the model takes them: prepared, in their units. F of them."""

    names: tuple[str, ...]
    quantiles: Float
    """[F, LEVELS]"""
    mean: Float
    """[F]"""
    spread: Float | None
    """[F, F] inverse of their covariance; None: too many."""
    far: float
    """Distance that 1 in 200 training rows exceeded."""

    @classmethod
    def of(cls, names: Sequence[str], x: NDArray[np.floating[Any]]) -> Self:
        """From the newest rows [n, F] of the training windows."""
        rows = x.astype(np.float64)
        mean, quantiles = rows.mean(axis=0), np.quantile(rows, LEVELS, axis=0).T
        spread = _inverse(rows) if len(names) <= MOST_JOINT else None
        far = 0.0 if spread is None else float(np.quantile(_distance(rows, mean, spread), 0.995))
        return cls(names=tuple(names), quantiles=quantiles, mean=mean, spread=spread, far=far)

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold, six digits each; more of the matrix, whose figures nearly cancel."""
        return {
            "names": list(self.names), "levels": list(LEVELS), "quantiles": _short(self.quantiles),
            "mean": _short(self.mean), "spread": None if self.spread is None else _short(self.spread, 12),
            "far": float(f"{self.far:.6g}"),
        }  # fmt: skip

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What `to_json` made."""
        spread = found["spread"]
        return cls(
            names=tuple(found["names"]), quantiles=np.array(found["quantiles"], np.float64),
            mean=np.array(found["mean"], np.float64), far=float(found["far"]),
            spread=None if spread is None else np.array(spread, np.float64),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Errors:
    """One target's residuals, truth minus raw prediction, in time order, and those of the validation."""

    target: str
    recent: Float
    """[n]"""
    mean: float
    rmse: float


def judge(
    trained: Trained,
    x: NDArray[np.floating[Any]],
    bad: Mapping[str, float],
    tags: Sequence[str],
    errors: Sequence[Errors],
) -> list[Finding]:
    """What is not as it was. `x` [k, F]: rows as the model took them, good ones only.

    `bad`: share of bad readings by tag; `tags` [F]: of each input.
    """
    faults = _faults(trained, x, bad, tags)
    blind = {f.what for f in faults}
    whole = [i for i, tag in enumerate(tags) if tag not in blind]
    outside = _outside(trained, x, whole) if len(x) >= FEWEST else []
    found = [*faults, *outside]
    if not found and len(x) >= FEWEST:
        found += _strange(trained, x)
    if not found:
        found = [f for e in errors if (f := _moved(e)) is not None]
    return found


def _faults(
    trained: Trained, x: NDArray[np.floating[Any]], bad: Mapping[str, float], tags: Sequence[str]
) -> list[Finding]:
    found = [
        Finding(kind=Kind.FAULT, what=tag, told=f"{share:.0%} of its readings are missing or bad")
        for tag, share in bad.items()
        if share > FAULTY
    ]
    told = {f.what for f in found}
    for i, tag in enumerate(tags):
        moves = trained.quantiles[i, LEVELS.index(0.25)] < trained.quantiles[i, LEVELS.index(0.75)]
        if moves and len(x) >= FEWEST and tag not in told and np.ptp(x[:, i]) == 0:
            found.append(Finding(kind=Kind.FAULT, what=tag, told=f"it stood still at {x[0, i]:.6g} throughout"))
    return found


def _outside(trained: Trained, x: NDArray[np.floating[Any]], at: Sequence[int]) -> list[Finding]:
    low, high = trained.quantiles[:, 0], trained.quantiles[:, -1]
    margin = 1e-5 * np.maximum(np.abs(low), np.abs(high))  # a card's figures have six digits
    share = ((x < low - margin) | (x > high + margin)).mean(axis=0)
    return [
        Finding(
            kind=Kind.OUTSIDE,
            what=trained.names[i],
            told=f"{share[i]:.0%} of its values lie outside {low[i]:.6g} to {high[i]:.6g}",
        )
        for i in at
        if share[i] > FAULTY
    ]


def _strange(trained: Trained, x: NDArray[np.floating[Any]]) -> list[Finding]:
    if trained.spread is None:
        return []
    share = float((_distance(x.astype(np.float64), trained.mean, trained.spread) > trained.far).mean())
    if share <= STRANGE:
        return []
    told = f"{share:.0%} of the rows are further from the training's than 99.5 % of its own were"
    # Given the others each input has its own expectation; how far it is off, in its own spread about that.
    off = ((x - trained.mean) @ trained.spread).mean(axis=0) / np.sqrt(np.maximum(np.diag(trained.spread), 1e-300))
    most = int(np.argmax(np.abs(off)))
    told += f"; most of all {trained.names[most]}: {off[most]:+.1f} of its spreads from what the others let expect"
    return [Finding(kind=Kind.REGIME, what="inputs together", told=told)]


def _moved(errors: Errors) -> Finding | None:
    n, residuals = len(errors.recent), errors.recent - errors.mean
    if n < FEWEST or errors.rmse <= 0:
        return None
    means = np.array([part.mean() for part in np.array_split(residuals, BLOCKS)])
    step, line = _fits(means)
    # Noise about the course that fits better: a jump is no noise, and would hide itself behind its own spread.
    course = np.repeat(step if _left(means, step) < _left(means, line) else line, [
        len(part) for part in np.array_split(residuals, BLOCKS)
    ])  # fmt: skip
    off = float(means[-BLOCKS // 4 :].mean())
    error = _standard_error(residuals - course) * 2.0  # of the last quarter alone
    if abs(off) < max(OFF * errors.rmse, SURE * error):
        return None
    jump = float(np.ptp(step))
    sudden = _left(means, step) < _left(means, line) and jump > max(OFF * errors.rmse, abs(off) / 2)
    told = (
        f"the mean residual is {off:+.4g} in the newest quarter ({abs(off) / errors.rmse:.1f} RMSE of the validation)"
    )
    if sudden:
        return Finding(kind=Kind.REGIME, what=errors.target, told=f"{told}; it jumped by {jump:.4g}")
    return Finding(kind=Kind.AGEING, what=errors.target, told=told)


def _fits(means: Float) -> tuple[Float, Float]:
    """The best single step through block means, and the best straight line."""
    steps = [
        np.repeat([means[:at].mean(), means[at:].mean()], [at, len(means) - at]) for at in range(2, len(means) - 1)
    ]
    at = np.arange(len(means), dtype=np.float64)
    slope, level = np.polyfit(at, means, 1)
    return min(steps, key=lambda step: _left(means, step)), slope * at + level


def _left(means: Float, fit: Float) -> float:
    return float(((means - fit) ** 2).sum())


def _standard_error(residuals: Float) -> float:
    """Of the mean of an AR(1) series: as if it had n (1 - r) / (1 + r) independent values."""
    z = residuals - residuals.mean()
    power = float(z @ z)
    r = 0.0 if power == 0 else min(max(float(z[1:] @ z[:-1]) / power, 0.0), 0.99)
    return float(np.sqrt(power / len(z) / (len(z) * (1 - r) / (1 + r))))


def _inverse(rows: Float) -> Float:
    """Of the covariance; columns that never move count for nothing."""
    cov = np.atleast_2d(np.cov(rows, rowvar=False))
    scale = np.sqrt(np.where(np.diag(cov) > 0, np.diag(cov), 1.0))
    inverse: Float = np.linalg.pinv(cov / np.outer(scale, scale), rcond=1e-6, hermitian=True) / np.outer(scale, scale)
    return inverse


def _distance(rows: Float, mean: Float, spread: Float) -> Float:
    z = rows - mean
    return np.asarray(np.einsum("ij,jk,ik->i", z, spread, z), np.float64)


def _short(values: Float, digits: int = 6) -> Any:
    return [_short(v, digits) if isinstance(v, np.ndarray) else float(f"{v:.{digits}g}") for v in values]
