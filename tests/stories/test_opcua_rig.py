"""The hydraulic rig at 50 times its speed through a real OPC UA server that keeps a history.

The server runs in a process of its own. On the way it is killed and comes back, and so is the stream: what the rig said
meanwhile is read from the history. What lies in the archive at the end is what the rig's file says, byte for byte.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rig_runs
from demo_runs import MARK, answer, penstock
from leftovers import processes
from plain_archive import stored
from source_peers import free_port

from penstock.data.plants.hydraulic_rig import SENSORS
from penstock.serving.triton import Triton

SECONDS, RATE = 900, 50
SOURCE = """
[sources.rig]
kind = "opcua"
nodes = ["ns=2;s=rig"]
interval = "100ms"
lateness = "5min"   # six seconds at this rate
idle = "1h"
"""


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return rig_runs.rows(SECONDS)


class Rig:
    """The server's process."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir()
        script = Path(__file__).with_name("rig_server.py")
        self._command = [sys.executable, str(script), str(self.port), str(folder), str(SECONDS), str(RATE)]

    def start(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[1] / "speed"), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path, MARK: "rig"},
        )  # fmt: skip

    def tell(self) -> None:
        """Its rows, from where it was."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def told(self) -> int:
        """Readings, once all were told."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


def test_a_server_and_a_stream_are_killed_and_nothing_is_lost(
    tmp_path: Path, wanted: np.ndarray, triton: Triton
) -> None:
    site, rig = tmp_path / "site", Rig(tmp_path / "rig")
    answer(penstock("init", str(site), "--plant", "hydraulic-rig", "--json"))
    (site / "plant.toml").write_text((site / "plant.toml").read_text() + SOURCE)
    (site / "site.toml").write_text(
        f'archive.commit_every = "1s"\ntriton.endpoints = ["{triton.endpoint}"]\n'
        f'[sources.rig]\nurl = "opc.tcp://127.0.0.1:{rig.port}"\n'
    )
    answer(penstock("check", str(site), "--json"))
    rig.start()
    running = rig_runs.stream(site)
    try:
        rig_runs.wait(lambda: rig_runs.is_up(site, running.pid), "the stream does not find the server")
        rig.tell()
        rig_runs.wait(lambda: rig_runs.accepted(site) > 1500, "nothing arrives")
        rig.kill()
        rig_runs.wait(lambda: rig_runs.row(site)["state"] == "wrong", "the status does not say that the server is away")
        rig.start()
        rig.tell()
        before = rig_runs.accepted(site)
        rig_runs.wait(lambda: rig_runs.accepted(site) > before + 1500, "nothing arrives after the server came back")
        running.send_signal(signal.SIGKILL)
        running.communicate()
        running = rig_runs.stream(site)

        assert rig.told() == wanted.size
        rig_runs.wait(lambda: whole(site), "some readings never come")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=rig_runs.DEADLINE_S)
    finally:
        running.kill()
        running.communicate()
        rig.kill()
    assert running.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert (report["rejected"], report["quarantined"]) == (0, 0)
    rig_runs.check_equal(site, wanted)
    assert not processes("rig")


def whole(site: Path) -> bool:
    """Every tick is archived, and the last one whole."""
    have = stored(site, len(SENSORS))
    return len(have) == SECONDS and np.frombuffer(have[max(have)][1], np.uint16).all()
