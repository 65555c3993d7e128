"""A Triton that stands still (SIGSTOP) under a live plant of ten ticks a second: what each policy promises.

A gateway publishes 500 tags at 10 Hz through a real mosquitto. Whatever scoring does meanwhile, the archive holds every
reading at the end, byte for byte.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pandas as pd
import pytest
import rig_runs
from leftovers import processes
from mqtt_peer import Broker
from paho.mqtt.enums import CallbackAPIVersion
from ready_made import onnx_file

from penstock.serving.triton import Triton
from penstock.site import Site
from penstock.speed.formats.arrow import dense_batch, dense_schema, payload
from penstock.speed.status import read_status

TAGS, PERIOD_NS = 500, 10**8
NAMES = [f"T{i:03}" for i in range(TAGS)]
PLANT = """
[plant]
name = "brisk"
period = "100ms"
[tags]
{tags}
[sources.rig]
kind = "mqtt"
topics = ["plant/rows"]
format = "arrow"
lateness = "200ms"
idle = "5s"
"""
SITE = """
archive.commit_every = "1s"
triton.endpoints = ["{endpoint}"]
stream = {{ overload = "{policy}", behind = "1s" }}
[sources.rig]
url = "mqtt://127.0.0.1:{port}"
"""


class Plant(threading.Thread):
    """Publishes a row every 100 ms until told to stop; keeps what it published."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.enough, self.rows, self.first = threading.Event(), list[np.ndarray](), time.time_ns() // PERIOD_NS + 5
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def run(self) -> None:
        schema, told = dense_schema(NAMES), []
        while not self.enough.is_set():
            at = (self.first + len(self.rows)) * PERIOD_NS
            self.enough.wait(max(0.0, (at - time.time_ns()) / 1e9))
            row = np.random.default_rng(len(self.rows)).normal(0, 20, (1, TAGS)).astype(np.float32)
            batch = dense_batch(schema, np.array([at], np.int64), row)
            told.append(self._client.publish("plant/rows", payload(batch), qos=1))
            self.rows.append(row[0])
        for each in told:
            each.wait_for_publish(60)
        self._client.disconnect()
        self._client.loop_stop()


def told(folder: Path) -> dict[str, Any]:
    found = read_status(folder / "speed")
    assert found is not None
    return found


def made(folder: Path, triton: Triton, port: int, policy: str) -> Site:
    """A site with a minute of history, and a ready-made model that is live."""
    folder.mkdir()
    (folder / "plant.toml").write_text(PLANT.format(tags="\n".join(f"{name} = {{}}" for name in NAMES)))
    site = Site.create(folder / "site", folder / "plant.toml")
    (site.folder / "site.toml").write_text(SITE.format(endpoint=triton.endpoint, port=port, policy=policy))
    site.close()
    site = Site.open(folder / "site")
    times = pd.to_datetime((time.time_ns() // PERIOD_NS - 3000 + np.arange(600)) * PERIOD_NS, utc=True)
    site.load(pd.DataFrame({"time": times, **{name: np.sin(np.arange(600) / 9) for name in NAMES[:4]}}))
    (folder / "linear.onnx").write_bytes(onnx_file())
    site.deploy(folder / "linear.onnx", name=f"soft-{policy}", target="T003", inputs=NAMES[:3], window="600ms")
    return site


@pytest.mark.parametrize("policy", ["newest", "block"])
def test_a_triton_that_stands_still(tmp_path: Path, triton: Triton, policy: str) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    name, server = f"soft-{policy}", Triton.running(triton.folder)
    assert server is not None
    pid = server.server
    with made(tmp_path / "made", triton, broker.port, policy) as site:
        running = rig_runs.stream(site.folder, "overload")
        try:
            rig_runs.wait(lambda: rig_runs.is_up(site.folder, running.pid), "the stream does not find the broker")
            plant = Plant(broker.port)
            plant.start()
            rig_runs.wait(lambda: told(site.folder)["report"]["predictions"] > 20, "nothing is said")
            os.kill(pid, signal.SIGSTOP)
            if policy == "newest":
                rig_runs.wait(lambda: told(site.folder)["report"]["passed_ticks"] > 20, "nothing is passed over")
            else:
                rig_runs.wait(lambda: told(site.folder)["held"], "nobody is held back")
                accepted = told(site.folder)["report"]["readings"]
                sent = len(plant.rows)
                rig_runs.wait(lambda: len(plant.rows) > sent + 30, "the plant stands still")
                assert told(site.folder)["report"]["readings"] < accepted + 10 * TAGS, "it is read all the same"
            os.kill(pid, signal.SIGCONT)
            said = told(site.folder)["report"]["predictions"]
            rig_runs.wait(lambda: told(site.folder)["report"]["predictions"] > said + 10, "nothing is said afterwards")
            plant.enough.set()
            plant.join(60)
            wanted = len(plant.rows) * TAGS
            rig_runs.wait(lambda: rig_runs.accepted(site.folder) >= wanted, "some readings never come")
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=rig_runs.DEADLINE_S)
        finally:
            os.kill(pid, signal.SIGCONT)
            running.kill()
            running.communicate()
            broker.kill()
        assert running.returncode == 0, err
        report = json.loads(out.splitlines()[-1])
        assert (report["late"], report["rejected"], report["quarantined"]) == (0, 0, 0)
        assert_archived(site, plant)
        since = pd.Timestamp((plant.first - 10) * PERIOD_NS, tz="UTC")  # what the lateness closes before its first row
        answered = site.query(name, start=since)
        reasons = answered["reason"].values.tolist()
        assert reasons.count("OVERLOAD") == report["passed"]
        assert (report["passed"] > 20) == (policy == "newest")
        holes = answered["layer"].values == ""  # before its first tick, and behind its last
        assert not (holes & (np.arange(len(holes)) > 10) & (np.arange(len(holes)) < len(holes) - 10)).any()
        assert "NO_ANSWER" not in answered["reason"].values[~holes].tolist()
        if policy == "newest":
            site.recompute(name)
            filled = site.query(name, start=since)["reason"].values.tolist()
            assert "OVERLOAD" not in filled[:-20], "recomputing fills the hole"
    assert not processes("overload")


def assert_archived(site: Site, plant: Plant) -> None:
    cells = site.readings.read(site.registry.ids(NAMES), plant.first, plant.first + len(plant.rows))
    assert cells.values.tobytes() == np.array(plant.rows).tobytes()
