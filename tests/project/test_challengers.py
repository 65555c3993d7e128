"""A plant changes its ways: the schedule retrains, the new version is tried live and promoted.

readings  | valve drives flow (imported) | the other way round, live ........................................... |
version 1 | trained ..... | judged first   answers ............................................ |
version 2                                  | retrained by the schedule, better | scored beside 1 | answers ......
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from penstock.cluster import local_cluster
from penstock.page import questions
from penstock.promoting import audit
from penstock.retraining import retrain
from penstock.schedule import Schedule
from penstock.serving.banner import sheet
from penstock.serving.deploy import Deployer
from penstock.site import Site
from penstock.trials import trials

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
    assert live["last"] - 60 * BEFORE == 60 * (SINCE + LIVE) + 1
