"""The golden check: does this host answer as the model did when it was trained, or handed over?

Every write of a slot, and every slot read again at start, passes here before
anybody can ask it. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import io

import numpy as np

from .host import F32, Host

TOLERANCE = 1e-5
"""Largest difference from the golden predictions, in units of each output's scale, unless a user has set another
for a group (`penstock optimize`)."""


class Refusal(Exception):
    """The member is not taken; the text says why. Nothing has changed."""


def mismatch(host: Host, row: int, golden: tuple[F32, F32, F32], tolerance: float = TOLERANCE) -> str:
    """Why the golden windows are not answered as they should be; empty when they are."""
    return apart(host.run_one(row, golden[0], lambda: False), golden, tolerance)


def apart(found: F32, golden: tuple[F32, F32, F32], tolerance: float = TOLERANCE) -> str:
    """Why the answers `found` [g, O] are not the golden ones; empty when they are."""
    if found.shape != golden[1].shape:
        return f"the golden windows give {found.shape}, expected {golden[1].shape}"
    if not np.isfinite(found).all():
        return "the golden windows give values that are not finite"
    worst = furthest(found, golden)
    if not worst <= tolerance:
        return (
            f"the answers to the golden windows differ from Keras, or from what the model said before, by "
            f"{worst:.3g} of the target's scale; allowed: {tolerance:g}"
        )
    return ""


def furthest(found: F32, golden: tuple[F32, F32, F32]) -> float:
    """Largest difference of answers [g, O] from the golden ones, in units of each output's scale."""
    _, wanted, scale = golden
    return float((np.abs(found - wanted) / scale).max())


def arrays_of(npz: bytes) -> dict[str, F32]:
    """The arrays of an npz by name, float32. Raises ValueError when it is none."""
    with np.load(io.BytesIO(npz), allow_pickle=False) as stored:
        return {k: np.asarray(stored[k], np.float32) for k in stored.files}


def golden_of(npz: bytes) -> tuple[F32, F32, F32]:
    """windows [g, T, F], predictions [g, O], scale [O] of golden.npz. Raises Refusal when they do not fit."""
    arrays = arrays_of(npz)
    windows, predictions, scale = (arrays[k] for k in ("windows", "predictions", "scale"))
    predictions = predictions.reshape(len(windows), -1)
    if windows.ndim != 3 or not len(windows):
        raise Refusal(f"golden windows have shape {windows.shape}, expected [g, T, F] with g > 0")
    if scale.shape != predictions.shape[1:] or not (scale > 0).all():
        raise Refusal(f"golden scale is {scale}, expected {predictions.shape[1]} positive numbers")
    return windows, predictions, scale
