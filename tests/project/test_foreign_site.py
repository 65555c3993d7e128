"""Models that plant.toml may not know, handed to a site in one call: live, streamed, recomputed, compared, listed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ready_made import onnx_file
from typer.testing import CliRunner

from penstock.cli import app
from penstock.data.views.speed_view import Spoken
from penstock.data.windows import Reason
from penstock.errors import ModelError, ModelNotFound, PlantError
from penstock.page import questions
from penstock.serving.pool import Pool
from penstock.site import Site

PLANT = """
[plant]
name = "pump"
period = "1s"
[tags]
speed = { unit = "rpm", range = [0, 3000], max_gap = "5s" }
valve = { unit = "%", range = [0, 100], max_gap = "5s" }
load = { unit = "kW", range = [0, 500], max_gap = "5s" }
flow = { unit = "m3/h", range = [0, 400], max_gap = "5s" }
[model.flow]
target = "flow"
inputs = ["speed", "valve"]
window = "6s"
isolate = true
lstm = { units = 4, epochs = 1 }
"""
BEGIN = pd.Timestamp("2025-03-01", tz="UTC")
HISTORY, LIVE = 3000, 40
BACK_S = 120.0
"""A busy machine's time to notice, and to start a process again."""
TAGS = ["speed", "valve", "load"]
SOFT: dict[str, Any] = {"target": "flow", "inputs": TAGS, "window": "6s"}


def readings(first: int, last: int) -> pd.DataFrame:
    k = np.arange(first, last)
    columns = {
        "speed": 1500 + 300 * np.sin(k / 90),
        "valve": 50 + 20 * np.cos(k / 40),
        "load": 200 + 90 * np.sin(k / 33),
        "flow": 150 + 40 * np.sin(k / 50),
    }
    return pd.DataFrame({"time": BEGIN + pd.to_timedelta(k, unit="s"), **columns})


def formula(windows: np.ndarray) -> np.ndarray:
    """A soft sensor out of a drawer."""
    return windows[:, -1, 0] / 10 + windows[:, :, 1].mean(axis=1) / 100


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "pump.toml").write_text(PLANT)
    with Site.create(folder / "pump", folder / "pump.toml") as made:
        made.load(readings(0, HISTORY))
        yield made


