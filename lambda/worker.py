"""What a worker of the embedded cluster does besides its tasks: it ends at once, and only when its caller says so.

Dask imports this file in each of its worker processes (`distributed.worker.preload`)
and calls the two functions by their names. A process that has loaded TensorFlow
takes seconds to take itself apart, more on a busy machine; Dask then warns and
kills it. Nothing of a worker's is worth that wait: its results have been sent
and its files are read only.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from multiprocessing.util import Finalize
from typing import Any

LAST = -1000
"""Priority of what comes after everything that multiprocessing itself finalizes: queues are flushed before."""
BUSY_S = 1.0
"""What a task that is still running may hold up the end."""


def dask_setup(worker: Any) -> None:
    """Called by Dask when the worker starts, in the process's main thread."""
    # A terminal sends Ctrl-C to all its processes: what the caller has begun must still be answered here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Closing, it would warn of each task that was not done: that is the caller's to tell.
    logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
    Finalize(None, _leave, exitpriority=LAST)


def dask_teardown(worker: Any) -> None:
    """Called by Dask when the worker begins to close: a task cannot be interrupted, its process can."""
    timer = threading.Timer(BUSY_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _leave() -> None:
    """End without taking the interpreter apart; not on the way out of an error, which is yet to be shown."""
    if sys.exc_info()[0] is None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
