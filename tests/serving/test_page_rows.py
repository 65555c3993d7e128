"""The live page's rows, read again and again, are those of a query that reads all of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bokeh.models import Legend, VArea
from page_site import BEGIN, PLANT, SAID_FROM, make, spoken

from penstock.data.block import FILLED, Flag
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.page import questions
from penstock.serving import charts
from penstock.serving.questions import Trace
from penstock.site import Site

FIRST = int(BEGIN.timestamp()) + SAID_FROM
ROWS = 60
AHEAD = PLANT.replace('inputs = ["speed"]', 'inputs = ["speed"]\nhorizon = "3s"\nevery = "2s"\npast_target = true')


def asked(site: Site, model: str, tick: int) -> Trace:
    """What `site.query` says of the newest rows."""
    spec, grid = site.spec(model), site.readings.grid
    last = tick + spec.horizon + 1
    said = site.query(model, grid.time(last - ROWS * spec.every), grid.time(last), strict=False)
    heard = np.flatnonzero(said["layer"].to_numpy() != "")
    said = said.isel(time=slice(int(heard[0]), None))
    flags = said["flags"].to_numpy()
    none = np.full(said["truth"].shape, np.nan, np.float32)
    corrected, low, high = (said[k].to_numpy() if k in said else none for k in ("corrected", "low", "high"))
    return Trace(
        times=said["time"].to_numpy().astype("datetime64[ns]").astype(np.int64), truth=said["truth"].to_numpy(),
        faulty=((flags & (Flag.BAD | FILLED)) != 0) & ((flags & Flag.MISSING) == 0),
        prediction=said["prediction"].to_numpy(), persistence=np.zeros(0, np.float32),
        corrected=corrected, low=low, high=high,
        filled=said["filled"].to_numpy(), versions=said["version"].to_numpy(), reasons=said["reason"].to_numpy(),
    )  # fmt: skip


def with_beside(said: Spoken) -> Spoken:
    """Numbers that tell tick, column and output apart."""
    each = np.arange(len(said.values), dtype=np.float32) + said.tick % 1000
    adjusted = Adjusted(corrections=each, lows=each - 9, highs=each + 9, chances=each / 2000)
    return dataclasses.replace(said, adjusted=adjusted)


def agree(seen: Trace, asked: Trace) -> None:
    for name in (field.name for field in dataclasses.fields(Trace) if field.name != "persistence"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(asked, name), name)


BESIDE = PLANT.replace(
    'inputs = ["speed"]', 'inputs = ["speed"]\ncorrect = { by = "bias", over = "9s" }\ninterval = 0.9'
)


@pytest.mark.parametrize("plant", [PLANT, AHEAD, BESIDE])
def test_the_rows_are_those_of_a_query(tmp_path: Path, plant: str) -> None:
    with Site.open(make(tmp_path, plant)) as site:
        ask, view = questions(site), SpeedView.open(tmp_path / "pump" / "views" / "speed.sqlite")
        assert not len(ask.trace("flow", ROWS).times)
        for tick in (*range(FIRST, FIRST + 6), *range(FIRST + 70, FIRST + 110, 9), FIRST + 2000, FIRST + 2001):
            view.write([with_beside(spoken(tick)) if tick % 3 else spoken(tick)])
            for model in ("flow", "speed"):
                seen = ask.trace(model, ROWS)
                agree(seen, asked(site, model, tick))
                assert len(seen.persistence) == len(seen.times)
        view.close()


def test_persistence_is_the_truth_before_and_a_late_truth_is_seen(tmp_path: Path) -> None:
    with Site.open(make(tmp_path)) as site:
        ask, view = questions(site), SpeedView.open(tmp_path / "pump" / "views" / "speed.sqlite")
        beyond = int(BEGIN.timestamp()) + 12_000  # readings end before
        view.write([spoken(beyond - 2), spoken(beyond - 1), spoken(beyond)])
        before = ask.trace("flow", ROWS)
        np.testing.assert_array_equal(before.persistence[1:], before.truth[:-1])
        assert np.isnan(before.truth[-1])
        came = pd.DataFrame({"time": [pd.Timestamp(beyond, unit="s", tz="UTC")], "speed": [1500.0], "flow": [150.0]})
        site.load(came, time_column="time")
        assert ask.trace("flow", ROWS).truth[-1] == 150
        view.close()


def test_a_query_has_what_was_said_beside_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    with Site.open(make(tmp_path, BESIDE)) as site:
        view = SpeedView.open(tmp_path / "pump" / "views" / "speed.sqlite")
        view.write([with_beside(spoken(t)) if t != FIRST + 1 else spoken(t) for t in range(FIRST, FIRST + 3)])
        view.close()
        grid = site.readings.grid
        said = site.query("flow", grid.time(FIRST), grid.time(FIRST + 3))
        raw, said_at = said["prediction"].to_numpy()[:, 0], np.array([0, 2])
        corrected = np.full(3, np.nan, np.float32)
        corrected[said_at] = raw[said_at] + np.float32(FIRST % 1000) + said_at.astype(np.float32)
        np.testing.assert_array_equal(said["corrected"].to_numpy()[:, 0], corrected)
        np.testing.assert_array_equal(np.isnan(said["low"].to_numpy()[:, 0]), np.isnan(corrected))
        assert (said["high"] - said["low"]).to_numpy()[said_at, 0].tolist() == [18.0, 18.0]
        assert "corrected" in site.query("flow", grid.time(FIRST - 9), grid.time(FIRST - 5))  # asked for, and not known
    (tmp_path / "plain").mkdir()
    with Site.open(make(tmp_path / "plain")) as site:
        assert "corrected" not in site.query("flow", grid.time(FIRST), grid.time(FIRST + 3))


def test_the_chart_has_the_interval_behind_the_lines_from_the_same_rows() -> None:
    plain, chart = charts.trend("UTC"), charts.trend("UTC", beside=True)
    assert not plain.figure.select(VArea)
    assert set(chart.source.data) - set(plain.source.data) == set(charts.BESIDE)
    band = chart.figure.renderers[0]
    assert (band.glyph.y1, band.glyph.y2) == ("low", "high")
    assert all(drawn.data_source is chart.source for drawn in chart.figure.renderers)
    assert "corrected" in [getattr(drawn.glyph, "y", None) for drawn in chart.figure.renderers]
    labels = [item.label.value for item in chart.figure.select_one(Legend).items]
    assert {"interval", "corrected"} <= set(labels)
