"""A site that is up, and what it takes to bring it down.

1. `penstock up --detach` starts Triton, Dask, stream and page; a second one is refused.
2. kill -9 of the stream, the page, a worker, Dask, Triton's server and the process that holds it, in turn: each comes
   back where it was, `status` says what happened, and ticks are said again.
3. `penstock down` ends them in order.
4. Up again, the replay goes on where it stopped and ends by itself, which is no fall.
5. kill -9 of the supervisor: all of it ends by itself, `status` says so, `down` has nothing to do.
6. The archive is the source byte for byte, every tick was said once, nothing is left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import leftovers
import plain_archive
import psutil
import pytest
from conftest import TICKS, Demo
from demo_runs import answer, first_tick, penstock

from penstock.serving.keeper import SHM
from penstock.serving.launch import shm_prefix
from penstock.serving.triton import Triton
from penstock.serving.watch import read_watched
from penstock.up import record
from penstock.up.record import PartRecord, State

RATE = 5 * 3600
"""Event seconds per second: five ticks a second, so that the rows outlast the kills on any machine."""
MORE = 40
"""Ticks that are left for the second time."""
DEADLINE_S = 120.0
PARTS = ("triton", "dask", "stream", "page")


def wait_for(true: Callable[[], object], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def part(site: Path, name: str) -> PartRecord:
    told = record.read(site)
    found = told.part(name) if told else None
    assert found is not None
    return found


def said(site: Path) -> list[int]:
    """Ticks in the speed view from 2014's first new one on, as often as they stand there."""
    with closing(sqlite3.connect(f"file:{site / 'views' / 'speed.sqlite'}?mode=ro", uri=True, timeout=5)) as view:
        rows = view.execute("SELECT tick FROM said WHERE tick >= ? ORDER BY tick", (first_tick(2014) + TICKS,))
        return [int(row[0]) for row in rows]


def status(site: Path) -> dict[str, dict[str, str]]:
    told: dict[str, Any] = answer(penstock("status", "--site", str(site), "--json"))
    return {row["part"]: row for row in told["parts"]}


def ticks_go_on(site: Path, after: str) -> None:
    before = len(said(site))
    wait_for(lambda: len(said(site)) > before + 2, f"ticks are said again after the kill of {after}")


def kill_part(site: Path, name: str) -> None:
    """The process that holds the part: it is back at the address it had."""
    before = part(site, name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: part(site, name).restarts == before.restarts + 1, f"{name} is started again")
    wait_for(lambda: part(site, name).state is State.UP, f"{name} is up again")
    assert part(site, name).address == before.address
    ticks_go_on(site, name)


kill_stream, kill_page, kill_dask, kill_triton = (
    partial(kill_part, name=name) for name in ("stream", "page", "dask", "triton")
)


def kill_worker(site: Path) -> None:
    dask = psutil.Process(part(site, "dask").pid)
    worker = next(p for p in dask.children(recursive=True) if "spawn_main" in " ".join(p.cmdline()))
    worker.kill()
    wait_for(lambda: "2 workers, restarted 1" in part(site, "dask").what, "the worker is started again")
    ticks_go_on(site, "a worker")


def kill_server(site: Path) -> None:
    """Triton's own process, which its holder mends."""
    running = Triton.running(site / "triton")
    assert running is not None
    os.kill(running.server, signal.SIGKILL)

    def mended() -> bool:
        told = read_watched(site / "triton", running.endpoint)
        return told is not None and told.restarted == 1

    wait_for(mended, "the server is back")
    ticks_go_on(site, "tritonserver")


@pytest.mark.timeout(900)
def test_every_part_may_be_killed_and_nothing_is_lost_or_left(demo: Demo, tmp_path: Path) -> None:
    site, mark = tmp_path / "site", uuid.uuid4().hex
    shutil.copytree(demo.site, site)
    where = ("--site", str(site))
    stream = ("up", *where, "--detach", "--replay", "gas-turbine:2014", "--json")

    # 1
    told = answer(penstock(*stream, "--rate", str(RATE), mark=mark))
    addresses = {row["part"]: row["address"] for row in told["parts"]}
    assert set(addresses) == set(PARTS)
    assert told["page"].startswith("http://127.0.0.1:")
    refused = penstock("up", *where)
    assert (refused.returncode, str(told["pid"]) in refused.stderr, "Traceback" in refused.stderr) == (1, True, False)
    wait_for(lambda: len(said(site)) > 5, "ticks are said")

    # 2
    memory: set[str] = set()
    for kill in (kill_worker, kill_stream, kill_page, kill_dask, kill_server, kill_triton):
        memory |= leftovers.mapped(mark)
        kill(site)
    rows = status(site)
    for name in PARTS:
        assert rows[name]["state"] == "ok", rows[name]
        assert "restarted 1 time, last at " in rows[name]["what"], rows[name]
        assert "(killed by signal 9)" in rows[name]["what"], rows[name]
    assert answer(penstock("deploy", "nox", *where, "--json", mark=mark))["live"] == "nox@1"

    # 3
    assert answer(penstock("down", *where, "--json"))["ended"] == ["stream", "page", "dask", "triton"]
    assert leftovers.wait_until_gone(mark) == []

    # 4
    end = TICKS + len(said(site)) + MORE
    supervisor = answer(penstock(*stream, "--ticks", str(end), mark=mark))["pid"]
    wait_for(lambda: part(site, "stream").state is State.ENDED, "the replay is over")
    memory |= leftovers.mapped(mark)
    assert part(site, "stream").restarts == 0
    assert status(site)["stream"]["what"].startswith("ended after")

    # 5
    os.kill(supervisor, signal.SIGKILL)
    assert leftovers.wait_until_gone(mark, 30.0) == []
    gone = status(site)["up"]
    assert (gone["state"], f"pid {supervisor}" in gone["what"]) == ("wrong", True)
    assert answer(penstock("down", *where, "--json")) == {"ended": []}
    assert "up" not in status(site)

    # 6
    spans = [(year, 0, 10**6) for year in (2011, 2012, 2013)]
    plain_archive.check_equal(site, [*spans, (2014, 0, end)])
    assert said(site) == list(range(first_tick(2014) + TICKS, first_tick(2014) + end))
    assert not [a for a in addresses.values() if a and leftovers.listening(a.rpartition("//")[2].rstrip("/"))]
    assert memory
    assert memory & set(os.listdir("/dev/shm")) == set()
    assert not list(SHM.glob(f"{shm_prefix(site / 'triton')}*"))
    assert json.loads((site / "speed" / "status.json").read_text())["report"]["ended"]
