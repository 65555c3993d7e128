"""`penstock backtest`: a past walked through as if it were live, on a real Triton and real workers.

The pump: Y is what A was a minute ago, twice, with an offset that drifts; so a live correction earns its name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from penstock.backtest import Backtest, backtest_own, backtest_published
from penstock.backtest_course import backtest_plant
from penstock.backtest_published import Bar, met
from penstock.backtest_rows import OURS, Lane
from penstock.batch.baselines import errors
from penstock.cli import app
from penstock.cluster import local_cluster
from penstock.data.plants.datasets import gas_turbine_folder, plant_path
from penstock.data.plants.plant_file import load_plant
from penstock.errors import ModelNotFound, QueryError, SiteError, SourceError
from penstock.serving.deploy import Deployer
from penstock.site import Site

PLANT = """
[plant]
name = "pump"
period = "1min"
[tags]
A = { range = [-9, 9] }
Y = {}
[model.flow]
target = "Y"
inputs = ["A"]
window = "4min"
lstm = { units = 4, epochs = 12, ridge = 0.001 }
interval = 0.9
[sinks.room] # has no address: who asks for it fails, and a walk must send nothing
kind = "mqtt"
topic = "penstock/{plant}/{model}"
"""
ROWS, BEGIN, CHANGED = 1000, 700, 850
"""Minutes; from CHANGED on another Y was measured."""


def told(done: int, total: int | None, text: str) -> None:
    """Nobody watches."""


def readings(changed: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    a = np.tanh(rng.normal(size=ROWS).cumsum() / 9) + 0.3 * rng.normal(size=ROWS)
    y = 2 * np.roll(a, 1) + 0.05 * rng.normal(size=ROWS) + 3 * np.sin(np.arange(ROWS) / 90)
    y[BEGIN + 20] = np.nan
    y[CHANGED:] += changed
    return pd.DataFrame({"time": pd.date_range("2024-01-01", periods=ROWS, freq="min", tz="UTC"), "A": a, "Y": y})


def minute(row: int) -> str:
    return str(pd.Timestamp("2024-01-01") + pd.Timedelta(minutes=row))


@pytest.fixture(scope="module")
def parts(triton) -> Iterator[str]:
    """site.toml of Triton and workers that all of these tests share."""
    with local_cluster(1) as client:
        yield f'triton.endpoints = ["{triton.endpoint}"]\ndask.scheduler = "{client.scheduler.address}"\n'
    with Deployer(triton.endpoint, drain_s=0.1) as deploys:
        deploys.ensure([])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with pump(tmp_path_factory.mktemp("pump"), readings()) as opened:
        yield opened


def pump(folder: Path, history: pd.DataFrame) -> Site:
    (folder / "plant.toml").write_text(PLANT)
    opened = Site.create(folder / "site", folder / "plant.toml")
    opened.load(history)
    return opened


@pytest.fixture(scope="module")
def found(site: Site, parts: str) -> Backtest:
    return backtest_own(site, "flow", minute(BEGIN), None, [], site_text=parts, told=told)


def lane(found: Backtest, setting: str) -> Lane:
    return next(one for one in found.lanes if one.entry.setting.name == setting)


def test_a_users_own_model_is_walked_and_judged_on_rows_that_all_have(found: Backtest, site: Site) -> None:
    assert [(row["target"], row["setting"], row["year"]) for row in found.rows] == [
        ("Y", "static", 2024), ("Y", "live", 2024),
    ]  # fmt: skip
    static, live = found.rows
    # every minute but the one without a truth, and the one whose newest truth that would have been
    assert static["n"] == live["n"] == ROWS - BEGIN - 2
    assert live["mae"] < 0.8 * static["mae"], "the offset drifts"
    assert set(static["peers"]) == {"persistence", "ridge", "boosting"}
    assert "coverage" not in static
    assert len(live["coverage"]) == 4
    for row in found.rows:
        one = lane(found, row["setting"])
        at = np.isfinite(one.truth) & np.all([np.isfinite(v) for v in one.said.values()], axis=0)
        own = errors(one.truth[at], one.said[OURS][at])
        assert {key: row[key] for key in own} == pytest.approx(own)
    assert "met" not in static, "nobody has published anything on a user's pump"
    assert site.models.names() == [], "the site is only read"


def test_truth_and_persistence_are_the_readings_own(found: Backtest) -> None:
    one = lane(found, "static")
    y = readings()["Y"].to_numpy()[BEGIN:]
    np.testing.assert_allclose(one.truth, y.astype(np.float32), rtol=1e-6)
    np.testing.assert_allclose(one.said["persistence"][1:], y[:-1].astype(np.float32), rtol=1e-6)


def test_nothing_that_is_measured_later_changes_what_was_said(found: Backtest, parts: str, tmp_path: Path) -> None:
    """Another Y from a minute on: all that was said up to that minute keeps its bits, and what follows does not."""
    with pump(tmp_path, readings(changed=4.0)) as other:
        again = backtest_own(other, "flow", minute(BEGIN), None, [], site_text=parts, told=told)
    known = CHANGED - BEGIN + 1  # at CHANGED itself the newest target known is the one before
    for setting in ("static", "live"):
        before, after = lane(found, setting), lane(again, setting)
        for method in before.said:
            np.testing.assert_array_equal(before.said[method][:known], after.said[method][:known], err_msg=method)
        np.testing.assert_array_equal(before.low[:known], after.low[:known])
    live, changed = lane(found, "live").said[OURS], lane(again, "live").said[OURS]
    assert (np.abs(live[known:] - changed[known:]) > 0.1).mean() > 0.9, "a correction learns"


def test_what_cannot_be_walked_is_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="flow"):
        backtest_own(site, "flo", minute(BEGIN), None, [], told=told)
    with pytest.raises(QueryError, match=r"16 windows of 'flow' lie before --from, at least 64"):
        backtest_own(site, "flow", minute(20), None, [], told=told)
    with pytest.raises(QueryError, match=r"no setting 'lives'.*Did you mean 'live'"):
        backtest_own(site, "flow", minute(BEGIN), None, ["lives"], told=told)
    (tmp_path / "taken").write_text("")
    with pytest.raises(SiteError, match="is not empty"):
        backtest_own(site, "flow", minute(BEGIN), None, ["static"], folder=tmp_path, told=told)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "give a model of the site"),
        (["flow"], "needs --from"),
        (["flow", "--plant", "gas-turbine"], "give a model of the site"),
        (["--plant", "pump"], "the published benchmark is of"),
        (["--plant", "gas-turbine", "--years", "last"], "is no year"),
    ],
)
def test_wrong_words_are_told(words: list[str], why: str) -> None:
    done = CliRunner().invoke(app, ["backtest", *words])
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())


def test_a_year_that_is_not_there_or_is_fitted_on_is_told() -> None:
    _with_data()
    with pytest.raises(SourceError, match=r"no gt_2031\.csv"):
        backtest_published([2031], [], [], told=told)
    with pytest.raises(QueryError, match="2012 is fitted on"):
        backtest_published([2012], [], [], told=told)
    with pytest.raises(QueryError, match="no target 'NOx'"):
        backtest_published([2014], ["NOx"], [], told=told)


def test_the_published_protocol_end_to_end(parts: str, tmp_path: Path) -> None:
    """Two turns of 2014, one target, small models: the second turn is said by versions that were fitted before it."""
    _with_data()
    text = backtest_plant("gas-turbine.toml").read_text()
    (tmp_path / "plant.toml").write_text(re.sub(r"lstm = \{[^}]*\}", "lstm = { units = 4, epochs = 1 }", text))
    found = backtest_published(
        [2014], ["NOX"], ["static", "retrain", "live"], rows=240, plant=tmp_path / "plant.toml",
        folder=tmp_path / "site", site_text=parts, told=told,
    )  # fmt: skip
    static, retrain, live = found.rows
    assert (static["versions"], retrain["versions"], live["versions"]) == (1, 2, 2)
    assert static["n"] > 200
    assert {"goal", "met", "published"} <= set(retrain)
    assert live["mae"] < retrain["mae"]
    with Site.open(tmp_path / "site") as site:
        grid = site.readings.grid
        for model in ("nox_static", "nox_refitted"):
            said = site.query(model, start="2014-01-01")
            for version in site.models.versions(model):
                last = site.models.card(model, version)["trained"]["last"]
                spoken = said["time"].to_numpy()[said["version"].to_numpy() == version].astype("datetime64[ns]")
                assert grid.tick_of(int(spoken[0].astype(np.int64))) >= last, "fitted on what came before it spoke"
    (chart,) = found.plots(tmp_path / "plots")
    assert "NOX, live" in Path(chart).read_text()
    assert json.loads(json.dumps(found.summary()))["backtest"] == "gas-turbine"


def test_the_benchmarks_plants_have_the_plants_own_tags() -> None:
    tags = load_plant(plant_path("gas-turbine")).tags
    for file in ("gas-turbine.toml", "gas-turbine-candidates.toml"):
        assert load_plant(backtest_plant(file)).tags == tags


def test_a_bar_is_met_by_all_that_it_says() -> None:
    peers = {"boosting": {"mae": 2.0, "rmse": 3.0}}
    assert met(Bar(mae=1.0, rmse=2.0), 1.0, 2.0, peers)
    assert not met(Bar(mae=1.0, rmse=2.0), 1.0, 2.1, peers)
    assert met(Bar(peer="boosting"), 2.0, 3.0, peers)
    assert not met(Bar(peer="boosting"), 2.1, 2.0, peers)
    assert not met(Bar(rmse=2.5, peer="boosting"), 1.0, 2.9, peers)


def _with_data() -> None:
    try:
        gas_turbine_folder()
    except SourceError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
