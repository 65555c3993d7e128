"""A mosquitto of a benchmark's own, with the settings that penstock ships, and a process that publishes flat out."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import Unavailable

CONF = Path(__file__).parents[2] / "deploy" / "mosquitto.conf"
START_S = 30.0
STOP_S = 10.0
QUICK = ("autosave_on_changes true", "autosave_on_changes false")
"""What makes the broker itself the limit: it writes its whole store after every change."""


def mosquitto() -> str | None:
    """The program; None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """The port of a running broker, gone when the block ends. Raises Unavailable where it does not start."""
    program = mosquitto()
    if program is None or not CONF.exists():
        raise Unavailable("mosquitto or deploy/mosquitto.conf is missing: apt-get install mosquitto, in a checkout")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
    conf = CONF.read_text().replace("listener 1883", f"listener {port}").replace(*QUICK)
    conf = conf.replace("persistence_location ./", f"persistence_location {folder}/")
    path = folder / "mosquitto.conf"
    path.write_text(conf)
    path.chmod(0o644)
    folder.chmod(0o777)  # started by root, it becomes another user
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(path)], stdout=log, stderr=log)
    try:
        _await(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise Unavailable(f"mosquitto did not listen on 127.0.0.1:{port} within {START_S:g} s")


@contextmanager
def publisher(port: int, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that publishes `kind` ("json" or "arrow") flat out until the block ends."""
    words = [sys.executable, "-m", "penstock.bench.publisher", str(port), kind]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
