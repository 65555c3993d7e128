"""The supervisor's end of a child: started with its order, a log and a pipe; heard, asked to end, reaped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

LOG_BYTES = 16 << 20
"""A longer log is put aside at the next start; one old file is kept."""
TAIL_BYTES = 8192
COMMAND = (sys.executable, "-m", "penstock.up")
"""What is run; the order comes as its last argument."""
KILLED_S = 10.0
"""A killed process is gone within that time, or the kernel itself hangs."""


class Process:
    """A running child. Its order's ``pipe`` and ``parent`` are set here."""

    def __init__(self, order: Mapping[str, Any], log: Path, command: tuple[str, ...] = COMMAND) -> None:
        """Start it, in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone.

        Raises OSError where it cannot be started.
        """
        rotate(log)
        self._log, self._from = log, log.stat().st_size if log.exists() else 0
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        self._half = b""
        try:
            with log.open("ab") as out:
                self._process = subprocess.Popen(
                    [*command, json.dumps({**order, "pipe": theirs, "parent": os.getpid()})],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs,),
                    start_new_session=True,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def words(self) -> list[dict[str, Any]]:
        """What it has said since the last call: ``up``, ``what``, ``ended``, ``why``."""
        said = self._half
        try:
            while chunk := os.read(self._pipe, 65536):
                said += chunk
        except BlockingIOError:
            pass  # it has the pipe open and is silent
        *lines, self._half = said.split(b"\n")
        return [json.loads(line) for line in lines]

    def code(self) -> int | None:
        """Its exit code, negative for the signal that killed it; None while it runs."""
        return self._process.poll()

    def ask(self) -> None:
        """Ask it to end in order."""
        if self.code() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once. Its own children watch it and end by themselves."""
        if self.code() is None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a later look sees its end
                self._process.wait(KILLED_S)

    def end(self, stop_s: float) -> bool:
        """Ask it, wait for `stop_s`, then kill it; whether it ended as asked."""
        self.ask()
        try:
            self._process.wait(stop_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def close(self) -> None:
        """Let go of the pipe, after it has ended."""
        os.close(self._pipe)

    def last_line(self) -> str:
        """The last line that this run wrote to its log; empty where it wrote none."""
        return last_line(self._log, self._from)


def rotate(log: Path) -> None:
    """Make the log's folder; put a long log aside."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        os.replace(log, log.with_name(f"{log.name}.1"))


def last_line(log: Path, start: int = 0) -> str:
    """The last line with something in it from byte `start` on."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start if start <= end else 0, end - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def reason(code: int, last: str) -> str:
    """Why a part that was not asked to end has ended."""
    if code < 0:
        return f"killed by signal {-code}"
    return f"exit code {code}: {last}" if last else f"exit code {code}"


def is_part(pid: int) -> bool:
    """Whether that process lives and is a part of a supervisor: a pid may long be somebody else's."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and COMMAND[2] in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def wait_gone(pids: list[int], deadline_s: float) -> list[int]:
    """Those of the parts that are still there after `deadline_s`."""
    until = time.monotonic() + deadline_s
    while (left := [pid for pid in pids if is_part(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    return left
