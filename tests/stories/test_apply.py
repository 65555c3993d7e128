"""Ten kinds of change to a plant while it runs, one after the other, and six that are refused.

A gateway sends a row a moment through all of it, and knows every reading. At the end nothing of it is lost, every tick
was said once and answered, and spans of tags that were renamed or retired since are read as they were sent.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import leftovers
import numpy as np
import pyarrow as pa
import pytest
from demo_runs import MARK
from source_peers import free_port

from penstock.data.archive import Archive
from penstock.data.models import Draft
from penstock.data.windows import Reason
from penstock.serving.deploy import Deployer
from penstock.serving.triton import Triton
from penstock.site import Site
from penstock.speed.formats.arrow import long_batch
from penstock.speed.gateway import Gateway
from penstock.speed.source import PART

SECOND = 10**9
BEGIN = 1_780_000_000
"""The first tick."""
PAUSE_S = 0.1
"""Between two ticks' rows: ten times the plant's pace."""
DEADLINE_S = 120.0
PLANT = """
[plant]
name = "kiln"
period = "1s"

[tags]
T1 = { unit = "degC" }
T2 = { unit = "bar" }
OUT0 = { unit = "%" }

[model.out]
target = "OUT0"
inputs = ["T1", "T2"]
window = "12s"

[sources.plc]
kind = "tcp"
lateness = "1s"
idle = "10min"
"""
LATE = """
[model.late]
target = "OUT0"
inputs = ["T2", "T3"]
window = "12s"
"""


def sent_at(name: str, tick: int) -> np.float32:
    return np.float32(1000 * sum(name.encode()) + tick % 997)


class Feeder(threading.Thread):
    """Sends a row for each tick: every name at a tick of its own place in the second."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.names: tuple[str, ...] = ("T1", "T2", "OUT0")
        self.rows: list[tuple[int, tuple[str, ...]]] = []
        """What was sent: (tick, names)."""
        self.stop = threading.Event()
        empty = self._batch(0, ())
        self.gateway = Gateway(("127.0.0.1", port), "plc 1", empty.schema, most=4096)

    def run(self) -> None:
        while not self.stop.wait(PAUSE_S):
            tick, names = BEGIN + len(self.rows), self.names
            self.gateway.send(self._batch(tick, names))
            self.rows.append((tick, names))

    def close(self) -> None:
        self.stop.set()
        self.join(DEADLINE_S)

    @property
    def sent(self) -> int:
        return sum(len(names) for _, names in self.rows)

    @staticmethod
    def _batch(tick: int, names: tuple[str, ...]) -> pa.RecordBatch:
        times = np.full(len(names), tick * SECOND, np.int64)
        values = np.array([sent_at(name, tick) for name in names], np.float32)
        return long_batch(times, np.arange(len(names), dtype=np.int32), list(names), values)


