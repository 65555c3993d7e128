"""Retrain, gate, promotion on a real site: a plant changes its ways, any step may be a process' last.

readings  | valve drives flow .............. | the other way round ............ |
retrain 1 | trained ........ | judged: first |
retrain 2                        trained ............ | judged: better than 1   |
retrain 3                        the same again       | no better than 2        |
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from penstock.cli import app
from penstock.cluster import local_cluster
from penstock.data.runs import Run
from penstock.errors import RetrainBusy
from penstock.promoting import audit, promote
from penstock.retraining import LOCK, alone, retrain
from penstock.schedule import Schedule
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.site import Site
from penstock.turns import missed

PLANT = """
[plant]
name = "pump"
period = "1min"
[tags]
A = { range = [-9, 9] }
Y = {}
[defaults.model]
target = "Y"
inputs = ["A"]
window = "4min"
lstm = { units = 8, epochs = 25, batch = 32, learning_rate = 0.01 }
retrain = { span = "10h", judge = "5h", promote = "auto" }
[model.now]
retrain = { cron = "0 3 * * SUN" }
[model.asked]
past_target = true
retrain = { promote = "manual", warm = true, leave_out = [["2024-01-01 02:00", "2024-01-01 03:00"]] }
"""
NOW = "2024-02-01T00:00:00+00:00"
HOURS_1, HOURS_2 = 16, 16
STEPS = (
    "begun", "stored", "trained", "judged", "noted", "written", "published", "loaded", "left", "finished", "recorded",
    "settled",
)  # fmt: skip
"""All that a retrain of one model leaves anywhere, in order: the run, the store, the run, the card, the run; Triton's
slot, its list, its alias, the old slot free, the claim given back; the record, the run. Behind the last one only the
run's end is missing."""


def readings(first: int, hours: int, gain: float) -> pd.DataFrame:
    """Y is what A was a minute ago, `gain` times."""
    rng = np.random.default_rng(first)
    rows = hours * 60
    a = np.tanh(rng.normal(size=rows).cumsum() / 9) + 0.3 * rng.normal(size=rows)
    y = gain * np.roll(a, 1) + 0.05 * rng.normal(size=rows)
    start = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hours=first)
    return pd.DataFrame({"time": pd.date_range(start, periods=rows, freq="min"), "A": a, "Y": y})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, triton) -> Iterator[Site]:
    """Of the first regime, on a Dask and a Triton that other processes can use too."""
    folder = tmp_path_factory.mktemp("retrain")
    (folder / "plant.toml").write_text(PLANT)
    Site.create(folder / "site", folder / "plant.toml").close()
    with local_cluster(1) as client:
        (folder / "site" / "site.toml").write_text(
            f'triton.endpoints = ["{triton.endpoint}"]\ndask.scheduler = "{client.scheduler.address}"\n'
        )
        with Site.open(folder / "site") as opened:
            opened.load(readings(0, HOURS_1, 2.0))
            yield opened
    with Deployer(triton.endpoint, drain_s=0.1) as deploys:
        deploys.ensure([])


def newest(site: Site) -> Run:
    return site.runs.all()[0]


def moves(site: Site, name: str) -> list[tuple[str, int | None, int | None]]:
    return [(row["action"], row["from"], row["to"]) for row in audit(site, name)]


def test_a_first_version_goes_live_and_one_that_waits_for_a_person_does_not(site: Site) -> None:
    done = retrain(site, ["now", "asked"], now=NOW)
    found = {result.model: (result.version, result.verdict, result.outcome) for result in done.results}
    assert found == {"now": (1, "first", "promoted"), "asked": (1, "first", "waiting")}, done
    assert site.models.champions() == {"now": 1}
    assert moves(site, "now") == [("promote", None, 1)]
    (told,) = audit(site, "now")
    card = site.models.card("now", 1)
    assert told["snapshot"] == card["trained"]["snapshot"]
    assert told["why"] == f"retrain {done.run}: {card['gate']['why']}"
    run = newest(site)
    assert (run.id, run.kind, run.ended is None) == (done.run, "retrain", False)
    assert (run.verdicts, run.outcomes) == (
        {"now": "first", "asked": "first"}, {"now": "promoted", "asked": "waiting"},
    )  # fmt: skip
    assert promote(site, "asked")["live"] == "asked@1", "the gate let it pass"


def test_what_judges_was_not_trained_on_and_what_is_marked_counts_nowhere(site: Site) -> None:
    first, last = site.readings.span()
    trained, gate = site.models.card("now", 1)["trained"], site.models.card("now", 1)["gate"]
    assert (trained["first"], trained["last"]) == (last - 15 * 60, last - 5 * 60)
    assert gate["start"] == trained["end"]
    assert gate["against"]["ridge"]["n"] == 300
    assert "persistence" not in gate["against"], "it runs without truth"
    marked = site.models.card("asked", 1)
    assert set(marked["gate"]["against"]) == {"ridge", "persistence"}
    assert marked["trained"]["left_out"] == [[first + 120, first + 180]]
    touched = 60 + 4  # windows of 4 rows, their past target one row further back
    whole = marked["trained"]["last"] - marked["trained"]["first"]
    used = marked["trained"]["n_train"] + marked["trained"]["n_validation"]
    assert 0 < whole - touched - used <= 8, "the few between training and validation"


