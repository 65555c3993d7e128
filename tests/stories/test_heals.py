"""Triton dies twice while a stream runs; the stream does not notice more than a wait.

1. A site streams rows of 2014.
2. kill -9 of the engine's process, then of tritonserver: each is mended by the stream's own watch.
3. The stream ends by itself; every tick was said, and no prediction is missing.
4. Every prediction is what Keras says to the window that batch cuts, within 1e-5 of the target's scale.
5. Nothing is left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import leftovers
import psutil
from conftest import TICKS, Demo
from demo_runs import MARK, answer, first_tick, penstock
from said_right import check_predictions

from penstock.data.views.speed_view import SpeedView
from penstock.serving.keeper import SHM
from penstock.serving.launch import shm_prefix
from penstock.serving.running import Running
from penstock.serving.triton import Triton
from penstock.serving.watch import Watched, read_watched

MORE = 350
RATE = 10 * 3600
"""Event seconds per second: the rows last 35 s, and Triton is away for half of them."""
DEADLINE_S = 120.0


def wait_for(true: Callable[[], object], stream: subprocess.Popen[str], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not true():
        assert stream.poll() is None, f"the stream ended before: {what}"
        assert time.monotonic() < until, what
        time.sleep(0.05)


def running(site: Path) -> Running:
    found = Triton.running(site / "triton")
    assert found is not None
    return found


def watched(site: Path) -> Watched:
    found = read_watched(site / "triton", running(site).endpoint)
    assert found is not None
    return found


def engine(site: Path) -> int:
    (stub,) = psutil.Process(running(site).server).children(recursive=True)
    return int(stub.pid)


def test_a_triton_that_dies_twice_costs_a_stream_only_a_wait(demo: Demo, tmp_path: Path) -> None:
    site, mark = tmp_path / "site", uuid.uuid4().hex
    shutil.copytree(demo.site, site)
    first = first_tick(2014) + TICKS
    stream = subprocess.Popen(
        [
            *(sys.executable, "-m", "penstock", "stream", "-s", str(site), "--replay", "gas-turbine:2014"),
            *("--rate", str(RATE), "--ticks", str(TICKS + MORE), "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: mark},
    )
    view = SpeedView.open(site / "views" / "speed.sqlite")
    wait_for(lambda: (view.last_tick() or 0) > first + 10, stream, "ticks are said")
    endpoint = running(site).endpoint
    memory = leftovers.mapped(mark)
    os.kill(engine(site), signal.SIGKILL)
    wait_for(lambda: watched(site).repaired == 1, stream, "the engine is repaired")
    said = view.last_tick() or 0
    wait_for(lambda: (view.last_tick() or 0) > said, stream, "ticks are said again")
    memory |= leftovers.mapped(mark)
    os.kill(running(site).server, signal.SIGKILL)
    wait_for(lambda: Triton.running(site / "triton") and watched(site).restarted == 1, stream, "the server is back")
    assert running(site).endpoint == endpoint
    told = {row["part"]: row for row in answer(penstock("status", "--site", str(site), "--json"))["parts"]}
    out, err = stream.communicate(timeout=DEADLINE_S)

    assert stream.returncode == 0, err[-4000:]
    assert "Traceback" not in err
    assert told["triton"]["state"] == "ok"
    assert "repaired 2 times, last at" in told["triton"]["what"]
    report = json.loads(out.splitlines()[-1])
    assert report["ended"]
    assert (report["ticks"], report["failed_requests"] > 0) == (MORE, True)
    assert check_predictions(site, view, first, first + MORE) > 3 * MORE // 2
    view.close()
    assert leftovers.wait_until_gone(mark) == []
    assert not leftovers.listening(endpoint)
    assert memory
    assert memory & set(os.listdir("/dev/shm")) == set()
    assert not list(SHM.glob(f"{shm_prefix(site / 'triton')}*"))
