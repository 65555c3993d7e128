"""The Triton server of a site: started, watched, repaired and ended, leaving nothing behind.

    this process ── keeper.py ── tritonserver ── the engine's stub

The folder (a site's ``triton/``) holds ``models/`` (Triton's repository),
``state/`` (the engine's slots), ``triton.log``, ``server.json`` (who runs) and
``lock``, which the keeper and the server hold for as long as they live.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.errors import ServingError, SiteError, Unavailable
from penstock.serving import keeper
from penstock.serving.aliases import restore
from penstock.serving.canary import Canary, canary
from penstock.serving.launch import STOP_S, command, environment, shm_prefix
from penstock.serving.pool import Pool
from penstock.serving.provision import Installation, provision
from penstock.serving.repository import ENGINE, lay_out

LOG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What ``server.json`` says about a server that runs."""

    endpoint: str
    keeper: int
    """Pids."""
    server: int
    parent: int


class Triton:
    """A tritonserver that this process started."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], endpoint: str, deadline_s: float) -> None:
        """Use `start`."""
        self.folder, self.endpoint, self.deadline_s = folder, endpoint, deadline_s
        self._process = process
        self._pool = Pool(endpoint, deadline_s=10.0)

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        capacity: int = 64,
        deadline_s: float = 120.0,
        installation: Installation | None = None,
        cache: Path | None = None,
    ) -> Triton:
        """A server on a free loopback port, with everything that was deployed before; a context manager.

        `capacity` is the number of slots: one per model, and one more for each
        deploy under way. Raises SiteError when one already runs on `folder`,
        ServingError when it does not come up within `deadline_s`.
        """
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + deadline_s
        found = installation or provision(cache)
        lock = _lock(folder, min(until, time.monotonic() + STOP_S + 12.0))
        try:
            state = folder / "state"
            used = [int(p.stem) + 1 for p in state.glob("*.slot")]
            lay_out(folder / "models", state, max([capacity, *used]))
            endpoint = f"127.0.0.1:{_free_port()}"
            process = _spawn(folder, found, endpoint, lock)
        finally:
            os.close(lock)
        triton = cls(folder, process, endpoint, deadline_s)
        try:
            triton._come_up(until)
        except BaseException:
            triton.stop()
            raise
        return triton

    @staticmethod
    def running(folder: Path) -> Running | None:
        """Who runs on `folder`, from whichever process asks."""
        folder = folder.absolute()
        try:
            told = json.loads((folder / "server.json").read_text())
            with open(folder / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # held by the keeper or its server: it runs
            return Running(**told)
        except (OSError, ValueError):
            return None
        return None

    def __enter__(self) -> Triton:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def alive(self) -> bool:
        """Whether the server's process runs; `canary` tells whether it answers."""
        return self._process.poll() is None

    def canary(self, name: str | None = None) -> Canary:
        """A real inference, its value checked. Raises ServingError when it is not right."""
        if not self.alive():
            raise Unavailable(f"tritonserver on {self.folder} has ended: start it again\n{self._last_words()}")
        return canary(self._pool, name)

    def repair(self) -> Canary:
        """Load the engine anew, with everything that was deployed; for when its process has died.

        Raises ServingError when it does not come up.
        """
        until = time.monotonic() + self.deadline_s
        with Pool(self.endpoint, deadline_s=self.deadline_s) as pool:
            pool.unload(ENGINE)
            while pool.ready(ENGINE) and time.monotonic() < until:
                time.sleep(0.05)
            pool.load(ENGINE)
            restore(pool)
        return self.canary()

    def stop(self) -> None:
        """End the server; no process, port or /dev/shm entry stays. Again: nothing happens."""
        self._pool.close()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_S + 15.0)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the keeper hangs: its server gets SIGTERM by PR_SET_PDEATHSIG
            self._process.wait()
        keeper.clean_shm(shm_prefix(self.folder))

    def _come_up(self, until: float) -> None:
        while True:
            if not self.alive():
                raise ServingError(f"tritonserver ended while it started:\n{self._last_words()}")
            try:
                self._pool.admin({"do": "health"})
                break
            except ServingError as error:
                if time.monotonic() > until:
                    raise ServingError(f"tritonserver is not ready: {error}\n{self._last_words()}") from error
            time.sleep(0.1)
        restore(self._pool)
        self.canary()

    def _last_words(self) -> str:
        log = self.folder / "triton.log"
        text = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join([f"the end of {log}:", *text[-15:]])


def _spawn(folder: Path, found: Installation, endpoint: str, lock: int) -> subprocess.Popen[bytes]:
    """The keeper, in a session of its own, so that a kill of our process group leaves it to clean up."""
    log = folder / "triton.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        os.replace(log, log.with_suffix(".log.1"))
    order: dict[str, Any] = {
        "command": command(found, folder, endpoint),
        "record": str(folder / "server.json"),
        "endpoint": endpoint,
        "prefix": shm_prefix(folder),
        "parent": os.getpid(),
        "lock": lock,
        "stop_s": STOP_S,
    }
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", keeper.__file__, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(found),
            cwd=folder,
            pass_fds=(lock,),
            start_new_session=True,
        )


def _lock(folder: Path, until: float) -> int:
    """The folder's lock; waits for a server whose parent has died and that is ending.

    Raises SiteError when a server runs that somebody still wants.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            running = Triton.running(folder)
            if (running and _exists(running.parent)) or time.monotonic() > until:
                os.close(lock)
                who = f"at {running.endpoint} (pid {running.server})" if running else "or is just starting"
                raise SiteError(f"{folder}: a Triton runs here already, {who}: use it, or stop it first") from None
        time.sleep(0.1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