def test_the_plant_changes_its_ways_and_every_step_of_the_answer_may_be_a_process_last(site: Site, triton) -> None:
    """Each process is killed behind its step; the next one goes on, and the champion answers until it is replaced."""
    site.load(readings(HOURS_1, HOURS_2, -2.0))
    window = np.zeros((1, 4, 1), np.float32)
    with Pool(triton.endpoint, deadline_s=10.0) as pool, Killed(site.folder) as killed:
        for number, step in enumerate(STEPS):
            told = killed.behind(step)
            assert site.models.champion("now") == (2 if number >= STEPS.index("recorded") else 1), step
            answers = pool.predict("now", window).version
            assert answers == (2 if number >= STEPS.index("loaded") else 1), step
            assert site.models.versions("now") == ([1] if step == "begun" else [1, 2]), f"{step}: trained once"
            assert "stored" not in told or step == "stored", f"{step}: what is stored is not trained again"
            assert newest(site).ended is None
        done = retrain(site, ["now"], now=NOW)
        assert pool.predict("now", window).version == 2
    (result,) = done.results
    assert (result.version, result.verdict, result.outcome) == (2, "better", "promoted")
    assert moves(site, "now") == [("promote", None, 1), ("promote", 1, 2)]
    run = newest(site)
    assert run.ended is not None
    assert (run.verdicts, run.outcomes) == ({"now": "better"}, {"now": "promoted"})
    champion = site.models.card("now", 2)["gate"]["against"]["champion"]
    assert champion["p"] <= 0.02
    assert champion["smaller"] > 0.9


def test_the_same_again_is_no_better_and_has_the_same_bits(site: Site) -> None:
    done = retrain(site, ["now"], now=NOW)
    (result,) = done.results
    assert (result.version, result.verdict, result.outcome) == (3, "no better", "kept")
    assert site.models.champion("now") == 2
    second, third = (site.models.load("now", version) for version in (2, 3))
    assert second.card["trained"] == third.card["trained"]
    for name, array in second.serving.items():
        np.testing.assert_array_equal(array, third.serving[name])


def test_a_warm_start_goes_on_from_the_champion(site: Site) -> None:
    (result,) = retrain(site, ["asked"], now=NOW).results
    assert site.models.card("asked", result.version)["trained"]["warm"] == 1
    warm, champion = (site.models.load("asked", version).serving for version in (result.version, 1))
    np.testing.assert_array_equal(warm["mean"], champion["mean"])
    assert not np.array_equal(warm["l0.kernel"], champion["l0.kernel"])


def test_the_schedule_catches_up_once_what_was_missed(site: Site) -> None:
    """The last retrain of `now` was in February 2024."""
    said: list[str] = []
    stop, over = threading.Event(), threading.Event()

    def told(what: str) -> None:
        said.append(what)
        if what.startswith("next at") and "retrains now" in said:
            over.set()

    before = newest(site)
    kept = Schedule(site.folder, site.plant)
    assert [turn.models for turn in kept.turns] == [("now",)]
    thread = threading.Thread(target=kept.run, args=(site.runs.all(), told, stop))
    thread.start()
    assert over.wait(180)
    stop.set()
    thread.join(60)
    assert said.count("retrains now") == 1, said
    run = newest(site)
    assert (run.id != before.id, run.kind, run.models, run.ended is None) == (True, "retrain", ("now",), False)
    assert not missed(kept.turns[0], site.runs.all(), "UTC", datetime.now(UTC))


def test_where_the_champion_has_seen_the_rows_nobody_can_judge(site: Site) -> None:
    site.deploy(site.train("now", start="2024-01-02"))  # by hand, on all there is
    command = [sys.executable, "-m", "penstock", "retrain", "now", "--site", str(site.folder), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert run.returncode == 4, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])["models"][0]
    assert (told["verdict"], told["outcome"]) == ("not enough data", "kept")


def test_one_retrain_at_a_time_and_the_other_is_named(site: Site) -> None:
    with alone(site.runs.folder, NOW):
        with pytest.raises(RetrainBusy, match=r"by process \d+ on .*, since 2024-02-01 00:00:00 UTC"):
            retrain(site, ["now"], now=NOW)
        command = [sys.executable, "-m", "penstock", "retrain", "--all", "--site", str(site.folder)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert run.returncode == 3
        assert "is being retrained already" in run.stderr
    assert (site.runs.folder / LOCK).read_text() == ""


def test_the_commands_words(site: Site) -> None:
    def said(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--site", str(site.folder)])

    wrong = said("retrain")
    assert (wrong.exit_code, "give models, or --all" in wrong.stderr) == (2, True)
    assert "Did you mean 'now'" in str(said("retrain", "noww").exception)
    told = json.loads(said("runs", "--json").stdout.splitlines()[-1])["runs"]
    assert {run["kind"] for run in told} == {"train", "retrain"}
    assert told[-1]["outcomes"] == {"now": "promoted", "asked": "waiting"}
    assert "better" in said("runs").stdout


class Killed:
    """A process that has all imports and starts others of itself, each of which retrains and kills itself."""

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, __file__, str(folder)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Killed:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def behind(self, step: str) -> list[str]:
        """The steps that were done when it was killed behind `step`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        told = []
        while not (line := self._process.stdout.readline()).startswith("over"):
            assert line, "it has ended"
            told.append(line.strip())
        assert line.split() == ["over", str(-signal.SIGKILL)], (step, told)
        return told


def _breed(folder: str) -> None:
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _die_behind(folder, line.strip())
            os._exit(0)
        print("over", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _die_behind(folder: str, last: str) -> None:
    def told(step: str, name: str) -> None:
        print(step, flush=True)
        if step == last:
            signal.raise_signal(signal.SIGKILL)

    with Site.open(folder) as site:
        retrain(site, ["now"], now=NOW, told=told)


if __name__ == "__main__":
    _breed(*sys.argv[1:])
