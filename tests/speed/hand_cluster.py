"""A Dask cluster started by hand: `dask scheduler` and `dask worker` over TLS, the workers as another user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import Authority

START_S = 90.0
PROBE = (
    "import os, subprocess, sys, distributed, penstock.speed.shard;"
    "subprocess.run([sys.executable, '-c', ''], check=True); assert os.getuid()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Somebody who cannot read a folder of `owner`'s with mode 0700."""

    command: tuple[str, ...]
    """What a command is run with to be run as them."""
    owner: int
    what: str


def another_user() -> Other:
    """`nobody`, where that user can run this Python; else a root without its powers, and `nobody` owns the site.

    A checkout below /root, or a Python there, is out of `nobody`'s reach. Skips without root; fails in CI.
    """
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0 or setpriv is None:
        why = "workers as another user: needs root and setpriv (util-linux)"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    nobody = pwd.getpwnam("nobody")
    as_nobody = (setpriv, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    probed = subprocess.run(
        [*as_nobody, sys.executable, "-c", PROBE], cwd="/", capture_output=True, timeout=START_S, check=False
    )
    if probed.returncode == 0:
        return Other(command=as_nobody, owner=0, what="nobody")
    powerless = (setpriv, "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
    return Other(command=powerless, owner=nobody.pw_uid, what="a root without powers")


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A scheduler and workers, each a process group; their words are in `folder`."""

    authority: Authority
    folder: Path
    other: Other
    address: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_scheduler(self) -> None:
        """Wait until it listens."""
        told = self.folder / "scheduler.json"
        more = ("--host", "127.0.0.1", "--port", "0", "--protocol", "tls", "--scheduler-file", str(told))
        self._start("scheduler", (), "scheduler", *more, "--dashboard-address", "127.0.0.1:0")
        deadline = time.monotonic() + START_S
        while not self.address:
            assert self.processes["scheduler"].poll() is None, self.words("scheduler")
            assert time.monotonic() < deadline, self.words("scheduler")
            try:
                self.address = json.loads(told.read_text())["address"]
            except (OSError, ValueError):
                time.sleep(0.05)

    def start_worker(self, name: str) -> None:
        """Whether it is there yet is the scheduler's to say."""
        place = self.folder / f"{name}.d"
        place.mkdir(exist_ok=True)
        place.chmod(0o777)
        more = ("--nthreads", "2", "--resources", "step=1 batch=1", "--memory-limit", "0")
        ours = ("--host", "127.0.0.1", "--no-dashboard", "--name", name, "--local-directory", str(place))
        self._start(name, self.other.command, "worker", self.address, *more, *ours)

    def kill(self, name: str) -> None:
        """With its nanny, as a machine that loses its power."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def words(self, name: str) -> str:
        """What a process wrote."""
        return (self.folder / f"{name}.log").read_text()

    def _start(self, name: str, before: tuple[str, ...], *command: str) -> None:
        cert, key = map(str, self.authority.certificate("scheduler" if name == "scheduler" else "worker"))
        tls = ("--tls-ca-file", str(self.authority.ca), "--tls-cert", cert, "--tls-key", key)
        with (self.folder / f"{name}.log").open("wb") as words:
            self.processes[name] = subprocess.Popen(
                [*before, sys.executable, "-m", "dask", *command, *tls],
                stdout=words, stderr=subprocess.STDOUT, cwd="/", start_new_session=True,
                env={**os.environ, "HOME": str(self.folder), "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            )  # fmt: skip


@contextmanager
def by_hand(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """`folder` must be open to everybody; the site is not in it."""
    cluster = Cluster(authority=Authority(folder / "tls"), folder=folder, other=another_user())
    try:
        cluster.start_scheduler()
        for number in range(workers):
            cluster.start_worker(f"w{number}")
        yield cluster
    finally:
        for name in list(cluster.processes):
            cluster.kill(name)
