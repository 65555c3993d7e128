"""Callers of the engine that go away."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from penstock.serving.backend.pieces import second_thread


def gone_after_a_piece() -> Callable[[], bool]:
    """Whether its caller has gone, as one request asks it: not yet, then yes. Until then one thread works alone."""
    asked, gone = itertools.count(), threading.Event()
    second_thread.submit(gone.wait, 60)

    def ask() -> bool:
        if next(asked):
            gone.set()
        return gone.is_set()

    return ask
