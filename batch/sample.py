"""Which windows a model is fitted and judged on, and the scaling that they ask for. Pure numpy.

The windows themselves are a view into the prepared rows and are never stored as
a whole; a sample holds positions into them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.errors import ModelError

Float32 = NDArray[np.float32]

MIN_TRAIN, MIN_VALIDATION = 32, 8
"""Fewer windows than these say nothing about a model."""
_SCALING_WINDOWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Windows of one model over one span, and which of them count."""

    ends: NDArray[np.int64]
    """[a] ticks of the windows."""
    x: Float32
    """[a, T, F] every window of the span, as a view; use only the positions below."""
    y: Float32
    """[a, O] truth at the predicted time."""
    base: Float32
    """[a, O] what a prediction is a change from; 0 where it is not a change."""
    relative: Float32
    """[F] 1 for the columns that the network takes relative to their last row, else 0."""
    persistence: Float32
    """[a, O] newest target known then; NaN where the model runs without truth."""
    train: NDArray[np.intp]
    """[n] positions, in time order."""
    validation: NDArray[np.intp]
    """[m] positions, all later than `train` by more than a window."""
    split: int
    """First tick of the validation part."""

    def change(self, at: NDArray[np.intp]) -> Float32:
        """[len(at), O] what the network has to say: truth minus base."""
        return self.y[at] - self.base[at]

    def batches(self, at: NDArray[np.intp], size: int = 1024) -> Iterator[tuple[Float32, Float32]]:
        """(x, change) of the windows at positions `at`, `size` at a time; x relative as the network takes it."""
        for start in range(0, len(at), size):
            part = at[start : start + size]
            x = self.x[part]
            yield x - self.relative * x[:, -1:, :], self.change(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Why windows of a span do not count."""

    total: int
    counts: dict[str, int] = field(default_factory=dict)
    """By reason, e.g. ``BAD_INPUT`` or ``truth unusable``."""

    def __str__(self) -> str:
        told = ", ".join(f"{count} {reason}" for reason, count in self.counts.items() if count)
        return f"{self.total} windows, of which unusable: {told or 'none'}"


def split(
    ends: NDArray[np.int64], good: NDArray[np.bool_], share: float, gap: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Positions to train on, positions to validate on, and the first tick of the latter.

    The newest `share` of the good windows validates; windows that end less than
    `gap` ticks before it are in neither part, so that no reading is in both.
    """
    positions = np.flatnonzero(good)
    if not len(positions):
        return positions, positions, int(ends[-1]) + 1 if len(ends) else 0
    first = min(int(len(positions) * (1.0 - share)), len(positions) - 1)
    tick = int(ends[positions[first]])
    return positions[ends[positions] < tick - gap], positions[first:], tick


def demand(train: int, validation: int, dropped: Dropped, name: str) -> None:
    """Raise ModelError when there are too few windows, saying what became of them."""
    if train < MIN_TRAIN or validation < MIN_VALIDATION:
        raise ModelError(
            f"model {name!r}: too few windows to train: {train} to fit on (at least {MIN_TRAIN}) and "
            f"{validation} to validate on (at least {MIN_VALIDATION}); {dropped}. "
            "Give a longer span, or look at the tags' quality"
        )


def input_scaling(sample: Sample) -> tuple[Float32, Float32]:
    """`mean` [F] and `inv` [F] of the training windows, the last row taken off where relative.

    Up to 4,096 windows spread evenly over the training part are looked at. A
    column that never moves gets inv 0: it says nothing, and live it must not
    begin to shout.
    """
    spread = np.linspace(0, len(sample.train) - 1, min(_SCALING_WINDOWS, len(sample.train))).astype(np.intp)
    x = sample.x[sample.train[spread]].astype(np.float64)
    x -= sample.relative * x[:, -1:, :]
    mean, std = x.mean(axis=(0, 1)), x.std(axis=(0, 1))
    return mean.astype(np.float32), _inverse(std, mean)


def output_scaling(sample: Sample) -> tuple[Float32, Float32]:
    """`scale` [O] and `shift` [O]: standard deviation (1 where it never moves) and mean of the change to say."""
    change = sample.change(sample.train).astype(np.float64)
    shift, std = change.mean(axis=0), change.std(axis=0)
    return np.where(_inverse(std, shift) > 0, std, 1.0).astype(np.float32), shift.astype(np.float32)


def target_scale(sample: Sample) -> Float32:
    """[O] standard deviation of the target itself: the yardstick of "equal within 1e-5"."""
    y = sample.y[sample.train].astype(np.float64)
    std = y.std(axis=0)
    return np.where(_inverse(std, y.mean(axis=0)) > 0, std, 1.0).astype(np.float32)


def _inverse(std: NDArray[np.float64], mean: NDArray[np.float64]) -> Float32:
    """One over std; 0 where std is no more than float32 rounding of the mean."""
    moves = std > 1e-6 * np.abs(mean) + 1e-12
    return np.where(moves, 1.0 / np.where(moves, std, 1.0), 0.0).astype(np.float32)
