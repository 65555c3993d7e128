"""Cutting windows: the one definition, for training, for the batch view and for live answers.

    tick      t-6  t-5  t-4  t-3  t-2  t-1   t
    length 4   [0]       [1]       [2]      [3]      stride 2: rows t-6, t-4, t-2, t

A window is a view of the prepared rows until somebody copies it: a year of
windows costs no more memory than a year of rows. This file knows neither
archive nor journal; both layers bring their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from penstock.data.prepare import STEPS, Prepared, prepare
from penstock.data.targets import Targets, targets
from penstock.data.window_spec import Feature, WindowSpec

__all__ = [
    "STEPS",
    "Feature",
    "Prepared",
    "Reason",
    "Targets",
    "WindowSpec",
    "Windows",
    "answers_at",
    "cut",
    "prepare",
    "targets",
    "window_hash",
]

Mask = NDArray[np.bool_]


class Reason(IntEnum):
    """Why there is no prediction, or OK; uint8 in views and answers."""

    OK = 0
    NOT_RUNNING = 1
    """`when` is false at the window's tick."""
    NO_HISTORY = 2
    """The window begins before the rows at hand, or in a row in which nothing was ever read."""
    BAD_INPUT = 3
    """Some value in the window, or one that `when` needs, is withheld."""
    NO_ANSWER = 4
    """Triton did not answer."""
    NO_MODEL = 5
    """No version was deployed."""
    OVERLOAD = 6
    """Scoring was behind, and passed over this tick for a newer one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """The windows of n ticks."""

    ends: NDArray[np.int64]
    """[n] tick of each window's last row."""
    reason: NDArray[np.uint8]
    """[n] `Reason`; where not OK the window holds NaN or must not be used."""
    filled: Mask
    """[n] some value in it stands in for a missing one."""
    every: NDArray[np.float32]
    """[K, T, F] read-only view of all windows of the rows at hand."""
    at: NDArray[np.int64]
    """[n] where in `every` each window is."""

    @property
    def x(self) -> NDArray[np.float32]:
        """[n, T, F]: a view where the ends are evenly spaced, else a copy; see `take`."""
        if len(self.at) == 0:
            return self.every[:0]
        steps = np.diff(self.at)
        step = int(steps[0]) if len(steps) else 1
        if step > 0 and (steps == step).all():
            return self.every[self.at[0] : self.at[-1] + 1 : step]
        return self.every[self.at]

    @property
    def hash(self) -> NDArray[np.uint64]:
        """[n] `window_hash` of each."""
        return window_hash(self.x)

    def take(self, which: NDArray[np.intp] | Mask) -> NDArray[np.float32]:
        """[len(which), T, F] copy of the windows at positions `which`: a batch for training."""
        return self.every[self.at[which]]


def cut(spec: WindowSpec, prepared: Prepared, ends: NDArray[np.int64] | Sequence[int]) -> Windows:
    """The windows that end at the ticks `ends` [n].

    A window that reaches before the rows at hand is NO_HISTORY and NaN there. Raises IndexError when an
    end lies behind them: that tick is not closed yet.
    """
    ends = np.asarray(ends, np.int64)
    if len(ends) and int(ends.max()) >= prepared.last:
        raise IndexError(f"tick {int(ends.max())} lies behind the rows {prepared.first}..{prepared.last}")
    span = (spec.length - 1) * spec.stride + 1
    newest = ends - prepared.first
    short = max(0, span - 1 - int(newest.min())) if len(ends) else 0
    x = _lengthened(prepared.x, max(short, span - len(prepared.x)))
    every = sliding_window_view(x, span, axis=0)[:, :, :: spec.stride].transpose(0, 2, 1)
    padded = len(x) - len(prepared.x)
    fine, filled = _over_rows(spec, prepared, newest)
    return Windows(
        ends=ends,
        reason=_reason(spec, prepared, newest, fine),
        filled=filled,
        every=every,
        at=newest + padded - (span - 1),
    )


def answers_at(spec: WindowSpec, ticks: NDArray[np.int64] | Sequence[int]) -> Mask:
    """[n] the ticks at which the model answers: those that are a multiple of `every`."""
    return np.equal(np.asarray(ticks, np.int64) % spec.every, 0)


def window_hash(x: NDArray[np.float32]) -> NDArray[np.uint64]:
    """[n] 8 bytes of BLAKE2b over each window's little-endian bytes; x is [n, T, F]. 1 GB/s."""
    digests = (blake2b(np.ascontiguousarray(w, "<f4").data, digest_size=8).digest() for w in x)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _lengthened(x: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """With rows of NaN before; a copy, so only where windows reach out of the rows at hand."""
    if rows <= 0:
        return x
    return np.concatenate([np.full((rows, x.shape[1]), np.nan, np.float32), x])


def _over_rows(spec: WindowSpec, prepared: Prepared, newest: NDArray[np.int64]) -> tuple[Mask, Mask]:
    """[n] all rows of the window are ok; [n] one of them is filled."""
    row_ok: Mask = np.all(prepared.ok, axis=1)
    fine, filled = np.ones(len(newest), bool), np.zeros(len(newest), bool)
    if len(row_ok) == 0:
        return ~fine, filled
    # Many ages at once for one window, few for a year of them: [ages, n] stays near a million.
    many = max(1, 1_000_000 // max(1, len(newest)))
    for begin in range(0, spec.length, many):
        ages = np.arange(begin, min(begin + many, spec.length))
        rows = newest - (ages * spec.stride)[:, None]
        inside, rows = rows >= 0, np.maximum(rows, 0)
        fine &= np.all(inside & row_ok[rows], axis=0)
        filled |= np.any(inside & prepared.filled[rows], axis=0)
    return fine, filled


def _reason(spec: WindowSpec, prepared: Prepared, newest: NDArray[np.int64], fine: Mask) -> NDArray[np.uint8]:
    """The operator's order: a plant at rest needs no data; no data yet is no fault of a sensor."""
    if len(prepared.x) == 0:
        return np.full(len(newest), Reason.NO_HISTORY, np.uint8)
    oldest = newest - (spec.length - 1) * spec.stride
    begins = np.maximum(oldest, 0)
    now = np.maximum(newest, 0)
    young = (oldest < spec.look_back) | prepared.empty[begins]
    resting = (newest >= 0) & prepared.decided[now] & ~prepared.running[now]
    choices = [resting, ~fine & young, ~fine | ~prepared.decided[now]]
    found = np.select(choices, [Reason.NOT_RUNNING, Reason.NO_HISTORY, Reason.BAD_INPUT], Reason.OK)
    return found.astype(np.uint8)
