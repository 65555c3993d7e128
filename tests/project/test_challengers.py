"""A plant changes its ways: the schedule retrains, the new version is tried live and promoted.

readings  | valve drives flow (imported) | the other way round, live ........................................... |
version 1 | trained ..... | judged first   answers ............................................ |
version 2                                  | retrained by the schedule, better | scored beside 1 | answers ......
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from penstock.challenging import challenge
from penstock.cluster import local_cluster
from penstock.data.challengers import challenger_of
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.errors import ModelError, ModelNotFound
from penstock.page import questions
from penstock.promoting import audit
from penstock.retraining import retrain
from penstock.schedule import Schedule
from penstock.serving.banner import sheet
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.site import Site
from penstock.trials import end_due, trials

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
retrain = { cron = "0 3 * * SUN", live = "3h" }
"""
NOW = "2024-02-01T00:00:00+00:00"
BEFORE, SINCE, LIVE = 16, 16, 3
"""Hours of the first regime; of the second until the retrain; that a challenger is tried."""


def readings(first_min: int, minutes: int, gain: float) -> pd.DataFrame:
    """Y is what A was a minute ago, `gain` times."""
    rng = np.random.default_rng(first_min)
    a = np.sin((first_min + np.arange(minutes)) / 15) + 0.3 * rng.normal(size=minutes)
    y = gain * np.roll(a, 1) + 0.05 * rng.normal(size=minutes)
    start = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(first_min, "min")
    return pd.DataFrame({"time": pd.date_range(start, periods=minutes, freq="min"), "A": a, "Y": y})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, triton) -> Iterator[Site]:
    """Of the first regime, its first version live, on a Dask and a Triton that other processes can use too."""
    folder = tmp_path_factory.mktemp("challengers")
    (folder / "plant.toml").write_text(PLANT)
    Site.create(folder / "site", folder / "plant.toml").close()
    with local_cluster(1) as client:
        (folder / "site" / "site.toml").write_text(
            f'triton.endpoints = ["{triton.endpoint}"]\ndask.scheduler = "{client.scheduler.address}"\n'
        )
        with Site.open(folder / "site") as opened:
            opened.load(readings(0, 60 * BEFORE, 2.0))
            retrain(opened, ["now"], now=NOW)
            yield opened
    with Deployer(triton.endpoint, drain_s=0.1) as deploys:
        deploys.ensure([])


def moves(site: Site) -> list[tuple[str, int | None, int | None]]:
    return [(row["action"], row["from"], row["to"]) for row in audit(site, "now")]


def scheduled(site: Site, until: Callable[[], bool]) -> list[str]:
    """The schedule runs in a thread until that holds; what it said."""
    said: list[str] = []
    stop, over = threading.Event(), threading.Event()

    def told(what: str) -> None:
        said.append(what)

    kept = Schedule(site.folder, site.plant, look_s=1.0)
    thread = threading.Thread(target=kept.run, args=(site.runs.all(), told, stop))
    thread.start()
    for _ in range(600):
        if over.wait(0.2) or until():
            break
    stop.set()
    thread.join(60)
    assert until(), said
    return said


def test_the_schedule_retrains_the_version_is_tried_live_and_promoted(site: Site) -> None:
    site.stream(readings(60 * BEFORE, 60 * SINCE, -2.0))
    assert moves(site) == [("promote", None, 1)]
    scheduled(site, lambda: site.models.challenger("now") == 2)
    assert moves(site)[1:] == [("challenge", None, 2)]
    assert site.runs.all()[0].outcomes == {"now": "challenging"}
    (trial,) = trials(site)
    assert (trial.since, trial.until - trial.since, trial.due) == (trial.newest + 1, 60 * LIVE, False)
    first = 60 * (BEFORE + SINCE)
    site.stream(readings(first, 60 * LIVE + 2, -2.0))
    (row,) = [row for row in site.status() if row["part"] == "challenger now"]
    assert row["what"].startswith("now@2 beside 1, 2024-01-02 08:00 to 2024-01-02 11:00")

    begin, end = (pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(m, "min") for m in (first, first + 60 * LIVE))
    said = site.query("now", begin, end)
    assert set(said["version"].to_numpy()) == {1}, "the challenger answers nobody"
    tried = site.query("now", begin, end, version=2)
    assert set(tried["version"].to_numpy()) == {2}
    off = {v: float(np.abs(q["prediction"] - q["truth"]).mean()) for v, q in ((1, said), (2, tried))}
    assert off[2] < 0.2 * off[1]
    with closing(site.desk().speed()) as view:
        assert view.models() == ["now"]
    (entry,) = questions(site).sheet()
    assert (entry.version, entry.challenger) == (1, 2)
    assert "1 (challenger 2)" in sheet([entry])
    assert set(site.compare("now", ["@champion", "@challenger"], start=begin, end=end).said) == {"now@1", "now@2"}

    scheduled(site, lambda: site.models.champion("now") == 2 and site.runs.all()[0].outcomes == {"now": "promoted"})
    assert moves(site)[2:] == [("promote", 1, 2)]
    assert audit(site, "now")[-1]["why"].startswith("live: better than the champion, by ")
    live = site.models.card("now", 2)["gate"]["live"]
    assert (live["verdict"], live["passed"], live["champion"]) == ("better", True, 1)
    assert live["against"]["champion"]["n"] > 150
    site.stream(readings(first + 60 * LIVE + 2, 5, -2.0))
    (entry,) = questions(site).sheet()
    assert (entry.version, entry.deployed, entry.challenger) == (2, 2, None)
    assert trials(site) == []
    assert [row for row in site.status() if row["part"] == "challenger now"] == []
    # From the plant's change to the promotion: what the retrain trains and judges on, the trial, and a truth's delay.
    changed = site.readings.span()[0] + 60 * BEFORE
    assert live["last"] - changed == 60 * (SINCE + LIVE) + 1


