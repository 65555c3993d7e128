"""The hydraulic rig at many times its speed through a Kafka broker of four partitions.

A gateway publishes from a process of its own. On the way the broker falls silent for some seconds, and the stream is
killed. What lies in the archive at the end is what the publisher's file says, byte for byte. A broker that is killed
cannot be tried: librdkafka's mock cluster has no disk, and no other Kafka is to be had here.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import plain_archive
import pytest
import rig_runs
from demo_runs import answer, penstock
from kafka_peer import KafkaBroker
from leftovers import processes

from penstock.data.plants.hydraulic_rig import SENSORS
from penstock.serving.triton import Triton

SECONDS, RATE, SILENT_S = 600, 50, 4.0
MARK = "rig-kafka"
SOURCE = """
[sources.rig]
kind = "kafka"
topics = ["rig"]
lateness = "10min"   # twelve seconds at this rate: the broker is silent for a while
idle = "1h"
"""


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return rig_runs.rows(SECONDS)


def make_site(site: Path, address: str, triton: str) -> None:
    answer(penstock("init", str(site), "--plant", "hydraulic-rig", "--json"))
    (site / "plant.toml").write_text((site / "plant.toml").read_text() + SOURCE)
    (site / "site.toml").write_text(
        f'archive.commit_every = "1s"\ntriton.endpoints = ["{triton}"]\n'
        f'[sources.rig]\nurl = "kafka://{address}"\n'
        '[sources.rig.options]\n"socket.timeout.ms" = "1000"\n'  # so that silence is noticed soon
    )
    answer(penstock("check", str(site), "--json"))


def complete(site: Path) -> bool:
    """Whether every sensor has a reading at every second."""
    have = plain_archive.stored(site, len(SENSORS)).values()
    return len(have) == SECONDS and all(np.frombuffer(cell[1], np.uint16).all() for cell in have)


def test_a_broker_falls_silent_and_a_stream_is_killed_and_nothing_is_lost(
    tmp_path: Path, wanted: np.ndarray, triton: Triton
) -> None:
    site, broker = tmp_path / "site", KafkaBroker()
    make_site(site, broker.address, triton.endpoint)
    running = rig_runs.stream(site, MARK)
    try:
        rig_runs.wait(lambda: rig_runs.is_up(site, running.pid), "the stream does not find the broker")
        command = [sys.executable, str(Path(__file__).with_name("rig_kafka_publisher.py")), broker.address]
        publisher = subprocess.Popen([*command, str(SECONDS), str(RATE)], stdout=subprocess.PIPE, text=True)

        rig_runs.wait(lambda: rig_runs.accepted(site) > 1500, "nothing arrives")
        broker.halt()
        silent_until = time.monotonic() + SILENT_S
        rig_runs.wait(lambda: not rig_runs.is_up(site, running.pid), "nobody notices that the broker is silent")
        time.sleep(max(0.0, silent_until - time.monotonic()))
        broker.go_on()
        rig_runs.wait(lambda: rig_runs.accepted(site) > 5000, "nothing arrives after the broker answers again")
        running.send_signal(signal.SIGKILL)
        running.communicate()
        running = rig_runs.stream(site, MARK)

        said, _ = publisher.communicate(timeout=rig_runs.DEADLINE_S)
        assert int(said) == wanted.size
        rig_runs.wait(lambda: complete(site), "some readings never come")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=rig_runs.DEADLINE_S)
    finally:
        running.kill()
        running.communicate()
        broker.close()
    assert running.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert (report["rejected"], report["quarantined"], report["late"]) == (0, 0, 0)
    assert len(plain_archive.stored(site, len(SENSORS))) == SECONDS
    rig_runs.check_equal(site, wanted)
    assert not processes(MARK)
