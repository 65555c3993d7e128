"""Training on a real (small) archive, in this process: splits, scaling, seeds, cards, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import waterworks
from hypothesis import given
from hypothesis import strategies as st

from penstock.batch import network, training
from penstock.batch.history import past
from penstock.batch.plan import History, Wish
from penstock.batch.sample import split
from penstock.data.models import ModelStore
from penstock.data.plant import HOUR_NS, PrepareStep
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelError, ModelNotFound


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return waterworks.archive(tmp_path_factory.mktemp("site") / "archive")


def test_a_trained_model_is_whole_and_beats_persistence(history: History, tmp_path: Path) -> None:
    (job,) = waterworks.jobs(history, waterworks.model("flow"))
    losses: list[float] = []
    draft = training.train(job, lambda _, loss: losses.append(loss))
    artifact = ModelStore(tmp_path).save(draft)

    assert artifact.kind == "lstm"
    again = network.from_bytes(artifact.keras)
    golden = artifact.golden
    assert golden.windows.shape == (32, 8, 4)
    np.testing.assert_array_equal(again.predict(golden.windows, verbose=0), golden.predictions)
    for name, array in artifact.serving.items():
        np.testing.assert_array_equal(array, network.weights_of(again)[name])

    card = json.loads((artifact.folder / "card.json").read_text())
    assert set(card) >= {
        "name", "version", "created", "kind", "spec", "units", "target_scale", "trained", "lstm",
        "code_version", "metrics", "sha256",
    }  # fmt: skip
    assert (card["name"], card["version"], card["created"]) == ("flow", 1, waterworks.CREATED)
    assert card["units"] == ["m3/h"]
    assert WindowSpec.from_json(card["spec"]) == job.spec
    assert card["trained"]["snapshot"] == history.source.snapshot
    assert card["trained"]["start"] == "2015-08-19T16:00:00.000000000Z"
    assert set(card["sha256"]) == {"model.keras", "golden.npz", "serving.npz"}
    assert card["fit"]["loss"] == min(losses)
    np.testing.assert_array_equal(np.float32(card["target_scale"]), golden.scale)

    row = card["metrics"]["flow"]
    assert row["n"] == card["trained"]["n_validation"]
    assert row["rmse"] < row["persistence_rmse"]
    assert row["r2"] > 0.8


def test_the_metrics_are_those_of_the_saved_model_on_the_newest_windows(history: History) -> None:
    (job,) = waterworks.jobs(history, waterworks.model("flow"))
    draft = training.train(job)
    whole = past(job.history.source, job.spec, job.ids, job.first, job.last)
    held = (whole.windows.reason == 0) & whole.usable[:, 0] & (whole.ends >= draft.card["trained"]["split"])
    said = network.from_bytes(draft.keras).predict(whole.windows.take(held), verbose=0)[:, 0]
    error = said.astype(np.float64) - whole.y[held, 0]
    row = draft.card["metrics"]["flow"]
    assert row["n"] == held.sum()
    assert row["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert row["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert row["bias"] == pytest.approx(error.mean(), rel=1e-4)
    still = whole.newest[held, 0].astype(np.float64) - whole.y[held, 0]
    assert row["persistence_mae"] == pytest.approx(np.abs(still).mean(), rel=1e-6)
    table = waterworks.values()[:, 3]
    np.testing.assert_array_equal(whole.y[held, 0], table[whole.ends[held] - waterworks.FIRST])


def test_the_same_seed_gives_the_same_bits_whatever_was_trained_before(history: History) -> None:
    (job,) = waterworks.jobs(history, waterworks.model("flow"))
    (other,) = waterworks.jobs(history, waterworks.model("flow"), wish=Wish(lstm={"seed": 2}))
    first = training.train(job)
    different = training.train(other)
    again = training.train(job)
    assert first.serving is not None
    assert again.serving is not None
    assert different.serving is not None
    for name, array in first.serving.items():
        np.testing.assert_array_equal(array, again.serving[name], err_msg=name)
    assert not np.array_equal(first.serving["l0.kernel"], different.serving["l0.kernel"])
    np.testing.assert_array_equal(first.golden.predictions, again.golden.predictions)
    assert first.card == again.card


def test_without_past_target_the_level_is_predicted_and_nobody_persists(history: History) -> None:
    spec = waterworks.model("level", past_target=False, horizon_ns=2 * HOUR_NS)
    (job,) = waterworks.jobs(history, spec)
    draft = training.train(job)
    assert draft.serving is not None
    assert not draft.serving["relative"].any()
    assert not draft.serving["last"].any()
    assert draft.serving["out.shift"][0] == pytest.approx(300, abs=30)
    assert "persistence_mae" not in draft.card["metrics"]["flow"]
    assert "ridge_mae" in draft.card["metrics"]["flow"]


def test_change_from_last_goes_through_the_past_column(history: History) -> None:
    spec = waterworks.model("flow", prepare={"valve": (PrepareStep(name="difference"),)})
    (job,) = waterworks.jobs(history, spec)
    draft = training.train(job)
    assert draft.serving is not None
    np.testing.assert_array_equal(draft.serving["relative"], [0, 0, 0, 1])
    np.testing.assert_array_equal(draft.serving["last"], [[0], [0], [0], [1]])
    assert abs(draft.serving["out.shift"][0]) < 3, "a change, not a level"
    (level,) = waterworks.jobs(history, spec, wish=Wish(lstm={"change_from_last": False}))
    assert not training.relations(level)[0].any()


def test_change_from_last_without_past_target_is_a_mistake(history: History) -> None:
    (job,) = waterworks.jobs(
        history, waterworks.model("flow", past_target=False), wish=Wish(lstm={"change_from_last": True})
    )
    with pytest.raises(ModelError, match=r"'flow'.*needs past_target"):
        training.train(job)


def test_too_few_windows_says_how_many_of_which_reason(history: History) -> None:
    grid = history.grid
    wish = Wish(start_ns=grid.time(history.first + 690), end_ns=grid.time(history.first + 730))
    (job,) = waterworks.jobs(history, waterworks.model("flow"), wish=wish)
    with pytest.raises(ModelError, match=r"'flow': too few windows.*40 windows, of which unusable: .*BAD_INPUT"):
        training.train(job)


def test_when_keeps_resting_hours_out(history: History) -> None:
    (job,) = waterworks.jobs(history, waterworks.model("flow", when="load > 50"))
    draft = training.train(job)
    trained = draft.card["trained"]
    running = np.count_nonzero(waterworks.values()[:, 1] > 50)
    assert 200 < trained["n_train"] + trained["n_validation"] <= running
    shown = draft.golden.windows[:, -1, 1]
    assert (shown > 50).all()


def test_a_constant_column_says_nothing(history: History, tmp_path: Path) -> None:
    """Live, a sensor that never moved in training must not shout: its inv is 0."""
    spec = waterworks.model("flow", prepare={"spare": (PrepareStep(name="clip", low=7.0, high=7.0),)})
    (job,) = waterworks.jobs(history, spec)
    draft = training.train(job)
    assert draft.serving is not None
    assert draft.serving["inv"][2] == 0
    assert (draft.serving["inv"][[0, 1, 3]] > 0).all()
    moved = draft.golden.windows.copy()
    moved[:, :, 2] = 1e6
    again = network.from_bytes(draft.keras).predict(moved, verbose=0)
    np.testing.assert_allclose(again, draft.golden.predictions, rtol=1e-6)


@given(
    good=st.lists(st.booleans(), min_size=1, max_size=200),
    share=st.floats(0.05, 0.6),
    gap=st.integers(1, 30),
    every=st.integers(1, 5),
)
def test_no_reading_is_on_both_sides_of_the_split(good: list[bool], share: float, gap: int, every: int) -> None:
    ends = 1000 + every * np.arange(len(good))
    train, validate, tick = split(ends, np.array(good), share, gap)
    chosen = np.flatnonzero(good)
    assert set(train) | set(validate) <= set(chosen)
    if len(chosen):
        assert len(validate) >= 1
        assert validate.tolist() == chosen[-len(validate) :].tolist(), "the newest"
        assert ends[validate[0]] == tick
        assert abs(len(validate) - share * len(chosen)) <= 1
        assert all(tick - ends[i] > gap for i in train)
        between = [i for i in chosen if i not in train and i not in validate]
        assert all(tick - gap <= ends[i] < tick for i in between)


def test_the_plan_clips_the_span_and_begins_with_the_dearest(history: History, tmp_path: Path) -> None:
    grid = history.grid
    small, large = waterworks.model("small"), waterworks.model("large", lstm=replace(waterworks.LSTM, units=64))
    jobs = waterworks.jobs(history, small, large)
    assert [job.name for job in jobs] == ["large", "small"]
    assert {(job.first, job.last) for job in jobs} == {(history.first, history.last)}
    wish = Wish(models=["small"], start_ns=grid.time(history.first + 10) - 1, end_ns=grid.time(history.first + 99) + 1)
    (job,) = waterworks.jobs(history, small, large, wish=wish)
    assert (job.first, job.last) == (history.first + 10, history.first + 100)
    retrained = replace(small, retrain=replace(small.retrain, span_ns=100 * HOUR_NS))
    (job,) = waterworks.jobs(history, retrained)
    assert (job.first, job.last) == (history.last - 100, history.last)
    (job,) = waterworks.jobs(history, replace(small, network="nets/a.py:build"), home=tmp_path)
    assert job.network == f"{tmp_path / 'nets' / 'a.py'}:build"


def test_the_plan_refuses_what_cannot_be(history: History) -> None:
    flow = waterworks.model("flow")
    with pytest.raises(ModelError, match=r"no setting 'unit'.*Did you mean 'units'"):
        waterworks.jobs(history, flow, wish=Wish(lstm={"unit": 3}))
    with pytest.raises(ModelError, match="at least 1"):
        waterworks.jobs(history, flow, wish=Wish(lstm={"units": 0}))
    with pytest.raises(ModelNotFound, match="Did you mean 'flow'"):
        waterworks.jobs(history, flow, wish=Wish(models=["flo"]))
    with pytest.raises(ModelError, match="no readings in the training span"):
        waterworks.jobs(history, flow, wish=Wish(start_ns=history.grid.time(history.last)))


def test_a_linear_path_that_begins_at_a_ridge_says_the_ridge_where_nothing_is_better(history: History) -> None:
    """A rate at which nothing can be learned: the ridge stays, and is the one of the plain normal equations."""
    (job,) = waterworks.jobs(history, waterworks.model("flow", past_target=False))
    job = replace(job, lstm=replace(job.lstm, ridge=0.01, units=2, epochs=2, learning_rate=10.0, patience=0))
    draft = training.train(job)
    assert draft.card["fit"]["best_epoch"] == 0
    _, sample = training.read(job)[0], training.sampled(*training.read(job))
    x, y = sample.x[sample.train, -1, :].astype(np.float64), sample.y[sample.train].astype(np.float64)
    every = sample.x[sample.train].astype(np.float64)
    z = (x - every.mean(axis=(0, 1))) / every.std(axis=(0, 1))
    centred = z - z.mean(axis=0)
    slope = np.linalg.solve(
        centred.T @ centred / len(z) + 0.01 * np.eye(z.shape[1]), centred.T @ (y - y.mean(0)) / len(z)
    )
    said = network.from_bytes(draft.keras).predict(sample.x[sample.train], verbose=0)
    np.testing.assert_allclose(said, y.mean(axis=0) + centred @ slope, atol=2e-3 * y.std())


def test_a_ridge_without_a_linear_path_is_told(history: History) -> None:
    with pytest.raises(ModelError, match="needs linear = true"):
        waterworks.jobs(history, waterworks.model("flow"), wish=Wish(lstm={"ridge": 0.1, "linear": False}))