class Story:
    """The site, its stream, and what is changed in it."""

    def __init__(self, folder: Path, triton: Triton, make_artifact: Any) -> None:
        self.folder, self.text, self.make_artifact = folder / "site", PLANT, make_artifact
        self.port, self.mark = free_port(), f"apply-{os.getpid()}"
        self.file = folder / "plant.toml"
        self.file.write_text(PLANT)
        site = (
            f'triton.endpoints = ["{triton.endpoint}"]\ndask.workers = 1\narchive.commit_every = "1s"\n'
            f'[sources.plc]\nurl = "tcp://127.0.0.1:{self.port}"\n'
        )
        self.site = Site.create(self.folder, self.file, site_text=site)
        self.log = (folder / "stream.log").open("w+")
        self.stream: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        words = [sys.executable, "-m", "penstock", "stream", "-s", str(self.folder), "--json"]
        self.stream = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, MARK: self.mark}
        )

    def wait(self, true: Callable[[], object], what: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not true():
            assert self.stream is not None
            if self.stream.poll() is not None:
                self.log.seek(0)
                pytest.fail(f"the stream ended before: {what}: {self.log.read()[-4000:]}")
            assert time.monotonic() < until, what
            time.sleep(0.05)

    def said(self) -> list[int]:
        path = self.folder / "views" / "speed.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as view:
            try:
                return [int(row[0]) for row in view.execute("SELECT tick FROM said ORDER BY tick")]
            except sqlite3.OperationalError:  # it is being made
                return []

    def ticks_go_on(self, after: str) -> None:
        before = len(self.said())
        self.wait(lambda: len(self.said()) > before + 2, f"ticks after {after}")

    def deploy(self, name: str, seed: int) -> None:
        made = self.make_artifact(name, inputs=2, length=12, seed=seed)
        card = {**made.card, "spec": self.site.spec(name).to_json()}
        draft = Draft(name=name, kind="lstm", card=card, golden=made.golden, serving=made.serving)
        self.site.deploy(self.site.models.save(draft))

    def change(self, *kinds: str, **texts: str) -> None:
        """`texts`: what takes the place of what, in turn; all of `kinds` are told, none is refused."""
        for text in texts.values():
            before, _, after = text.partition(" => ")
            assert before in self.text, before
            self.text = self.text.replace(before, after)
        self.file.write_text(self.text)
        done = self.site.apply(self.file, wait_s=DEADLINE_S)
        assert [c["kind"] for c in done["changes"]] == list(kinds)
        assert (done["refused"], done["running"]) == (0, {"stream": True}), done
        self.ticks_go_on(", ".join(kinds))

    def refused(self, what: str, text: str) -> None:
        before = (self.folder / "plant.toml").read_bytes(), self.site.registry.lookup(), self.site.edition
        old, _, new = text.partition(" => ")
        assert old in self.text
        self.file.write_text(self.text.replace(old, new))
        done = self.site.apply(self.file)
        assert (done["applied"], done["refused"] > 0) == (None, True), what
        assert what in " ".join(c["refused"] or "" for c in done["changes"]), done["changes"]
        assert ((self.folder / "plant.toml").read_bytes(), self.site.registry.lookup(), self.site.edition) == before

    def end(self) -> dict[str, Any]:
        assert self.stream is not None
        self.stream.send_signal(signal.SIGINT)
        out, _ = self.stream.communicate(timeout=DEADLINE_S)
        self.log.seek(0)
        assert self.stream.returncode == 0, self.log.read()[-4000:]
        return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]

    def close(self) -> None:
        if self.stream is not None:
            self.stream.kill()
            self.stream.communicate()
        self.site.close()
        self.log.close()


@pytest.mark.timeout(900)
def test_ten_kinds_of_change_to_a_plant_that_runs_lose_nothing(tmp_path: Path, triton: Triton, make_artifact) -> None:
    story = Story(tmp_path, triton, make_artifact)
    feeder = Feeder(story.port)
    try:
        tell(story, feeder)
    finally:
        feeder.stop.set()
        feeder.gateway.close()
        story.close()
        with Deployer(triton.endpoint, drain_s=0.1) as deploys:
            deploys.ensure([])
    assert leftovers.wait_until_gone(story.mark) == []


