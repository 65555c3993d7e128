"""A plant on two Triton servers loses one after the other, and no tick.

1. site.toml names two servers, both empty; a stream deploys to both and streams rows of 2014.
2. kill -9 of the first one: ticks go on from the second, `status` tells of each, a deploy is refused with its reason.
3. The first one comes back empty, on its old address: the stream gives it its models again.
4. kill -9 of the second one: ticks go on from the first.
5. No request failed; every prediction is what Keras says to the window that batch cuts; the metrics count them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import leftovers
from conftest import TICKS, Demo
from demo_runs import MARK, answer, first_tick, penstock
from prometheus_client.parser import text_string_to_metric_families
from said_right import check_predictions

from penstock.data.views.speed_view import SpeedView
from penstock.serving.deploy import Deployer
from penstock.serving.triton import Triton, free_port

RATE = 5 * 3600
"""Event seconds per second: five ticks a second."""
MODELS = {"nox", "tey", "nox_ahead"}
DEADLINE_S = 180.0


class Story:
    """A running stream, and the clock of its deadlines."""

    def __init__(self, site: Path, metrics: int, mark: str) -> None:
        self.site, self.metrics = site, metrics
        self.stream = subprocess.Popen(
            [
                *(sys.executable, "-m", "penstock", "stream", "-s", str(site), "--replay", "gas-turbine:2014"),
                *("--rate", str(RATE), "--metrics-port", str(metrics), "--json"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: mark},
        )
        self.view = SpeedView.open(site / "views" / "speed.sqlite")

    def wait_for(self, true: Callable[[], object], what: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not true():
            assert self.stream.poll() is None, (
                f"the stream ended before: {what}: {self.stream.communicate()[1][-4000:]}"
            )
            assert time.monotonic() < until, what
            time.sleep(0.05)

    def ticks_go_on(self, what: str) -> None:
        before = self.view.last_tick() or 0
        self.wait_for(lambda: (self.view.last_tick() or 0) > before + 10, what)

    def metric(self, name: str, **labels: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as told:
            families = text_string_to_metric_families(told.read().decode())
            return sum(s.value for f in families for s in f.samples if s.name == name and s.labels == labels)

    def triton(self) -> dict[str, str]:
        rows = answer(penstock("status", "--site", str(self.site), "--json"))["parts"]
        return next(row for row in rows if row["part"] == "triton")

    def end(self) -> dict[str, int]:
        self.stream.send_signal(signal.SIGINT)
        out, err = self.stream.communicate(timeout=DEADLINE_S)
        assert self.stream.returncode == 0, err[-4000:]
        assert "Traceback" not in err
        return json.loads(out.splitlines()[-1])


def kill(server: Triton) -> None:
    os.kill(Triton.running(server.folder).server, signal.SIGKILL)


def held(endpoint: str) -> set[str]:
    with Deployer(endpoint) as there:
        return {m.name for m in there.members()}


def test_one_of_two_tritons_dies_and_then_the_other(demo: Demo, tmp_path: Path) -> None:
    site, mark = tmp_path / "site", uuid.uuid4().hex
    shutil.copytree(demo.site, site)
    first = first_tick(2014) + TICKS
    with Triton.start(tmp_path / "a", capacity=8) as a, Triton.start(tmp_path / "b", capacity=8) as b:
        settings = (site / "site.toml").read_text() if (site / "site.toml").exists() else ""
        (site / "site.toml").write_text(f'{settings}\n[triton]\nendpoints = ["{a.endpoint}", "{b.endpoint}"]\n')
        story = Story(site, free_port(), mark)
        story.wait_for(lambda: (story.view.last_tick() or 0) > first + 10, "ticks are said")
        assert held(a.endpoint) == held(b.endpoint) == MODELS
        told = story.triton()
        assert (told["state"], told["what"].count("Triton 2.51.0, 3 models")) == ("ok", 2)

        kill(a)
        story.ticks_go_on("ticks are said by the second server")
        told = story.triton()
        assert told["state"] == "wrong"
        assert f"{b.endpoint}: Triton 2.51.0, 3 models" in told["what"]
        assert a.endpoint in told["what"].replace(b.endpoint, "")
        refused = penstock("deploy", "nox", "--site", str(site))
        assert refused.returncode == 1
        assert f"{a.endpoint}: " in refused.stderr
        assert "A change goes to every endpoint or to none" in refused.stderr

        a.stop()
        with Triton.start(tmp_path / "empty", capacity=8, ports=[int(a.endpoint.rpartition(":")[2])]) as back:
            assert back.endpoint == a.endpoint
            story.wait_for(lambda: held(back.endpoint) == MODELS, "the stream gives it its models")
            kill(b)
            story.ticks_go_on("ticks are said by the server that came back")
            said = story.metric("penstock_requests_total", model="nox")
            assert story.metric("penstock_endpoint_requests_total", endpoint=back.endpoint) > 10
            assert story.metric("penstock_errors_total", model="nox", kind="unavailable") == 0
            report = story.end()

    assert report["failed_requests"] == 0
    assert said > 20
    last = story.view.last_tick() + 1
    assert report["ticks"] == last - first
    assert check_predictions(site, story.view, first, last) > 60
    story.view.close()
    assert leftovers.wait_until_gone(mark) == []
