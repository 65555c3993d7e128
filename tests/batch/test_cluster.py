"""The embedded cluster as its user meets it: quiet, quick to close, and gone after any kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import pytest

from penstock.cluster import local_cluster

CLOSED_S = 2.5
"""Dask's own patience with a worker is 4 s; then it warns and kills."""
PROGRAM = """
import os, signal, sys, time
from penstock.cluster import local_cluster

def work():
    from penstock.batch.fleet import quiet_tensorflow
    quiet_tensorflow()
    from penstock.batch import network
    model = network.lstm(network.Shape(length=3, features=2, units=2, layers=1, outputs=1, linear=True)).model
    return model.count_params()

if __name__ == "__main__":
    with local_cluster(2) as client:
        match sys.argv[1]:
            case "work":
                print(client.submit(work).result() > 0)
            case "busy":
                future = client.submit(time.sleep, 600)
                time.sleep(0.5)
            case "interrupted":
                future = client.submit(time.sleep, 1)
                time.sleep(0.5)
                for pid in client.run(os.getpid).values():
                    os.kill(pid, signal.SIGINT)
                print(future.result() is None, len(client.scheduler_info()["workers"]))
            case "wait":
                print("up", flush=True)
                time.sleep(600)
        begun = time.monotonic()
    print(time.monotonic() - begun)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("what", ["work", "busy", "interrupted"])
def test_workers_end_at_once_and_say_nothing(program: Path, what: str) -> None:
    run = subprocess.run([sys.executable, str(program), what], capture_output=True, text=True, timeout=180, check=True)
    assert run.stderr == ""
    assert float(run.stdout.split()[-1]) < CLOSED_S


def test_an_import_that_fails_shows_what_was_kept_back() -> None:
    code = (
        "import os\nfrom penstock.batch.fleet import _kept_back\n"
        "with _kept_back(2):\n    os.write(2, b'hidden')\n"
        "with _kept_back(2):\n    os.write(2, b'a word before'); 1 / 0\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.stderr.startswith("a word before")
    assert "ZeroDivisionError" in run.stderr
    assert "hidden" not in run.stderr


def test_a_kill_of_the_whole_group_leaves_no_semaphore(program: Path) -> None:
    run = subprocess.Popen([sys.executable, str(program), "wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert run.stdout is not None
    with run.stdout as out:
        assert out.readline() == b"up\n"
    ours = set(re.findall(r"/dev/shm/(sem\.\S+)", Path(f"/proc/{run.pid}/maps").read_text()))
    assert ours
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(30)
    until = time.monotonic() + 20
    while (left := ours & set(os.listdir("/dev/shm"))) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == set()


def test_a_cluster_leaves_no_default_behind() -> None:
    """xarray asks Dask for its default: a client of ours must not answer, least of all after it has gone."""
    before = dask.config.get("scheduler", None)
    with local_cluster(1) as client:
        assert dask.config.get("scheduler", None) == before
        assert client.submit(abs, -1).result(timeout=60) == 1
    assert dask.config.get("scheduler", None) == before