def tell(story: Story, feeder: Feeder) -> None:
    story.deploy("out", 1)
    story.begin()
    feeder.start()
    story.ticks_go_on("the start")

    feeder.names = ("T1", "T2", "OUT0", "T3")  # nobody knows T3 yet: rejected, and counted
    story.change("tag added", t='[tags]\n => [tags]\nT3 = { unit = "kg" }\n')
    story.change("tag renamed", t='T1 = {  => HEAT = { aliases = ["T1"], ', m='"T1", "T2" => "HEAT", "T2"')
    feeder.names = ("HEAT", "T2", "OUT0", "T3")
    story.change("tag rules", t='unit = "bar" => unit = "bar", range = [-1e9, 1e9]')
    story.change("tag scale", t='unit = "kg" => unit = "kg", scale = 2')
    story.change("model added", m="[sources.plc] => " + LATE + "\n[sources.plc]")
    story.deploy("late", 2)
    story.change("model windows", m='"HEAT", "T2"]\nwindow = "12s" => "HEAT", "T2"]\nwindow = "24s"')
    story.change("model live", m='window = "24s" => window = "24s"\ninterval = 0.9')
    story.change("source changed", s='lateness = "1s" => lateness = "2s"')
    story.change("aggregates changed", a='[sources.plc] => [aggregates]\nperiods = ["10s"]\n\n[sources.plc]')

    story.refused("keeps its period", 'period = "1s" => period = "2s"')
    story.refused("keeps its dtype", 'unit = "bar" => dtype = "float64", unit = "bar"')
    story.refused("become a computed one", 'T3 = { unit = "kg", scale = 2 } => T3 = { expr = "HEAT * 2" }')
    story.refused("another target or time", 'window = "24s" => window = "24s"\nhorizon = "5s"')

    story.change("model removed", m=LATE + " => ")
    story.refused("late@1 reads it", 'T3 = { unit = "kg", scale = 2 }\n => ')
    story.site.undeploy("late")
    story.change("tag retired", "aggregates changed", t='T3 = { unit = "kg", scale = 2 }\n => ')

    story.refused("have a history each", 'aliases = ["T1"],  => aliases = ["T1", "T3"], ')
    story.ticks_go_on("all of it")
    feeder.close()
    feeder.gateway.flush(DEADLINE_S)
    report = story.end()
    check(story, feeder, report)


def check(story: Story, feeder: Feeder, report: dict[str, Any]) -> None:
    # sent = accepted + rejected + quarantined
    totals = [
        t for name, t in Archive.open(story.folder / "archive").head().totals.items() if name.split(PART)[0] == "plc"
    ]
    assert sum(t.accepted + t.rejected + t.quarantined for t in totals) == feeder.sent
    assert report["readings"] + report["rejected"] + report["quarantined"] == feeder.sent
    assert sum(t.quarantined for t in totals) == 0
    # every tick was said, once, and answered
    said = story.said()
    assert said == list(range(said[0], said[-1] + 1))
    assert report["ticks"] == len(said)
    assert (BEGIN - 1 <= said[0] <= BEGIN, report["failed_requests"]) == (True, 0)
    begun = BEGIN + 11 - said[0]  # a window's length
    with closing(story.site.desk().speed()) as view:  # type: ignore[type-var]
        rows = view.read("out", said[0], said[-1] + 1)  # type: ignore[union-attr]
    assert rows.ticks.tolist() == said
    assert set(rows.reasons[begun:].tolist()) == {Reason.OK}
    # and can be asked for, by the window of the version that spoke
    grid = story.site.readings.grid
    answer = story.site.query("out", grid.time(said[begun]), grid.time(said[-1] + 1), strict=True)
    assert np.isfinite(answer["prediction"].values).all()
    # old spans are what was sent
    stored = story.site.archive(retired=True).load()
    ticks = stored.time.values.astype("datetime64[s]").astype(np.int64)
    assert stored.tag.values.tolist() == ["HEAT", "T2", "OUT0", "T3"]
    by_tick = dict(feeder.rows)
    for name, was in (("HEAT", "T1"), ("T2", "T2"), ("OUT0", "OUT0")):
        column = stored["value"].sel(tag=name).values
        wanted = [sent_at(name if name in by_tick[t] else was, t) for t in ticks.tolist()]
        np.testing.assert_array_equal(column, np.array(wanted, np.float32))
    retired = stored["value"].sel(tag="T3").values
    there = np.flatnonzero(np.isfinite(retired))
    raw = np.array([sent_at("T3", t) for t in ticks[there].tolist()], np.float32)
    factor = retired[there] / raw
    change = int(np.flatnonzero(factor == 2)[0])
    assert set(factor[:change]) == {1.0}, "what was stored stays as it was"
    assert set(factor[change:]) == {2.0}
    assert np.array_equal(there, np.arange(there[0], there[-1] + 1))
