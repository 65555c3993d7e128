"""The live page's rows, read again and again, are those of a query that reads all of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_site import BEGIN, PLANT, SAID_FROM, make, spoken

from penstock.data.block import FILLED, Flag
from penstock.data.views.speed_view import SpeedView
from penstock.page import questions
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
    return Trace(
        times=said["time"].to_numpy().astype("datetime64[ns]").astype(np.int64), truth=said["truth"].to_numpy(),
        faulty=((flags & (Flag.BAD | FILLED)) != 0) & ((flags & Flag.MISSING) == 0),
        prediction=said["prediction"].to_numpy(), persistence=np.zeros(0, np.float32),
        filled=said["filled"].to_numpy(), versions=said["version"].to_numpy(), reasons=said["reason"].to_numpy(),
    )  # fmt: skip


def agree(seen: Trace, asked: Trace) -> None:
    for name in (field.name for field in dataclasses.fields(Trace) if field.name != "persistence"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(asked, name), name)


@pytest.mark.parametrize("plant", [PLANT, AHEAD])
def test_the_rows_are_those_of_a_query(tmp_path: Path, plant: str) -> None:
    with Site.open(make(tmp_path, plant)) as site:
        ask, view = questions(site), SpeedView.open(tmp_path / "pump" / "views" / "speed.sqlite")
        assert not len(ask.trace("flow", ROWS).times)
        for tick in (*range(FIRST, FIRST + 6), *range(FIRST + 70, FIRST + 110, 9), FIRST + 2000, FIRST + 2001):
            view.write([spoken(tick)])
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
