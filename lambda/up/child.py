"""The child's end: it says how it is on a pipe, and ends when its parent has gone.

It looks at its parent's pid, as the keeper of Triton does (`serving/keeper.py` says why): a supervisor that was
killed SIGKILL tells nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

LOOK_S = 0.2
ORPHAN_S = 5.0
"""What an orphan gets to end in order; everything it does may be cut off at any moment."""


class Child:
    """This process, as a part of its supervisor."""

    def __init__(self, pipe: int, parent: int | None) -> None:
        """Begin to watch the parent; None: it may go."""
        os.set_inheritable(pipe, False)
        self._pipe = pipe
        self.stop = threading.Event()
        """Set by SIGTERM, once `heed` was called."""
        if parent is not None:
            threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()

    def say(self, **words: Any) -> None:
        """``up``: the address, when it has come up; ``what``: how it is; ``ended``: with its work; ``why`` it ends."""
        with contextlib.suppress(BrokenPipeError):  # the parent has gone: the watch ends this process
            os.write(self._pipe, json.dumps(words).encode() + b"\n")

    def heed(self) -> None:
        """From now on SIGTERM sets `stop` and does no more. From the main thread only."""

        def told(number: int, frame: FrameType | None) -> None:
            self.stop.set()

        signal.signal(signal.SIGTERM, told)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_S)
    os._exit(1)
