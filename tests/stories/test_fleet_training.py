"""A plant's fleet is trained by one command that may be killed.

1. A simulated station of four units: two templates, eight models, of which one has nothing to learn from.
2. `penstock train --all` is killed with all its workers, some models being stored.
3. New readings come in. The same command goes on, says so, and trains only what is left, on the readings of the
   beginning; the model that cannot be trained fails alone and is named, and the exit code is 1.
4. Every model was trained exactly once, and the run stands in the record. The same command again is another run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from demo_runs import MARK, penstock

from penstock.data.runs import Run, Runs
from penstock.site import Site

UNITS = ("U001", "U002", "U003", "U004")
RESTING = '[override."nox.U003"]\nwhen = "U003.FUEL > 1e6"\n'
"""A unit that never runs so hard: no windows."""
WORDS = ("train", "--all", "--epochs", "3", "--json")
DEADLINE_S = 300.0


@dataclass(frozen=True)
class Told:
    site: Path
    before: dict[str, bytes]
    """model.keras of the models that were stored when the first command was killed."""
    killed: Run
    second: subprocess.CompletedProcess[str]

    def answer(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.second.stdout.splitlines()[-1])
        return told


def stored(site: Path) -> dict[str, bytes]:
    """The Keras file of every stored version."""
    found = site.glob("models/[np]*/[0-9]*/model.keras")
    return {f"{path.parts[-3]}@{path.parts[-2]}": path.read_bytes() for path in found}


def begun_and_killed(site: Path) -> None:
    """The command and its workers, killed as soon as two models are stored."""
    words = [sys.executable, "-m", "penstock", *WORDS, "--site", str(site)]
    run = subprocess.Popen(
        words, env={**os.environ, MARK: "fleet"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + DEADLINE_S
    while len(stored(site)) < 2:
        assert run.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(30)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    site = tmp_path_factory.mktemp("fleet") / "site"
    assert penstock("init", str(site), "--plant", "simulated", "--units", "4", "--tags", "11").returncode == 0
    with (site / "plant.toml").open("a") as file:
        file.write(RESTING)
    assert penstock("import", "simulated:50d..56d", "--site", str(site)).returncode == 0
    begun_and_killed(site)
    before, (killed,) = stored(site), Runs(site / "runs").all()
    assert penstock("import", "simulated:56d..57d", "--site", str(site)).returncode == 0
    return Told(site=site, before=before, killed=killed, second=penstock(*WORDS, "--site", str(site)))


def test_the_same_command_goes_on_and_says_so(told: Told) -> None:
    assert told.killed.ended is None
    assert 2 <= len(told.before) < 7
    assert f"going on with the run of {told.killed.begun[:16].replace('T', ' ')} UTC" in told.second.stderr
    assert f"{len(told.before)} of 8 done; --anew starts over" in told.second.stderr


def test_one_model_fails_alone_and_is_named(told: Told) -> None:
    assert told.second.returncode == 1
    assert set(told.answer()["failed"]) == {"nox.U003"}
    assert "'nox.U003': too few windows" in told.second.stderr
    assert "NOT_RUNNING" in told.second.stderr
    assert "1 of 8 not trained; the others are stored" in told.second.stderr


def test_each_model_was_trained_exactly_once(told: Told) -> None:
    names = {f"{kind}.{unit}" for kind in ("power", "nox") for unit in UNITS} - {"nox.U003"}
    after = stored(told.site)
    assert set(after) == {f"{name}@1" for name in names} == set(told.answer()["trained"])
    assert {name: after[name] for name in told.before} == told.before, "what was finished is untouched"


def test_all_are_trained_on_the_readings_of_the_beginning(told: Told) -> None:
    with Site.open(told.site) as site:
        cards = site.cards()
        assert {card["run"] for card in cards} == {told.killed.id}
        assert {card["trained"]["snapshot"] for card in cards} == {told.killed.snapshot}
        assert {card["trained"]["end"][:10] for card in cards} == {"2024-02-26"}
        assert site.readings.head().snapshot != told.killed.snapshot
        shapes = {(card["spec"]["length"], len(card["spec"]["features"]), card["lstm"]["units"]) for card in cards}
    assert shapes == {(24, 5, 32)}, "both templates' members are one shape group"


def test_the_run_stands_in_the_record_and_the_next_one_is_another(told: Told) -> None:
    (run,) = Runs(told.site / "runs").all()
    assert run.id == told.answer()["run"] == told.killed.id
    assert run.ended is not None
    assert len(run.done) == 7
    assert set(run.failed) == {"nox.U003"}
    again = penstock("train", "power.*", "--epochs", "1", "--json", "--site", str(told.site))
    assert again.returncode == 0, again.stderr[-2000:]
    assert "going on" not in again.stderr
    trained = json.loads(again.stdout.splitlines()[-1])["trained"]
    assert sorted(trained) == [f"power.{unit}@2" for unit in UNITS]
    assert len(Runs(told.site / "runs").all()) == 2
