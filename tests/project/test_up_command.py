"""`penstock up` and `down` as a user meets them, on a site whose Triton and Dask are somebody else's: a page alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.site import Site

PLANT = '[plant]\nname = "p"\nperiod = "1s"\n[tags]\nT = {}\n'
ELSEWHERE = 'dask.scheduler = "tcp://127.0.0.1:1"\ntriton.endpoints = ["127.0.0.1:1"]\n'
DEADLINE_S = 180.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("up")
    (folder / "plant.toml").write_text(PLANT)
    with Site.create(folder / "site", folder / "plant.toml") as site:
        (site.folder / "site.toml").write_text(ELSEWHERE)
    return site.folder


@pytest.fixture
def site(made: Path) -> Iterator[Path]:
    """Nothing is up on it, before and after the test."""
    yield made
    if (made / "up.json").exists():
        penstock("down", "-s", str(made))


def penstock(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def listens(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_stays_until_it_is_interrupted(site: Path, number: signal.Signals) -> None:
    words = [sys.executable, "-m", "penstock", "up", "-s", str(site)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        said = [up.stdout.readline() for _ in range(3)]
        assert said[0].startswith("page    up: http://127.0.0.1:")
        assert "penstock stream --replay SOURCE --site" in said[1]
        address = said[2].removeprefix("page: ").split()[0]
        assert said[2].rstrip().endswith("(Ctrl-C ends it all)")
        with urllib.request.urlopen(address, timeout=DEADLINE_S) as page:
            assert page.status == 200
        refused = penstock("up", "-s", str(site))
        assert refused.returncode == 1
        assert f"is up already (pid {up.pid})" in refused.stderr
        up.send_signal(number)
        _, news = up.communicate(timeout=DEADLINE_S)
        assert (up.returncode, news) == (0, "page    ended\n")
    assert not listens(address)
    assert not (site / "up.json").exists()


def test_in_the_background_it_stays_until_down(site: Path) -> None:
    port = free_port()
    up = penstock("up", "-s", str(site), "--detach", "--port", str(port), "--json")
    assert up.returncode == 0, up.stderr
    told = json.loads(up.stdout.splitlines()[-1])
    assert told["page"] == f"http://127.0.0.1:{port}/"
    assert [row["part"] for row in told["parts"]] == ["page"]
    assert os.getpgid(told["pid"]) != os.getpgid(0)
    assert listens(told["page"])
    assert "held by penstock up" in penstock("doctor", str(site), "--json").stdout
    down = penstock("down", "-s", str(site))
    assert (down.returncode, down.stdout) == (0, "ended: page\n")
    assert not listens(told["page"])
    again = penstock("down", "-s", str(site))
    assert (again.returncode, "is up on" in again.stdout) == (0, True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("background", [True, False])
def test_a_part_that_does_not_come_up_is_told_with_its_reason(site: Path, background: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = penstock("up", "-s", str(site), "--port", str(port), *["--detach"] * background)
    assert run.returncode == 1
    assert f"page did not come up: 127.0.0.1:{port}: the page cannot be served there" in run.stderr
    assert "logs/page.log" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (site / "up.json").exists()


def test_a_wrong_source_is_told_before_anything_starts(site: Path) -> None:
    logs = {path: path.stat().st_size for path in site.glob("logs/*")}
    run = penstock("up", "-s", str(site), "--replay", "no.csv")
    assert (run.returncode, "no.csv: no such file" in run.stderr) == (1, True)
    assert {path: path.stat().st_size for path in site.glob("logs/*")} == logs


def test_a_page_that_dies_comes_back_at_its_address_and_status_says_so(site: Path) -> None:
    told = json.loads(penstock("up", "-s", str(site), "--detach", "--json").stdout)
    os.kill(told["parts"][0]["pid"], signal.SIGKILL)
    until, rows = time.monotonic() + DEADLINE_S, {}
    while "restarted 1 time" not in rows.get("page", {}).get("what", "") and time.monotonic() < until:
        time.sleep(0.2)
        told_now = json.loads(penstock("status", "-s", str(site), "--json").stdout)
        rows = {row["part"]: row for row in told_now["parts"]}
    until = time.monotonic() + DEADLINE_S
    while not listens(told["page"]) and time.monotonic() < until:
        time.sleep(0.1)
    assert listens(told["page"])
    assert "(killed by signal 9)" in rows["page"]["what"]
