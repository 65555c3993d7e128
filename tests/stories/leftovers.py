"""What a killed run may leave on the machine: processes, ports, shared memory."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from pathlib import Path

from demo_runs import MARK


def marked(mark: str) -> list[Path]:
    """/proc folders of live processes that inherited ``MARK=mark``."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(folder)
        except (OSError, ValueError):
            continue  # it ended while we looked
    return found


def processes(mark: str) -> list[str]:
    """Command lines of live processes of `mark`."""
    found = []
    for folder in marked(mark):
        with contextlib.suppress(OSError):  # it ended while we looked
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
    return found


def mapped(mark: str) -> set[str]:
    """Names under /dev/shm that processes of `mark` map at this moment."""
    found: set[str] = set()
    for folder in marked(mark):
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"/dev/shm/(\S+)", (folder / "maps").read_text(errors="replace")))
    return found


def shared_memory() -> set[str]:
    """Names under /dev/shm that no live process maps: what the dead have left."""
    names = set(os.listdir("/dev/shm"))
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text(errors="replace")
        except OSError:
            continue  # it ended while we looked
        names -= {name for name in names if f"/dev/shm/{name}" in text}
    return {name for name in names if Path("/dev/shm", name).exists()}


def left_in_memory(before: set[str], deadline_s: float = 30.0) -> set[str]:
    """Names under /dev/shm that are not in `before` and that nobody maps, at every look until the deadline.

    What is left stays for ever; what another run of the machine makes and removes meanwhile does not.
    """
    until, left = time.monotonic() + deadline_s, shared_memory() - before
    while left and time.monotonic() < until:
        time.sleep(0.5)
        left &= shared_memory()
    return left


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
