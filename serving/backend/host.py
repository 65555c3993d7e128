"""What every host of a slot's model offers, whatever executes it, and what a caller may do meanwhile: go away.

Imports no TensorFlow, so that a process that only talks to another one stays small.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Cancelled = Callable[[], bool]


ASKED_S = 0.005
"""How long work goes on before anybody asks again whether its caller has gone: Triton's answer takes 0.05 ms."""


def seldom(ask: Cancelled) -> Cancelled:
    """`ask`, at most every ASKED_S; the first time so long after now."""
    known, next_at = False, time.monotonic() + ASKED_S

    def cancelled() -> bool:
        nonlocal known, next_at
        if not known and (now := time.monotonic()) >= next_at:
            known, next_at = ask(), now + ASKED_S
        return known

    return cancelled


class Stopped(Exception):
    """The caller has gone; the rest is not computed."""


class Host(Protocol):
    """Executes the members of one group, or one member alone."""

    def run(self, rows: NDArray[np.int64], windows: F32, cancelled: Cancelled) -> F32:
        """rows [n], any of them several times, windows [n, T, F] -> [n, O]."""

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """Many windows of one member: windows [n, T, F] -> [n, O]."""

    def drop(self, row: int) -> Host | None:
        """The host without that member; None: nothing stays of it."""
