"""The newest good windows: what a ready-made model is checked on, and that a worker runs one like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import waterworks
from numpy.typing import NDArray
from ready_made import pickled

from penstock.batch import golden
from penstock.batch.golden import newest_windows
from penstock.batch.history import past
from penstock.batch.plan import History, Job
from penstock.batch.view import Recompute, recompute
from penstock.data.models import Artifact, Draft, Golden, ModelStore
from penstock.data.windows import Reason
from penstock.errors import ModelError
from penstock.serving.alone import alone

Float32 = NDArray[np.float32]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return waterworks.archive(tmp_path_factory.mktemp("waterworks") / "archive")


def job(history: History, **changes: object) -> Job:
    return waterworks.jobs(history, waterworks.model("flow", **changes))[0]


@pytest.mark.parametrize("block", [20_000, 50, 7])
@pytest.mark.parametrize("horizon", [0, 3])
def test_they_are_the_newest_in_order_of_time_whatever_the_blocks(history: History, block: int, horizon: int) -> None:
    one = job(history, horizon_ns=horizon * waterworks.HOUR_NS)
    found = newest_windows("flow", history.source, one.spec, one.ids, history.first, history.last, block_ticks=block)
    every = past(history.source, one.spec, one.ids, history.first, history.last + horizon)
    good = np.flatnonzero(every.windows.reason == Reason.OK)[-golden.WINDOWS :]
    np.testing.assert_array_equal(found.windows, every.windows.x[good])
    assert found.scale.shape == (1,)
    assert found.scale[0] > 0
    if block == 20_000:
        truth = every.y[every.usable[:, 0], 0].astype(np.float64)
        assert found.scale[0] == pytest.approx(truth.std(), rel=1e-6)


def test_a_target_that_never_moved_has_scale_one(history: History) -> None:
    one = job(history)
    few = newest_windows("flow", history.source, one.spec, one.ids, history.last - 60, history.last)
    assert few.windows.shape == (golden.WINDOWS, 8, 4)
    still = golden._scale(np.full((9, 1), 7.0))
    assert still.tolist() == [1.0]


def test_too_few_are_counted_and_explained(history: History) -> None:
    one = job(history, when="load > 1000")
    with pytest.raises(ModelError, match=r"model 'flow': only 0 good windows .*NOT_RUNNING.*penstock import"):
        newest_windows("flow", history.source, one.spec, one.ids, history.first, history.last)


def doubled(windows: Float32) -> Float32:
    return windows[:, -1, 0] * 2


def unsure(windows: Float32) -> Float32:
    return windows[:, -1, :2]


def artifact(folder: Path, one: Job, predict: Callable[[Float32], Float32]) -> Artifact:
    x = np.zeros((1, one.spec.length, len(one.spec.features)), np.float32)
    known = Golden(windows=x, predictions=np.zeros((1, 1), np.float32), scale=np.ones(1, np.float32))
    card = {"spec": one.spec.to_json(), "trained": {"snapshot": "S"}}
    draft = Draft(name="flow", kind="callable", card=card, golden=known, program=pickled(predict))
    return ModelStore(folder).save(draft)


def block(one: Job, made: Artifact, first: int, last: int) -> Recompute:
    ids = tuple(waterworks.IDS[name] for name in one.spec.base)
    return Recompute(source=one.history.source, artifact=made, ids=ids, first=first, last=last, alone=alone)


def test_a_worker_runs_a_callable_in_a_process_of_its_own(history: History, tmp_path: Path) -> None:
    one = job(history)
    said = recompute(block(one, artifact(tmp_path, one, doubled), history.first, history.last))
    every = past(history.source, one.spec, one.ids, history.first, history.last)
    fine = every.windows.reason == Reason.OK
    np.testing.assert_array_equal(said.values[fine, 0], every.windows.x[fine][:, -1, 0] * 2)
    assert np.isnan(said.values[~fine]).all()
    assert not said.sample.any()


def test_a_callable_that_changed_its_shape_or_has_nobody_to_run_it_is_told(history: History, tmp_path: Path) -> None:
    one = job(history)
    made = artifact(tmp_path, one, unsure)
    with pytest.raises(ModelError, match="flow@1: gives 2 values per window, not 1"):
        recompute(block(one, made, history.first, history.last))
    with pytest.raises(ModelError, match="flow@1: a callable is run by what"):
        recompute(replace(block(one, made, history.first, history.last), alone=None))