BEGIN = ("tried", "written", "published", "loaded", "left", "finished", "challenging")
"""All that the beginning of a trial leaves: the card; Triton, step by step; the record."""
PROMOTE = (
    "live", "written", "published", "loaded", "left", "finished", "recorded", "withdrawn", "off", "promoted",
)  # fmt: skip
"""Its end: the card; the champion's deploy, step by step; the record; the challenger off Triton."""
DISMISS = ("live", "dismissed", "withdrawn", "off")


def test_every_step_of_a_trial_may_be_a_process_last(site: Site, triton) -> None:
    """now@1, which was the champion, challenges now@2; the next call finishes what a killed one began."""
    window = np.zeros((1, 4, 1), np.float32)
    with Pool(triton.endpoint, deadline_s=10.0) as pool, Killed(site.folder) as killed:
        for step in BEGIN:
            killed.behind("begin", step)
            assert (site.models.champion("now"), pool.predict("now", window).version) == (2, 2), step
            assert site.models.challenger("now") == (1 if step == "challenging" else None), step
        site.challenge("now", 1, span="1h")
        assert pool.predict(challenger_of("now"), window).version == 1
        with pytest.raises(ModelError, match="now@2: is live already"):
            site.challenge("now", 2)
        _say(site, better=1)
        for number, step in enumerate(PROMOTE):
            killed.behind("end", step)
            assert site.models.champion("now") == (1 if number >= PROMOTE.index("recorded") else 2), step
            assert pool.predict("now", window).version == (1 if number >= PROMOTE.index("loaded") else 2), step
            if number >= PROMOTE.index("recorded"):
                break
        end_due(site)
        assert moves(site)[3:] == [("challenge", None, 1), ("promote", 2, 1)]
        assert [model.name for model in pool.models()] == ["now"], "the challenger's slot is free"

        site.challenge("now", 2, span="1h")
        _say(site, better=1)
        for step in DISMISS:
            killed.behind("end", step)
            assert (site.models.champion("now"), pool.predict("now", window).version) == (1, 1), step
            if step != "live":
                break
        end_due(site)
        assert moves(site)[5:] == [("challenge", None, 2), ("dismiss", 2, None)]
        assert [model.name for model in pool.models()] == ["now"]

        # What comes behind the record comes once per trial.
        rest = [(True, step) for step in PROMOTE[PROMOTE.index("recorded") + 1 :]]
        for promoted, step in [*rest, *((False, step) for step in DISMISS[DISMISS.index("dismissed") + 1 :])]:
            champion = site.models.champion("now")
            other = 3 - champion
            better = other if promoted else champion
            site.challenge("now", other, span="1h")
            _say(site, better=better)
            killed.behind("end", step)
            assert (site.models.champion("now"), site.models.challenger("now")) == (better, None), step
            assert pool.predict("now", window).version == better, step
            end_due(site)
            assert [model.name for model in pool.models()] == ["now"], step
    with pytest.raises(ModelNotFound, match="now: has no challenger"):
        site.dismiss("now")


def _say(site: Site, *, better: int) -> None:
    """A trial's hour as a stream would have said it: version `better` is near the truth, the other one is not."""
    (trial,) = trials(site)
    first, rows, rng = trial.since, trial.until - trial.since + 8, np.random.default_rng(trial.since)
    minute = first - site.readings.grid.tick_of(pd.Timestamp("2024-01-01", tz="UTC").value)
    table = readings(minute, rows, -2.0)
    site.load(table)
    versions = (trial.champion, trial.version)
    with closing(SpeedView.open(site.folder / "views" / "speed.sqlite")) as view:
        position = view.last_position()
        for k, truth in enumerate(table["Y"]):
            off = [rng.normal(0, 0.1 if v == better else 1.0) for v in versions]
            view.write([
                Spoken(
                    tick=first + k, members=(("now", 1), (challenger_of("now"), 1)),
                    values=(truth + np.array(off)).astype(np.float32), versions=np.array(versions, np.int32),
                    reasons=np.zeros(2, np.uint8), filled=np.zeros(2, bool), hashes=np.zeros(2, np.uint64),
                    position=position,
                )
            ])  # fmt: skip


class Killed:
    """A process that has all imports and starts others of itself, each of which does something and kills itself."""

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, __file__, str(folder)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Killed:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def behind(self, what: str, step: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what} {step}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{-signal.SIGKILL}\n", step


def _breed(folder: str) -> None:
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _die_behind(folder, *line.split())
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _die_behind(folder: str, what: str, last: str) -> None:
    def told(step: str, name: str) -> None:
        if step == last:
            signal.raise_signal(signal.SIGKILL)

    with Site.open(folder) as site:
        if what == "begin":
            challenge(site, "now", 1, "1h", told=told)
        else:
            end_due(site, told=told)


if __name__ == "__main__":
    _breed(*sys.argv[1:])
