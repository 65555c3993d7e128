"""The Triton server of a site: started, watched, repaired and ended, leaving nothing behind.

    this process ── keeper.py ── tritonserver ── the engine's stub

The folder (a site's ``triton/``) holds ``models/`` (Triton's repository),
``state/`` (the engine's slots), ``triton.log``, ``server.json`` (who runs) and
``lock``, which the keeper and the server hold for as long as they live.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import psutil

from penstock.errors import ServingError, Unavailable
from penstock.serving import keeper
from penstock.serving.aliases import complete, restore
from penstock.serving.canary import Canary, canary
from penstock.serving.engine_code import compiled, engine_code, entry
from penstock.serving.kept import Mark, kept
from penstock.serving.launch import STOP_S, shm_prefix, spawn
from penstock.serving.pool import Pool
from penstock.serving.provision import Installation, provision
from penstock.serving.repository import ENGINE, clear_aliases, lay_out
from penstock.serving.running import Running, locked, running

HOST = "127.0.0.1"
PORTS = 5
"""Free ports that a start tries: another process may take one before the server binds it."""
TAKEN = "already in use"
"""What Triton's log says then."""
LISTENS = "Started GRPCInferenceService"
"""What Triton's log says once it has tried to load everything and answers on its port."""


class Triton:
    """A tritonserver that this process started."""

    def __init__(
        self, folder: Path, port: int, found: Installation, code: Path, capacity: int, deadline_s: float
    ) -> None:
        """Use `start`."""
        self.folder, self.endpoint, self.deadline_s = folder, f"{HOST}:{port}", deadline_s
        self._found, self._code, self._capacity = found, code, capacity
        self._mending = threading.Lock()
        self._guard = threading.Lock()
        """Of `_ended` and `_process`: nothing is started once the end was asked for."""
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        self._engine: int | None = None
        self._laid: dict[str, Mark] = {}
        """The aliases that the server was started with, by name."""
        self._pool = Pool(self.endpoint, deadline_s=10.0)

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        capacity: int = 64,
        deadline_s: float = 120.0,
        installation: Installation | None = None,
        cache: Path | None = None,
        ports: Iterable[int] = (),
        stop: threading.Event | None = None,
    ) -> Triton:
        """A server on a free loopback port, with everything that was deployed before; a context manager.

        `capacity` is the number of slots: one per model, and one more for each
        deploy under way. `ports` are tried before any other. Raises SiteError when one
        already runs on `folder`, ServingError when it does not come up within
        `deadline_s`, or `stop` is set meanwhile.
        """
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + deadline_s
        found, code = installation or provision(cache), engine_code(cache)
        for port in [*ports, *(free_port() for _ in range(PORTS))]:
            triton = cls(folder, port, found, code, capacity, deadline_s)
            try:
                triton._launch(until)
                triton._come_up(until, stop)
            except BaseException as error:
                triton.stop()
                if not (isinstance(error, ServingError) and TAKEN in triton._words()):
                    raise
            else:
                return triton
        raise ServingError(f"{folder}: no port of {HOST} could be had in {PORTS} tries: end what takes them, try again")

    @staticmethod
    def running(folder: Path) -> Running | None:
        """Who runs on `folder`, from whichever process asks."""
        return running(folder)

    def __enter__(self) -> Triton:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def alive(self) -> bool:
        """Whether the server's process runs; `canary` tells whether it answers."""
        return self._process is not None and self._process.poll() is None

    def engine_gone(self) -> bool:
        """Whether the engine's process, as it last answered, has ended (a zombie has)."""
        try:
            return self._engine is not None and psutil.Process(self._engine).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def mending(self) -> bool:
        """Whether `repair` or `restart` is under way."""
        return self._mending.locked()

    def deploying(self) -> bool:
        """Whether the engine says that a deploy is under way."""
        try:
            return bool(self._pool.admin({"do": "health"})["deploying"])
        except ServingError:
            return False

    def canary(self, name: str | None = None) -> Canary:
        """A real inference, its value checked. Raises ServingError when it is not right."""
        if not self.alive():
            raise Unavailable(f"tritonserver on {self.folder} has ended: start it again\n{self._last_words()}")
        healthy = canary(self._pool, name)
        self._engine = healthy.pid
        return healthy

    def repair(self) -> Canary:
        """Load the engine anew, with everything that was deployed; for when its process has died.

        Raises ServingError when it does not come up.
        """
        with self._mending:
            until = time.monotonic() + self.deadline_s
            with Pool(self.endpoint, deadline_s=self.deadline_s) as pool:
                pool.unload(ENGINE)
                while pool.ready(ENGINE) and time.monotonic() < until:
                    time.sleep(0.05)
                pool.load(ENGINE)
                restore(pool)
            return self.canary()

    def restart(self) -> Canary:
        """The server anew on the same port, with everything that was deployed; for when it has died, or hangs.

        Raises ServingError when it does not come up, or `end` was called; SiteError when another one runs here.
        """
        with self._mending:
            until = time.monotonic() + self.deadline_s
            self._end_process()
            self._launch(until)
            return self._come_up(until)

    def end(self) -> None:
        """Ask the server to end, for good, and return at once: calls under way fail, whatever waits for it ends."""
        with self._guard:
            self._ended = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

    def stop(self) -> None:
        """End the server; no process, port or /dev/shm entry stays. Again: nothing happens."""
        self.end()
        self._pool.close()
        self._end_process()

    def _launch(self, until: float) -> None:
        lock = locked(self.folder, min(until, time.monotonic() + STOP_S + 12.0))
        try:
            with self._guard:
                if self._ended:
                    raise ServingError(f"tritonserver on {self.folder} was told to end: make a new one")
                state = self.folder / "state"
                capacity = max([self._capacity, *(int(p.stem) + 1 for p in state.glob("*.slot"))])
                self._laid = lay_out(self.folder / "models", entry(self._code), state, capacity, kept(state))
                log = self.folder / "triton.log"
                self._log_from = log.stat().st_size if log.exists() else 0
                self._process = spawn(self.folder, self._found, self.endpoint, lock, compiled(self._code))
        finally:
            os.close(lock)

    def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_S + 15.0)
        except subprocess.TimeoutExpired:
            process.kill()  # the keeper hangs: its server gets SIGTERM by PR_SET_PDEATHSIG
            process.wait()
        keeper.clean_shm(shm_prefix(self.folder))

    def _come_up(self, until: float, stop: threading.Event | None = None) -> Canary:
        while not self._answers():
            if not self.alive():
                raise ServingError(f"tritonserver ended while it started:\n{self._last_words()}")
            if self._without_engine():
                raise ServingError(f"tritonserver could not load its engine:\n{self._last_words()}")
            if time.monotonic() > until:
                raise ServingError(f"tritonserver is not ready in time:\n{self._last_words()}")
            if stop is not None and stop.is_set():
                raise ServingError(f"tritonserver on {self.folder} was told to end while it started")
            time.sleep(0.1)
        self._complete(until)
        clear_aliases(self.folder / "models", self._laid)
        return self.canary()

    def _without_engine(self) -> bool:
        """Whether our server listens, has thus tried to load its models, and the engine is not among them."""
        try:
            return LISTENS in self._words() and ENGINE not in self._pool.versions()
        except ServingError:
            return False

    def _complete(self, until: float) -> None:
        """The engine answers a moment before the server lets its repository be asked: "Server not ready"."""
        while True:
            try:
                complete(self._pool, self._laid)
                return
            except Unavailable:
                if not self.alive() or time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether our own engine answers: where the port was taken, whoever has it does."""
        if not self.alive():
            return False
        try:
            return self._ours(self._pool.admin({"do": "health"})["pid"])
        except ServingError:
            return False

    def _ours(self, pid: int) -> bool:
        """Whether that process stands below our keeper."""
        keeper_pid = -1 if self._process is None else self._process.pid
        try:
            return any(p.pid == keeper_pid for p in psutil.Process(pid).parents())
        except psutil.NoSuchProcess:
            return False

    def _words(self) -> str:
        """What the log got since the launch; all of it where it was begun anew."""
        log = self.folder / "triton.log"
        if not log.exists():
            return ""
        content = log.read_bytes()
        return content[self._log_from if self._log_from <= len(content) else 0 :].decode(errors="replace")

    def _last_words(self) -> str:
        return "\n".join([f"the end of {self.folder / 'triton.log'}:", *self._words().splitlines()[-15:]])


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
