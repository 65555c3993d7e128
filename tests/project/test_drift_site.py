"""`penstock drift` on a site: its card beside what the archive and the speed view hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_site import BEGIN, SAID_FROM, make, readings, spoken
from typer.testing import CliRunner

from penstock.cli import app
from penstock.data.drift import Trained
from penstock.data.models import Draft, Golden
from penstock.data.views.speed_view import SpeedView
from penstock.data.windows import WindowSpec
from penstock.errors import ModelError
from penstock.site import Site

FIRST = int(BEGIN.timestamp()) + SAID_FROM
SPAN = (BEGIN + pd.Timedelta(SAID_FROM, "s"), BEGIN + pd.Timedelta(SAID_FROM + 2000, "s"))


def trained(folder: Path) -> Path:
    """The page's site, with a version 2 of "flow" whose card tells what it was trained on, and which spoke."""
    place = make(folder)
    with Site.open(place) as site:
        spec, table = WindowSpec.of(site.plant.model("flow"), site.plant), readings()
        inputs = Trained.of(["speed"], table[["speed"]].to_numpy()[:SAID_FROM])
        span = {"start": "", "end": "2025-03-01", "snapshot": "S", "first": 0, "last": 1, "inputs": inputs.to_json()}
        metrics = {"flow": {"n": 9, "mae": 3.0, "rmse": 3.5, "bias": 3.0}}
        card = {"spec": spec.to_json(), "units": ["m3/h"], "trained": span, "metrics": metrics}
        golden = Golden(windows=np.zeros((1, 10, 1), np.float32), predictions=np.zeros((1, 1), np.float32),
                        scale=np.ones(1, np.float32))  # fmt: skip
        serving = {"head": np.zeros(1, np.float32)}
        site.models.save(Draft(name="flow", kind="lstm", card=card, keras=b"", golden=golden, serving=serving))
        site.models.record("flow", 2, "deploy", "test")
    view = SpeedView.open(place / "views" / "speed.sqlite")
    view.write([replace(spoken(t), versions=np.array([2, 1], np.int32)) for t in range(FIRST, FIRST + 2000)])
    view.close()
    return place


def test_a_site_is_looked_at_and_status_tells_what_was_found(tmp_path: Path) -> None:
    place = trained(tmp_path)
    with Site.open(place) as site:
        answer = site.drift("flow", *SPAN)
        assert answer["findings"] == []  # off by three, as in its validation
        assert (answer["version"], answer["rows"], answer["residuals"]) == (2, 2000, 1999)  # one truth is bad
        assert not any(row["part"] == "drift flow" for row in site.status())
        with pytest.raises(ModelError, match=r"speed@1: its card does not tell .* penstock train speed"):
            site.drift("speed", *SPAN)
        times = pd.date_range(BEGIN + pd.Timedelta(12_000, "s"), periods=300, freq="s")
        site.load(pd.DataFrame({"time": times, "speed": 2900.0, "flow": 150.0}), time_column="time")
        found = site.drift("flow", times[0] + pd.Timedelta("20s"), times[-1])["findings"]
        assert [(f["kind"], f["what"]) for f in found] == [("sensor fault", "speed")]  # it stands still
        rows = [row for row in site.status() if row["part"] == "drift flow"]
        assert rows[0]["state"] == "wrong"
        assert "it stood still at 2900" in rows[0]["what"]


def test_the_command_ends_with_1_where_something_is_found(tmp_path: Path) -> None:
    place = trained(tmp_path)
    words = ["drift", "flow", "--site", str(place), "--json"]
    fine = CliRunner().invoke(app, [*words, "--start", str(SPAN[0])[:19], "--end", str(SPAN[1])[:19]])
    # The zone is the plant's, Berlin: an hour earlier nothing was said yet, and the inputs are as they were.
    assert fine.exit_code == 0, fine.output
    assert json.loads(fine.stdout.splitlines()[-1])["models"][0]["findings"] == []
    past_the_end = CliRunner().invoke(app, [*words, "--start", "-1h"])
    told = json.loads(past_the_end.stdout.splitlines()[-1])["models"][0]
    assert past_the_end.exit_code == int(bool(told["findings"]))
