"""The hydraulic rig at 50 times its speed through a real mosquitto with the settings that penstock ships.

A gateway publishes from a process of its own. On the way the broker is killed and comes back, and so is the stream.
What lies in the archive at the end is what the publisher's file says, byte for byte.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import plain_archive
import pyarrow as pa
import pytest
from demo_runs import MARK, answer, penstock
from leftovers import processes
from mqtt_peer import Broker

from penstock.data.archive import Archive
from penstock.data.plants.hydraulic_rig import SENSORS, START_NS, hydraulic_rig
from penstock.data.plants.spans import parse_span
from penstock.errors import SourceError
from penstock.serving.triton import Triton
from penstock.speed.status import read_status

SECONDS, RATE = 900, 50
SOURCE = """
[sources.rig]
kind = "mqtt"
topics = ["rig/#"]
tag = "{2}"
lateness = "5min"   # six seconds at this rate: the broker is away for a while
idle = "1h"
"""
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """[SECONDS, 17] float32, from the publisher's file."""
    try:
        table = hydraulic_rig(parse_span(f"0s..{SECONDS}s", "hydraulic-rig"))
    except SourceError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return np.stack([table[name].cast(pa.float64()).to_numpy() for name in SENSORS], axis=1).astype(np.float32)


def stream(site: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", "stream", "-s", str(site), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, MARK: "rig"},
    )  # fmt: skip


def accepted(site: Path) -> int:
    """Readings of the archive's newest commit, from the source, those that came twice too."""
    totals = Archive.open(site / "archive").head().totals
    return totals["rig"].accepted if "rig" in totals else 0


def wait(said: object, why: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not said():  # type: ignore[operator]
        assert time.monotonic() < until, why
        time.sleep(0.1)


def is_up(site: Path, pid: int) -> bool:
    told = read_status(site / "speed")
    return told is not None and told["pid"] == pid and told["sources"]["rig"]["up"]


def row(site: Path) -> dict[str, str]:
    """What `penstock status` says of the source."""
    found = [r for r in answer(penstock("status", "-s", str(site), "--json"))["parts"] if r["part"] == "source rig"]
    assert len(found) == 1
    return found[0]  # type: ignore[no-any-return]


def test_a_broker_and_a_stream_are_killed_and_nothing_is_lost(
    tmp_path: Path, wanted: np.ndarray, triton: Triton
) -> None:
    site, broker = tmp_path / "site", Broker(tmp_path / "broker")
    answer(penstock("init", str(site), "--plant", "hydraulic-rig", "--json"))
    (site / "plant.toml").write_text((site / "plant.toml").read_text() + SOURCE)
    (site / "site.toml").write_text(
        f'archive.commit_every = "1s"\ntriton.endpoints = ["{triton.endpoint}"]\n'
        f'[sources.rig]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
    )
    answer(penstock("check", str(site), "--json"))
    broker.start()
    running = stream(site)
    try:
        wait(lambda: is_up(site, running.pid), "the stream does not find the broker")
        command = [sys.executable, str(Path(__file__).with_name("rig_publisher.py")), str(broker.port)]
        publisher = subprocess.Popen([*command, str(SECONDS), str(RATE)], stdout=subprocess.PIPE, text=True)

        wait(lambda: accepted(site) > 2000, "nothing arrives")
        assert row(site)["state"] == "ok"
        broker.kill()
        wait(lambda: row(site)["state"] == "wrong", "the status does not say that the broker is away")
        broker.start()
        wait(lambda: accepted(site) > 5000, "nothing arrives after the broker came back")
        running.send_signal(signal.SIGKILL)
        running.communicate()
        running = stream(site)

        said, _ = publisher.communicate(timeout=DEADLINE_S)
        assert int(said) == wanted.size
        wait(lambda: len(plain_archive.stored(site, len(SENSORS))) == SECONDS, "some ticks never come")
        time.sleep(3.0)  # readings of the last ticks; two commits
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=DEADLINE_S)
    finally:
        running.kill()
        running.communicate()
        broker.kill()
    assert running.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert (report["rejected"], report["quarantined"]) == (0, 0)

    have = plain_archive.stored(site, len(SENSORS))
    first = START_NS // 10**9
    assert sorted(have) == list(range(first, first + SECONDS))
    for tick, (value, quality, offset) in have.items():
        assert value == wanted[tick - first].tobytes(), tick
        assert quality == np.full(len(SENSORS), plain_archive.PRESENT, np.uint16).tobytes(), tick
        assert offset == np.zeros(len(SENSORS), np.uint32).tobytes(), tick
    assert not processes("rig")
