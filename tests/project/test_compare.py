"""Methods beside each other: the same rows for all, figures that pandas finds too, nothing unlike compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from penstock.compare import table
from penstock.data.models import Artifact
from penstock.errors import ModelNotFound, QueryError
from penstock.site import Site

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
past_target = true
window = "4min"
lstm = { units = 4, epochs = 1 }
[model.now]
[model.ahead]
horizon = "2min"
"""
ROWS = 1200
SPLIT = pd.Timestamp("2024-01-01T15:00")
BROKEN = slice(1000, 1010)
"""Rows in which A is out of its range."""


def history() -> pd.DataFrame:
    """Y is what A was a minute ago, twice, and a little noise."""
    rng = np.random.default_rng(5)
    a = np.tanh(rng.normal(size=ROWS).cumsum() / 9) + 0.3 * rng.normal(size=ROWS)
    y = 2 * np.roll(a, 1) + 0.05 * rng.normal(size=ROWS)
    a[BROKEN] = 99.0
    y[1100] = np.nan
    return pd.DataFrame({"time": pd.date_range("2024-01-01", periods=ROWS, freq="min", tz="UTC"), "A": a, "Y": y})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "plant.toml").write_text(PLANT)
    Site.create(folder / "site", folder / "plant.toml").close()
    (folder / "site" / "site.toml").write_text("dask.workers = 1\n")
    with Site.open(folder / "site") as opened:
        opened.load(history())
        yield opened


@pytest.fixture(scope="module")
def runs(site: Site) -> list[Artifact]:
    """Two versions of `now` and one of `ahead`, trained on what lies before SPLIT."""
    runs = [site.train("now", end=str(SPLIT), lstm={"seed": seed}) for seed in (1, 2)]
    return [*runs, site.train("ahead", end=str(SPLIT))]


def test_all_stand_on_the_rows_that_all_have(site: Site, runs: list[Artifact]) -> None:
    found = site.compare("now", [runs[0], "now@2", "persistence", "ridge"], start=str(SPLIT))
    assert list(found.said) == ["now@1", "now@2", "persistence", "ridge"]
    broken = len(range(*BROKEN.indices(ROWS))) + 3  # a window of 4 rows with any of those
    silent = broken + 5  # the truth of row 1100, and the four windows that would have read it
    assert len(found.truth) == ROWS - 900 - silent
    assert set(found.table["n"]) == {len(found.truth)}
    assert set(found.sample.values()) == {0}


def test_the_figures_are_those_that_pandas_finds(site: Site, runs: list[Artifact]) -> None:
    found = site.compare("now", ["now", "persistence", "ridge"], start=str(SPLIT))
    y = history().set_index("time")["Y"].tz_localize(None).astype("float32").astype(float)
    truth = y[found.times]
    np.testing.assert_array_equal(truth, found.truth[:, 0])
    newest = y.shift(1)[found.times]
    row = found.table.set_index("method").loc["persistence"]
    off = newest - truth
    assert row["mae"] == pytest.approx(off.abs().mean(), rel=1e-6)
    assert row["rmse"] == pytest.approx((off**2).mean() ** 0.5, rel=1e-6)
    assert row["bias"] == pytest.approx(off.mean(), rel=1e-4, abs=1e-7)
    assert row["r2"] == pytest.approx(1 - (off**2).sum() / ((truth - truth.mean()) ** 2).sum(), rel=1e-6)
    assert row["skill"] == pytest.approx(0, abs=1e-9)
    ridge = found.table.set_index("method").loc["ridge"]
    assert ridge["rmse"] < row["rmse"]
    assert ridge["skill"] == pytest.approx(1 - ridge["rmse"] / row["rmse"], rel=1e-9)


def test_a_horizon_is_judged_at_the_time_predicted_for(site: Site, runs: list[Artifact]) -> None:
    found = site.compare("ahead", ["ahead", "persistence"], start=str(SPLIT), end="2024-01-01T16:00")
    assert (str(found.times[0])[:16], str(found.times[-1])[:16]) == ("2024-01-01T15:00", "2024-01-01T15:59")
    y = history().set_index("time")["Y"].tz_localize(None).astype("float32").astype(float)
    np.testing.assert_array_equal(found.said["persistence"][:, 0], y.shift(2)[found.times])


def test_rows_of_the_training_span_are_told(site: Site, runs: list[Artifact]) -> None:
    found = site.compare("now", ["now@1", "persistence"])
    assert 800 < found.sample["now@1"] <= 900
    assert found.table.set_index("method").loc["now@1", "in_sample"] == found.sample["now@1"]


def test_what_cannot_be_compared_is_told(site: Site, runs: list[Artifact]) -> None:
    with pytest.raises(QueryError, match=r"ahead@1 predicts Y 2 ticks ahead.*one target and horizon"):
        site.compare("now", ["now", "ahead"])
    with pytest.raises(QueryError, match="Did you mean 'ridge'"):
        site.compare("now", ["now", "rigde"])
    with pytest.raises(ModelNotFound, match="is not live"):
        site.compare("now", ["@champion"])
    with pytest.raises(QueryError, match="no row has a good truth"):
        site.compare("now", ["now"], start="2024-01-01T16:41", end="2024-01-01T16:49")


def test_the_command_prints_and_draws(site: Site, runs: list[Artifact], tmp_path: Path) -> None:
    words = ["compare", "now", "-s", str(site.folder), "--start", str(SPLIT), "--plot", "c.html", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "penstock", *words], capture_output=True, text=True, timeout=180, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert [row["method"] for row in told["rows"]] == ["now@2", "persistence", "ridge"]
    assert set(told["rows"][0]) == {"target", "method", "n", "mae", "rmse", "r2", "bias", "skill", "in_sample"}
    drawn = (tmp_path / "c.html").read_text()
    assert "now@2" in drawn
    assert "said minus truth" in drawn
    assert "<script src=" not in drawn  # it needs no network


def test_skill_is_unknown_where_persistence_is() -> None:
    truth = np.array([[1.0], [2.0]], np.float32)
    nothing = np.array([[np.nan], [1.0]], np.float32)
    found = table(["Y"], truth, {"m": truth + 1}, nothing, {"m": 1})
    assert found.loc[0, "bias"] == 1
    assert np.isnan(found.loc[0, "skill"])
