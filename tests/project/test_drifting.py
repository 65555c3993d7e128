"""Drift that has a model trained again: which kinds, never for a sensor's fault, not again within the pause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_site import BEGIN, make, readings
from typer.testing import CliRunner

from penstock.cli import app
from penstock.data.drift import Trained
from penstock.data.models import Draft, Golden
from penstock.data.plant import DriftSpec
from penstock.data.plants.plant_file import check_plant, load_plant
from penstock.data.runs import Run
from penstock.data.windows import WindowSpec
from penstock.drifting import drifted, rests
from penstock.schedule import Schedule
from penstock.site import Site
from penstock.turns import Turn, missed

NOW = "2026-03-08T02:00:00+00:00"
RUN = Run(
    id="r", begun="2026-03-05T02:00:00+00:00", key="k", models=("flow",), start_ns=None, end_ns=None, lstm={},
    snapshot="S", ended="2026-03-05T02:10:00Z", kind="retrain",
)  # fmt: skip


def drifting(folder: Path, on_drift: str) -> Path:
    """The page's site, whose live "flow" was trained on what it saw; then inputs come as it never saw them."""
    place = make(folder)
    text = (place / "plant.toml").read_text().replace(
        "[model.flow]", f"[model.flow]\nretrain = {{ on_drift = {on_drift} }}"
    )  # fmt: skip
    (place / "plant.toml").write_text(text)
    with Site.open(place) as site:
        spec, table = WindowSpec.of(site.plant.model("flow"), site.plant), readings()
        inputs = Trained.of(["speed"], table[["speed"]].to_numpy())
        span = {"start": "", "end": "2025-03-01", "snapshot": "S", "first": 0, "last": 1, "inputs": inputs.to_json()}
        metrics = {"flow": {"n": 9, "mae": 3.0, "rmse": 3.5, "bias": 3.0}}
        card = {"spec": spec.to_json(), "units": ["m3/h"], "trained": span, "metrics": metrics}
        golden = Golden(windows=np.zeros((1, 10, 1), np.float32), predictions=np.zeros((1, 1), np.float32),
                        scale=np.ones(1, np.float32))  # fmt: skip
        serving = {"head": np.zeros(1, np.float32)}
        site.models.save(Draft(name="flow", kind="lstm", card=card, keras=b"", golden=golden, serving=serving))
        site.models.record("flow", 2, "deploy", "test")
    return place


def load(site: Site, after_s: int, speed: np.ndarray) -> None:
    times = pd.date_range(BEGIN + pd.Timedelta(after_s, "s"), periods=len(speed), freq="s")
    site.load(pd.DataFrame({"time": times, "speed": speed, "flow": 150.0}), time_column="time")


def test_it_retrains_what_has_drifted_but_not_for_a_sensor_and_not_within_the_pause(tmp_path: Path) -> None:
    place = drifting(tmp_path, '{ over = "4min", pause = "2d" }')
    fast = readings()["speed"].max() + 100 + np.random.default_rng(1).normal(0, 5, 600)
    with Site.open(place) as site:
        names = list(site.plant.models)
        assert drifted(site, names, NOW) == {}, "all is as it was trained"
        load(site, 12_000, fast)
        reason = {"flow": "outside the trained range: speed"}
        assert drifted(site, names, NOW) == reason
        site.runs.begin(replace(RUN, ended=None))
        site.runs.end("r")
        assert drifted(site, names, "2026-03-06T00:00:00+00:00") == {}, "it was retrained yesterday"
        assert drifted(site, names, NOW) == reason
        left = replace(RUN, id="left", begun="2026-03-08T01:59:00+00:00", reasons=reason)
        site.runs.begin(left)
        assert drifted(site, names, NOW) == reason, "an interrupted one is gone on with, pause or not"
        assert site.runs.all()[0].reasons == reason
        site.runs.end("left")
        load(site, 12_600, np.full(600, 5000.0))
        assert drifted(site, names, "2027-01-01T00:00:00+00:00") == {}, "it stands still: look at the sensor"


def test_only_the_kinds_that_are_named(tmp_path: Path) -> None:
    place = drifting(tmp_path, '{ kinds = ["slow ageing"], over = "4min" }')
    with Site.open(place) as site:
        load(site, 12_000, readings()["speed"].max() + 100 + np.random.default_rng(1).normal(0, 5, 600))
        assert drifted(site, list(site.plant.models), NOW) == {}
    run = CliRunner().invoke(app, ["retrain", "--all", "--on-drift", "--site", str(place), "--json"])
    assert run.exit_code == 0, run.output
    assert '"models": []' in run.stdout


def test_the_schedule_looks_at_its_own_times(tmp_path: Path) -> None:
    place = drifting(tmp_path, "true")
    kept = Schedule(place, load_plant(place / "plant.toml"))
    assert kept.turns == [Turn(cron="0 2 * * *", models=("flow",), drift=True)]
    now = pd.Timestamp(NOW).to_pydatetime()
    for_drift = replace(RUN, reasons={"flow": "new regime: inputs together"})
    assert missed(kept.turns[0], [RUN, for_drift], "UTC", now) is False
    assert missed(kept.turns[0], [replace(for_drift, ended=None)], "UTC", now) is True
    assert missed(kept.turns[0], [replace(RUN, ended=None)], "UTC", now) is False, "no look at drift began that one"


def test_a_model_rests_after_any_retrain() -> None:
    spec = DriftSpec(pause_ns=3 * 86_400 * 10**9)
    assert rests("flow", spec, [RUN], "2026-03-08T01:59:59+00:00") is True
    assert rests("flow", spec, [RUN], NOW) is False
    assert rests("other", spec, [RUN], RUN.begun) is False
    assert rests("flow", spec, [replace(RUN, kind="train")], RUN.begun) is False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("true", DriftSpec()),
        ("false", None),
        ('["slow ageing"]', DriftSpec(kinds=("slow ageing",))),
        ('{ cron = "0 4 * * *", pause = "0s" }', DriftSpec(cron="0 4 * * *", pause_ns=0)),
        ('["sensor fault"]', "on_drift"),
        ("[]", "on_drift"),
        ('{ kinds = "new regime" }', "on_drift.kinds"),
        ('{ over = "0s" }', "on_drift.over"),
        ('{ cron = "99 * * * *" }', "on_drift.cron"),
        ("{ often = true }", "on_drift.often"),
    ],
)
def test_the_key(tmp_path: Path, text: str, found: object) -> None:
    path = tmp_path / "plant.toml"
    path.write_text(
        '[plant]\nname = "m"\nperiod = "1h"\n[tags]\nA = {}\nY = {}\n[model.m]\ntarget = "Y"\ninputs = ["A"]\n'
        f'window = "4h"\nretrain = {{ on_drift = {text} }}\n'
    )
    mistakes = check_plant(path)
    if isinstance(found, str):
        assert [mistake.key for mistake in mistakes] == [f"model.m.retrain.{found}"]
    else:
        assert load_plant(path).models["m"].retrain.drift == found
