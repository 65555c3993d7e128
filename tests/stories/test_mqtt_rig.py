"""The hydraulic rig at 50 times its speed through a real mosquitto with the settings that penstock ships.

A gateway publishes from a process of its own. On the way the broker is killed and comes back, and so is the stream.
What lies in the archive at the end is what the publisher's file says, byte for byte.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rig_runs
from demo_runs import answer, penstock
from leftovers import processes
from mqtt_peer import Broker

from penstock.data.plants.hydraulic_rig import SENSORS
from penstock.serving.triton import Triton

SECONDS, RATE = 900, 50
SOURCE = """
[sources.rig]
kind = "mqtt"
topics = ["rig/#"]
tag = "{2}"
lateness = "5min"   # six seconds at this rate: the broker is away for a while
idle = "1h"
"""


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return rig_runs.rows(SECONDS)


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
    running = rig_runs.stream(site)
    try:
        rig_runs.wait(lambda: rig_runs.is_up(site, running.pid), "the stream does not find the broker")
        command = [sys.executable, str(Path(__file__).with_name("rig_publisher.py")), str(broker.port)]
        publisher = subprocess.Popen([*command, str(SECONDS), str(RATE)], stdout=subprocess.PIPE, text=True)

        rig_runs.wait(lambda: rig_runs.accepted(site) > 2000, "nothing arrives")
        assert rig_runs.row(site)["state"] == "ok"
        broker.kill()
        rig_runs.wait(lambda: rig_runs.row(site)["state"] == "wrong", "the status does not say that the broker is away")
        broker.start()
        rig_runs.wait(lambda: rig_runs.accepted(site) > 5000, "nothing arrives after the broker came back")
        running.send_signal(signal.SIGKILL)
        running.communicate()
        running = rig_runs.stream(site)

        said, _ = publisher.communicate(timeout=rig_runs.DEADLINE_S)
        assert int(said) == wanted.size
        rig_runs.wait(
            lambda: len(rig_runs.plain_archive.stored(site, len(SENSORS))) == SECONDS, "some ticks never come"
        )
        time.sleep(3.0)  # readings of the last ticks; two commits
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=rig_runs.DEADLINE_S)
    finally:
        running.kill()
        running.communicate()
        broker.kill()
    assert running.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert (report["rejected"], report["quarantined"]) == (0, 0)

    rig_runs.check_equal(site, wanted)
    assert not processes("rig")