@pytest.fixture(scope="module")
def dense() -> Any:
    import keras

    keras.utils.set_random_seed(2)
    layers = [keras.Input((6, 3)), keras.layers.Flatten(), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    return keras.Sequential(layers)


def test_one_call_each_and_all_answer_to_a_stock_client_as_the_model_itself_does(site, dense, tmp_path):
    (tmp_path / "soft.onnx").write_bytes(onnx_file())
    assert site.deploy(formula, name="soft", **SOFT)["live"] == "soft@1"
    assert site.deploy(dense, name="dense", target="flow", inputs=TAGS)["live"] == "dense@1", "its input says 6 rows"
    assert site.deploy(dense, name="alone", target="flow", inputs=TAGS, isolate=True)["live"] == "alone@1"
    assert site.deploy(tmp_path / "soft.onnx", name="graph", **SOFT)["live"] == "graph@1"
    golden = site.artifact("soft").golden
    own: dict[str, Callable[[Any], Any]] = {"soft": formula, "dense": dense.predict_on_batch}
    with Pool(site.parts.endpoints(), deadline_s=10.0) as pool:
        for name in ("soft", "dense", "alone", "graph"):
            artifact = site.artifact(name)
            said = pool.predict(name, golden.windows)
            wanted = own.get(name, lambda _, a=artifact: a.golden.predictions)(golden.windows)
            assert np.abs(said.values - np.reshape(wanted, (-1, 1))).max() <= 1e-5 * artifact.golden.scale[0], name
        assert {m.name: m.parameters["inputs"] for m in pool.models()}["graph"] == TAGS
    cards = {card["name"]: card for card in site.cards()}
    assert [cards[n]["kind"] for n in ("soft", "dense", "alone", "graph")] == ["callable", "solo", "solo", "onnx"]
    assert [cards[n]["isolate"] for n in ("soft", "dense", "alone", "graph")] == [True, False, True, True]
    assert cards["graph"]["made"] == "soft.onnx"
    assert all(card["trained"]["snapshot"] == site.readings.head().snapshot for card in cards.values())


def test_they_are_streamed_queried_recomputed_and_compared_like_the_plants_own(site):
    report = site.stream(readings(HISTORY, HISTORY + LIVE))
    assert (report["failed_requests"], report["predictions"]) == (0, 4 * LIVE)
    live = site.query("soft", f"-{LIVE}s")
    rows = readings(HISTORY - 5, HISTORY + LIVE)[TAGS].to_numpy(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(rows, 6, axis=0).transpose(0, 2, 1)
    assert set(live["reason"].values) == {Reason.OK.name}
    np.testing.assert_allclose(live["prediction"].values[:, 0], formula(windows), rtol=1e-5)
    assert live["unit"].values.tolist() == ["m3/h"]
    for name in ("soft", "graph", "alone"):
        site.recompute(name, BEGIN + pd.Timedelta("10min"), BEGIN + pd.Timedelta("20min"))
    run = site.reconcile()
    assert (run.unexplained, sum(m["equal"] + m["close"] for m in run.models)) == (0, 4 * LIVE), "of any kind of model"
    past = site.query("soft", BEGIN + pd.Timedelta("10min"), BEGIN + pd.Timedelta("20min"))
    assert set(past["layer"].values) == {"recomputed"}
    rows = readings(600 - 5, 1200)[TAGS].to_numpy(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(rows, 6, axis=0).transpose(0, 2, 1)
    np.testing.assert_allclose(past["prediction"].values[:, 0], formula(windows), rtol=1e-5)
    assert not past["sample"].values.any()
    table = site.compare("soft", start=BEGIN + pd.Timedelta("10min"), end=BEGIN + pd.Timedelta("20min")).table
    assert table["method"].tolist() == ["soft@1", "persistence"], "no ridge: nobody knows what it was trained on"
    together = site.compare("soft", ["soft", "graph", "dense"], start=BEGIN, end=BEGIN + pd.Timedelta("10min"))
    assert together.table["n"].nunique() == 1


def test_they_are_listed_wherever_models_are(site):
    assert site.model_names() == ["flow", "alone", "dense", "graph", "soft"]
    labels = [choice.label for choice in questions(site).face.choices]
    assert labels == site.model_names()
    sheet = {entry.choice.model: entry for entry in questions(site).sheet()}
    assert (sheet["soft"].deployed, sheet["soft"].trained) == (1, "")
    (models,) = [row for row in site.status() if row["part"] == "models"]
    assert "soft@1" in models["what"]
    shown = CliRunner().invoke(app, ["models", "--site", str(site.folder)]).output
    assert "soft@1" in shown
    assert "ready made" in shown
    row = next(site.live("soft"))
    assert row["version"].values.tolist() == [1]


def wrong_shape(windows: np.ndarray) -> np.ndarray:
    return windows


def infinite(windows: np.ndarray) -> np.ndarray:
    return np.full(len(windows), np.inf)


def raising(windows: np.ndarray) -> np.ndarray:
    raise ArithmeticError("not today")


def ending(windows: np.ndarray) -> np.ndarray:
    os._exit(5)


@pytest.mark.parametrize(
    ("model", "keys", "error", "why"),
    [
        (wrong_shape, SOFT, ModelError, r"returned shape \(32, 6, 3\) for 32 windows"),
        (infinite, SOFT, ModelError, "not finite"),
        (raising, SOFT, ModelError, r"ArithmeticError: not today \(in raising"),
        (ending, SOFT, ModelError, "its process has ended with code 5"),
        ("nowhere.onnx", SOFT, ModelError, r"nowhere\.onnx: No such file"),
        (3, SOFT, ModelError, r"found int; accepted: a Keras model, a function predict\(windows\)"),
        (formula, {**SOFT, "inputs": ["sped"]}, PlantError, r'inputs: found unknown tag "sped".*Did you mean .speed'),
        (formula, {**SOFT, "window": "6m"}, PlantError, "window: found \"6m\"; allowed: a duration"),
        (formula, {**SOFT, "inputs": ["flow"]}, PlantError, "tags other than the target"),
        ("soft", SOFT, ModelError, "only for ready-made models"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_the_version_before_answers(site, model, keys, error, why):
    versions = site.models.versions("soft")
    with pytest.raises(error, match=why):
        site.deploy(model, name="soft", **keys)
    assert site.models.versions("soft") == versions, "nothing was stored"
    golden = site.artifact("soft").golden
    with Pool(site.parts.endpoints(), deadline_s=10.0) as pool:
        assert pool.predict("soft", golden.windows).version == 1


def test_a_name_is_needed_and_an_unknown_one_is_told(site):
    with pytest.raises(ModelError, match="needs a name"):
        site.deploy(formula)
    with pytest.raises(ModelError, match="becomes the next version"):
        site.deploy(formula, 2, name="soft", **SOFT)
    with pytest.raises(ModelNotFound, match="Did you mean 'soft'"):
        site.query("sofft")
    with pytest.raises(ModelError, match="handed over ready made, so it cannot be trained"):
        site.train("soft")


def test_too_few_good_windows_are_told_with_the_remedy(tmp_path):
    (tmp_path / "pump.toml").write_text(PLANT)
    with Site.create(tmp_path / "pump", tmp_path / "pump.toml") as empty:
        empty.load(readings(0, 9))
        with pytest.raises(ModelError, match=r"only 4 good windows .*at least 8.*penstock import"):
            empty.deploy(formula, name="soft", **SOFT)


def test_plant_toml_says_the_windows_of_its_models_and_isolate_acts(site):
    """An LSTM with isolate = true is served as its SavedModel, in a process of its own; a callable takes its place."""
    run = site.train("flow")
    assert (run.kind, run.card["isolate"]) == ("solo", True)
    site.deploy(run)
    with Pool(site.parts.endpoints(), deadline_s=10.0) as pool:
        said = pool.predict("flow", run.golden.windows)
        assert np.abs(said.values - run.golden.predictions).max() <= 1e-5 * run.golden.scale[0]
        assert pool.admin({"do": "canary", "name": "flow"})["kind"] == "solo"
    with pytest.raises(ModelError, match=r"window = \"7s\" is not what plant\.toml says"):
        site.deploy(formula, name="flow", window="7s")
    assert site.deploy(formula, name="flow", inputs=["speed", "valve"])["live"] == "flow@2"
    assert site.deploy(formula, name="soft")["live"] == "soft@2", "as the version before"
    assert site.spec("soft") == site.spec("graph")
    assert site.undeploy("graph") == {"undeployed": "graph@1"}
    assert "graph" not in site.model_names()
    assert json.loads(json.dumps(site.spec("graph").to_json()))["length"] == 6, "what it said stays to be asked for"


def test_one_that_dies_is_missed_alone_and_status_says_so_until_it_is_back(site, tmp_path):
    """
    tick     | 0 ... 9   10 ...  29
    fragile  | OK        NO_ANSWER       its process dies, and does at every start while the flag stands
    the rest | OK        OK
    """
    flag, first = tmp_path / "flag", HISTORY + LIVE

    def fragile(windows: np.ndarray) -> np.ndarray:
        if flag.exists():
            os._exit(3)
        return formula(windows)

    def told(state: str) -> dict[str, str]:
        until = time.monotonic() + BACK_S
        while (row := next(r for r in site.status() if r["part"] == "triton"))["state"] != state:
            assert time.monotonic() < until, row
            time.sleep(0.2)
        return row

    site.deploy(fragile, name="fragile", **SOFT)
    tenth = site.readings.grid.tick_of(int(BEGIN.value)) + first + 9

    def raise_the_flag(spoken: Spoken) -> None:
        if spoken.tick == tenth:
            flag.touch()

    report = site.stream(readings(first, first + 30), rate=10.0, on_tick=raise_the_flag)
    assert report["failed_requests"] == 0
    for name in ("soft", "dense", "alone"):
        assert set(site.query(name, "-30s")["reason"].values) == {"OK"}
    reasons = site.query("fragile", "-30s")["reason"].values.tolist()
    assert reasons[:10] == ["OK"] * 10
    assert reasons[-1] == "NO_ANSWER"
    assert "fragile@1: its process has ended with code 3" in told("wrong")["what"]
    flag.unlink()
    told("ok")
    golden = site.artifact("fragile").golden
    with Pool(site.parts.endpoints(), deadline_s=10.0) as pool:
        assert np.abs(pool.predict("fragile", golden.windows).values - golden.predictions).max() <= 1e-4
    site.undeploy("fragile")
