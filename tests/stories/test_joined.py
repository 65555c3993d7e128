"""A laboratory's analyser reads every seven seconds, the model answers every second.

1. Its values come onto the plant's ticks as lines between two readings, an efficiency is computed from them, and a
   model is trained on history.
2. A stream answers each tick when the readings behind it have come: ten seconds later, from windows that batch cuts
   too.
3. A query ends where answers end; recomputed and replayed, every window has the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from penstock.batch import network
from penstock.batch.history import Source, past
from penstock.data.views.speed_view import SpeedView
from penstock.data.windows import Reason, WindowSpec, window_hash
from penstock.site import Site

PLANT = """
[plant]
name = "kiln"
period = "1s"
[tags]
LOAD = { max_gap = "2s" }
GAS = { join = "linear", join_delay = "10s", range = [0, 100] }
YIELD = { expr = "LOAD / GAS" }
TEMP = { valid = "LOAD > 33" }
[model.temp]
target = "TEMP"
inputs = ["LOAD", "GAS", "YIELD"]
past_target = true
window = "6s"
lstm = { units = 4, epochs = 2 }
"""
BEGIN = pd.Timestamp("2024-05-01", tz="UTC")
FIRST = int(BEGIN.timestamp())
LIVE, END, WAIT = 400, 560, 10
GONE = range(480, 505)
"""Seconds in which the analyser says nothing: longer than what may lie between two readings."""

LOAD = np.random.default_rng(11).normal(40, 3, END)
IDLE = np.flatnonzero(LOAD <= 33).tolist()
"""Seconds at which TEMP means nothing."""


def rows(first: int, last: int) -> pd.DataFrame:
    """GAS every seven seconds, not on the second; 500 is none that it can measure."""
    k = np.arange(first, last)
    noise = np.random.default_rng(5).normal(0, 0.1, END)[k]
    load, gas = LOAD[k], (20 + 5 * np.sin(np.arange(END) / 20))[k]
    gas = np.where((k % 7 == 0) & ~np.isin(k, GONE), gas, np.nan)
    gas[k == 7 * 64] = 500.0
    frames = {"LOAD": load, "TEMP": 2 * load - 80 + noise}
    plain = pd.DataFrame({"time": BEGIN + pd.to_timedelta(k, "s"), **frames})
    slow = pd.DataFrame({"time": BEGIN + pd.to_timedelta(k * 1000 + 300, "ms"), "GAS": gas}).dropna()
    return pd.concat([plain, slow]).sort_values("time", ignore_index=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("joined")
    (folder / "plant.toml").write_text(PLANT)
    Site.create(folder / "site", folder / "plant.toml").close()
    (folder / "site" / "site.toml").write_text("dask.workers = 1\njournal.segment_mb = 16\n")
    with Site.open(folder / "site") as opened:
        opened.load(rows(0, LIVE))
        artifact = opened.train("temp")
        assert artifact.card["trained"]["last"] == FIRST + LIVE - WAIT, "what is joined later was not known yet"
        opened.deploy("temp")
        assert opened.stream(rows(LIVE, END))["ticks"] == END - LIVE - WAIT
        yield opened


def test_what_is_said_live_is_cut_from_the_windows_of_batch(site: Site) -> None:
    view = SpeedView.open(site.folder / "views" / "speed.sqlite")
    said = view.read("temp", 0, FIRST + END)
    view.close()
    assert said.ticks.tolist() == list(range(FIRST + LIVE, FIRST + END - WAIT))
    artifact, spec = site.artifact("temp"), WindowSpec.of(site.plant.model("temp"), site.plant)
    source = Source(folder=site.readings.folder, snapshot=site.readings.head().snapshot)
    ids = site.registry.ids([tag.name for tag in spec.stored]).tolist()
    batch = past(source, spec, ids, FIRST + LIVE, FIRST + END - WAIT)
    assert said.reasons.tolist() == batch.windows.reason.tolist()
    fine = np.flatnonzero(said.reasons == Reason.OK)
    assert 80 < len(fine) < END - LIVE - WAIT
    assert fine[-1] == len(said.ticks) - 1, "the last tick said had its readings, from behind it"
    withheld = {int(t) - FIRST for t in said.ticks[said.reasons == Reason.BAD_INPUT]}
    idle = {k + age for k in IDLE for age in range(1, 7)} & set(range(LIVE, END - WAIT))  # TEMP's past is in each row
    assert {490, 495} | idle <= withheld <= set(range(440, 520)) | idle
    windows = batch.windows.take(fine)
    assert np.array_equal(said.hashes[fine], window_hash(windows))
    expected = network.from_bytes(artifact.keras).predict_on_batch(windows)
    assert (np.abs(said.values[fine] - expected) <= 1e-5 * np.array(artifact.card["target_scale"])).all()
    # What stands in a window: the line between 13:41.3 and 13:48.3, say, and what is computed from it.
    at, k = int(fine[0]), int(said.ticks[fine[0]]) - FIRST
    low, high = (k - 1) // 7 * 7, (k - 1) // 7 * 7 + 7
    gas = np.float32(20 + 5 * np.sin(np.array([low, high]) / 20)).astype(np.float64)
    line = gas[0] + (gas[1] - gas[0]) * (k - low - 0.3) / 7
    np.testing.assert_allclose(windows[0, -1, 1], line, rtol=1e-6)
    np.testing.assert_allclose(windows[0, -1, 2], windows[0, -1, 0] / line, rtol=1e-6)
    assert not said.filled[at]


def test_a_query_ends_where_answers_end(site: Site) -> None:
    answer = site.query("temp", BEGIN + pd.Timedelta(LIVE, "s"))
    assert (len(answer["time"]), answer.attrs["holes"], answer.attrs["open"]) == (END - LIVE - WAIT, 0, WAIT)
    unknown = np.flatnonzero(np.isnan(answer["truth"].values[:, 0])) + LIVE
    assert unknown.tolist() == [k for k in IDLE if LIVE <= k < END - WAIT], "at little load it says nothing"
    assert len(unknown)


def test_the_past_is_said_again_and_recomputed_from_the_same_windows(site: Site) -> None:
    found = site.replay(BEGIN + pd.Timedelta(LIVE - 50, "s"))
    (temp,) = found.models
    assert found.unexplained == 0
    assert (temp["equal"], temp["not_said_live"], temp["ticks"]) == (END - LIVE - WAIT, 50, END - LIVE - WAIT + 50)
    live = site.query("temp", BEGIN + pd.Timedelta(LIVE, "s"))["prediction"].values
    told = site.recompute("temp", BEGIN + pd.Timedelta(100, "s"))
    assert told["reconciled"] == {"ticks": END - LIVE - WAIT, "unexplained": 0}
    assert pd.Timestamp(told["seam"]) == (BEGIN + pd.Timedelta(END - WAIT, "s")).tz_localize(None)
    again = site.query("temp", BEGIN + pd.Timedelta(LIVE, "s"))
    assert (again["layer"].values == "recomputed").all()
    np.testing.assert_allclose(
        again["prediction"].values, live, atol=1e-4 * site.artifact("temp").card["target_scale"][0]
    )
