"""The keeper: a small process between penstock and tritonserver, so that nothing stays behind.

It starts the server, ends it when its own parent dies (kill -9 included) or
when it is told to (SIGTERM), kills a stub that outlives the server, and removes
the server's /dev/shm regions. It is run as a file by a bare Python (`-S -E`):
standard library only, nothing of penstock.

It watches its parent's pid rather than using PR_SET_PDEATHSIG, which fires when
the *thread* that started the child ends; towards the server, which only the
main thread here starts, the death signal is exact.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SHM = Path("/dev/shm")


def clean_shm(prefix: str) -> list[str]:
    """Remove /dev/shm regions of this name prefix that no live process maps; their names."""
    ours = {p.name for p in SHM.glob(f"{prefix}*")}
    if not ours:
        return []
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text(errors="replace")
        except OSError:  # ended meanwhile, or another user's
            continue
        mapped |= {name for name in ours if f"{SHM}/{name}" in text}
    gone = sorted(ours - mapped)
    for name in gone:
        (SHM / name).unlink(missing_ok=True)
    return gone


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _children() -> list[int]:
    """Pids whose parent is this process: the server, and orphans that it left to us."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()]


def _end(server: subprocess.Popen[bytes], stop_s: float) -> None:
    server.terminate()
    try:
        server.wait(stop_s)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _reap(server: int) -> None:
    """Take orphans that have ended off the table of processes: what a killed engine had started comes to us."""
    for pid in _children():
        if pid != server:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _sweep(deadline_s: float) -> None:
    """Kill and reap whatever the server left; as our children they cannot hide."""
    until = time.monotonic() + deadline_s
    while (left := _children()) and time.monotonic() < until:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def keep(order: dict[str, object]) -> int:
    """Run the server of `order` until it ends, we are told to stop, or our parent has gone."""
    command, record, prefix = order["command"], Path(str(order["record"])), str(order["prefix"])
    assert isinstance(command, list)
    parent, told = int(str(order["parent"])), [False]

    def stop(signum: int, frame: FrameType | None) -> None:
        told[0] = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    clean_shm(prefix)
    lock = int(str(order["lock"]))
    server = subprocess.Popen(command, preexec_fn=_die_with_parent, pass_fds=(lock,))
    facts = {"keeper": os.getpid(), "server": server.pid, "parent": parent, "endpoint": order["endpoint"]}
    aside = record.with_name(record.name + ".new")
    aside.write_text(json.dumps(facts))
    os.replace(aside, record)
    while server.poll() is None and not told[0] and os.getppid() == parent:
        time.sleep(0.1)
        _reap(server.pid)
    if server.poll() is None:
        _end(server, float(str(order["stop_s"])))
    _sweep(10.0)
    clean_shm(prefix)
    record.unlink(missing_ok=True)
    return server.returncode


if __name__ == "__main__":
    sys.exit(0 if keep(json.loads(sys.argv[1])) in (0, -signal.SIGTERM) else 1)
