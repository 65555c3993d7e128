"""multiprocessing's resource tracker, so started that it outlives a kill of our process group.

Dask's queues to its workers are POSIX semaphores under /dev/shm. Python's
tracker removes those whose owners have died, but it stands in the same process
group and dies with them when the whole group is killed. In a session of its own
it sees the end of its pipe, cleans up and ends.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import resource_tracker

_START = "from multiprocessing.resource_tracker import main; main({})"


def outliving_tracker() -> None:
    """Start the tracker apart from us, unless this process has one already.

    It replaces `ResourceTracker.ensure_running`, whose child cannot be moved once it runs; the two attributes
    that it sets are the same in Python 3.8 to 3.14.
    """
    tracker = resource_tracker._resource_tracker
    if tracker._fd is not None:  # type: ignore[attr-defined]
        return
    read, write = os.pipe()
    try:
        os.set_inheritable(read, True)
        # What it removes after a kill was no leak, so it says nothing.
        command = [sys.executable, "-S", "-E", "-W", "ignore", "-c", _START.format(read)]
        pid = os.posix_spawn(sys.executable, command, os.environ, setsid=True)
    except OSError:
        os.close(write)
        raise
    finally:
        os.close(read)
    tracker._fd, tracker._pid = write, pid  # type: ignore[attr-defined]
