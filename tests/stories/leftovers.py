"""What a killed run may leave on the machine: processes, ports, shared memory."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from demo_runs import MARK


def processes(mark: str) -> list[str]:
    """Command lines of live processes that inherited ``MARK=mark``."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        except (OSError, ValueError):
            continue  # it ended while we looked
    return found


def shared_memory() -> set[str]:
    """Names under /dev/shm."""
    return set(os.listdir("/dev/shm"))


def wait_until_gone(mark: str, deadline_s: float = 60.0) -> list[str]:
    """Processes of `mark` that are still there after the deadline."""
    until = time.monotonic() + deadline_s
    while (left := processes(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def listening(endpoint: str) -> bool:
    """Whether something accepts connections at host:port."""
    host, _, port = endpoint.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, int(port))) == 0
