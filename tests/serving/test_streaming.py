"""Through the real Triton: what a plant's ticks are answered by rows is what the models say of the whole windows.

Whatever happens between: late readings, gaps, ticks asked twice, models left out, deploys, an engine that is killed,
a server that stands still and goes on after its caller has gone.
"""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from penstock.data.scoring import Ask
from penstock.errors import ServingError
from penstock.serving.bundle import Bundle
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.serving.score import Score
from penstock.serving.streaming import Stream
from penstock.serving.triton import Triton

SHAPES = {
    "lime": {"inputs": 3, "length": 12, "units": 8}, "kiln": {"inputs": 3, "length": 12, "units": 8},
    "stack": {"inputs": 6, "length": 20, "units": 12, "layers": 2}, "mill": {"inputs": 4, "length": 1, "units": 5},
}  # fmt: skip
LAST = "past"
"""A model with a past target: its inputs are relative to the newest row, so it has no state."""
EVENTS = ["late", "gap", "again", "without", "deploy", "stands still", "killed"]
CALM = 6
"""Ordinary ticks between two events."""


class Plant:
    """The last rows of each model's inputs, and what is asked of them."""

    def __init__(self, score, by_name, lengths):
        self.score, self.by_name, self.lengths = score, by_name, lengths
        self.random = np.random.default_rng(8)
        self.past = {name: self.random.normal(20, 5, (60, 8)).astype(np.float32) for name in lengths}

    def move(self, rows=1):
        for name, past in self.past.items():
            new = self.random.normal(20, 5, (rows, 8)).astype(np.float32)
            self.past[name] = np.concatenate([past, new])[-60:]

    def ask(self, besides=()):
        """A tick; every answer is compared with what the model says by its name."""
        members = [m for m in self.score.members() if m.name in self.lengths and m.name not in besides]
        windows = [self.past[m.name][-m.spec.length :, : len(m.spec.features)].copy() for m in members]
        said = self.score.score([Ask(member=m, windows=x[None]) for m, x in zip(members, windows, strict=True)])
        for member, x, s in zip(members, windows, said, strict=True):
            right = self.by_name.predict(member.name, x)
            assert s.version == right.version
            assert np.abs(s.values - right.values).max() <= 1e-5, member.name
        return len(members)


def test_rows_and_windows_say_the_same_whatever_happens(tmp_path, make_artifact):
    versions = {
        name: [make_artifact(name, seed=v, relative=int(name == LAST), **shape) for v in range(2)]
        for name, shape in (SHAPES | {LAST: SHAPES["lime"]}).items()
    }
    with (
        Triton.start(tmp_path / "triton", capacity=16) as server,
        Pool(server.endpoint, deadline_s=3.0) as pool,
        Pool(server.endpoint, deadline_s=10.0) as by_name,
        Deployer(server.endpoint, drain_s=0.02) as deployer,
    ):
        for artifacts in versions.values():
            deployer.deploy(artifacts[0])
        plant = Plant(Score(pool), by_name, {name: a[0].golden.windows.shape[1] for name, a in versions.items()})
        stream = plant.score.stream
        for number, event in enumerate(EVENTS * 2):
            match event:
                case "late":
                    plant.past["lime"][-3, 1] += 1
                case "gap":
                    plant.move(2)
                case "again":
                    plant.ask()
                case "without":
                    plant.ask(besides={"kiln", LAST})
                    plant.move()
                case "deploy":
                    for name in versions:
                        deployer.deploy(versions[name][number % 2])
                case "stands still":
                    pid = Triton.running(server.folder).server
                    os.kill(pid, signal.SIGSTOP)
                    with pytest.raises(ServingError):
                        plant.ask()
                    os.kill(pid, signal.SIGCONT)
                case "killed":
                    os.kill(server.canary().pid, signal.SIGKILL)
                    server.repair()
            for _ in range(CALM):
                plant.move()
                plant.ask()
            before = stream.rows
            plant.move()
            plant.ask()
            assert stream.rows - before == len(SHAPES) - 1, f"after {event!r} rows did not come back"
        assert stream.rows > len(EVENTS) * 2 * (CALM - 3) * (len(SHAPES) - 1)


def test_models_that_have_gone_are_let_go_of_and_those_that_stay_go_on_by_rows(triton, deployer, make_artifact):
    artifact = make_artifact("stays.on", relative=0)
    deployer.deploy(artifact)
    slot = next(m.slot for m in deployer.members() if m.name == "stays.on")
    here = {triton.endpoint: np.array([slot], np.int32)}
    past = np.concatenate([artifact.golden.windows[0]] * 30)
    with Pool(triton.endpoint, deadline_s=10.0) as pool:
        stream = Stream(pool)
        for tick in range(100):
            window = Bundle.of(past[None, tick : tick + 12].copy())
            stream.tick([f"once.{tick}"], here, window)  # another name each time, as if deployed and withdrawn
            said = stream.tick(["stays.on"], here, window)
            assert np.array_equal(said.numbers, pool.tick(here, window).numbers)
        assert len(stream._stores[12, 3].index) < 80
        assert stream.rows > 90
