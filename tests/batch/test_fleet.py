"""The fleet on real Dask worker processes: values come back, one failure stays alone, a killed worker costs seconds."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import waterworks
from distributed import Client

from penstock.batch import fleet
from penstock.batch.fleet import Failed, Progress, Trained
from penstock.batch.plan import History
from penstock.batch.view import compute_view
from penstock.cluster import client_for, local_cluster
from penstock.data.models import Artifact, ModelStore
from penstock.data.views.batch_view import BatchView
from penstock.data.windows import Reason, WindowSpec
from penstock.errors import ModelError, Unavailable

NETWORK = """
import keras

@keras.saving.register_keras_serializable(package="plant")
class Double(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def build(length, features, targets):
    x = keras.Input((length, features))
    h = keras.layers.Conv1D(8, 3, activation="relu")(Double()(x))
    return keras.Model(x, keras.layers.Dense(targets)(keras.layers.Flatten()(h)))
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_cluster(2) as connected:
        yield connected


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return waterworks.archive(tmp_path_factory.mktemp("site") / "archive")


@pytest.fixture(scope="module")
def results(client: Client, history: History, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained | Failed]:
    """One round: two LSTMs, a network of the user's, one that breaks, one that has no windows."""
    home = tmp_path_factory.mktemp("home")
    (home / "conv.py").write_text(NETWORK)
    (home / "broken.py").write_text("def build(length, features, targets):\n    return 1 / 0\n")
    jobs = waterworks.jobs(
        history,
        waterworks.model("flow"),
        waterworks.model("level", past_target=False),
        waterworks.model("conv", network="conv.py:build"),
        waterworks.model("broken", network="broken.py:build"),
        waterworks.model("resting", when="load > 1000"),
        home=home,
    )
    heard: list[Progress] = []
    found = {r.name: r for r in fleet.train(jobs, client=client, progress=heard.append, deadline_s=500)}
    deadline = time.monotonic() + 20
    while {p.name for p in heard} != {"flow", "level", "conv"} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {p.name for p in heard} == {"flow", "level", "conv"}
    assert all(1 <= p.epoch <= p.epochs == 6 and p.loss > 0 for p in heard)
    return found


@pytest.fixture(scope="module")
def store(results: dict[str, Trained | Failed], tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    made = ModelStore(tmp_path_factory.mktemp("site") / "models")
    for result in results.values():
        if isinstance(result, Trained):
            made.save(result.draft)
    return made


def test_every_job_answers_and_failures_stay_alone(results: dict[str, Trained | Failed]) -> None:
    assert {n for n, r in results.items() if isinstance(r, Trained)} == {"flow", "level", "conv"}
    broken, resting = results["broken"], results["resting"]
    assert isinstance(broken, Failed)
    assert "ZeroDivisionError" in broken.error
    assert "'broken'" in broken.error
    assert isinstance(resting, Failed)
    assert "'resting': too few windows" in resting.error
    assert "NOT_RUNNING" in resting.error


def test_the_users_network_is_stored_as_a_saved_model(store: ModelStore) -> None:
    artifact = store.load("conv", 1)
    assert artifact.kind == "solo"
    assert artifact.serving == {}
    assert artifact.card["metrics"]["flow"]["rmse"] > 0
    assert artifact.card["lstm"]["network"].endswith("conv.py:build")


def ids_of(artifact: Artifact) -> list[int]:
    return [waterworks.IDS[tag] for tag in WindowSpec.from_json(artifact.card["spec"]).base]


@pytest.mark.parametrize("name", ["flow", "conv"])
def test_the_view_is_what_the_model_says_of_every_window(
    client: Client, history: History, store: ModelStore, tmp_path: Path, name: str
) -> None:
    artifact = store.load(name, 1)
    ids = ids_of(artifact)
    first, last = history.first - 5, history.last
    rows = compute_view(client, artifact, history.source, ids, first, last, block_ticks=400, deadline_s=300)
    assert rows.ticks.tolist() == list(range(first, last))
    assert (rows.reasons[:5] != Reason.OK).all()
    fine = rows.reasons == Reason.OK
    assert 1300 < fine.sum() < 1500
    assert np.isnan(rows.values[~fine]).all()
    assert np.isfinite(rows.values[fine]).all()
    assert set(rows.versions[fine]) == {1}
    assert set(rows.versions[~fine]) == {0}
    np.testing.assert_array_equal(rows.sample, (rows.ticks >= history.first) & (rows.ticks < history.last))

    golden = artifact.golden  # each golden window is one of the view's rows
    said = rows.values[fine, 0]
    for prediction in golden.predictions[:, 0]:
        assert np.min(np.abs(said - prediction)) <= 1e-5 * golden.scale[0]

    attributes = {"model": name, "version": 1, "snapshot": history.source.snapshot, "horizon": 0}
    BatchView.write(tmp_path / name, rows, first=first, last=last, attributes=attributes)
    view = BatchView.open(tmp_path / name)
    assert view is not None
    assert view.seam == last
    np.testing.assert_array_equal(view.read(first + 7, last - 9).values, rows.values[7:-9])


def test_blocks_do_not_show_in_the_view(client: Client, history: History, store: ModelStore) -> None:
    artifact = store.load("flow", 1)
    ids = ids_of(artifact)
    span = history.first + 640, history.first + 760
    whole = compute_view(client, artifact, history.source, ids, *span)
    cut = compute_view(client, artifact, history.source, ids, *span, block_ticks=17)
    for name, array in whole.columns().items():
        if name == "values":
            np.testing.assert_allclose(cut.values, array, atol=1e-5 * float(artifact.golden.scale[0]))
        else:
            np.testing.assert_array_equal(cut.columns()[name], array)
    assert len(compute_view(client, artifact, history.source, ids, span[0], span[0]).ticks) == 0


def test_a_damaged_model_is_an_error_of_ours(client: Client, history: History, store: ModelStore) -> None:
    good = store.load("flow", 1)
    bad = Artifact(
        name="flow", version=9, folder=good.folder, card=good.card, files={**good.files, "model.keras": b"x"}
    )
    with pytest.raises(ModelError, match="cannot be read"):
        compute_view(client, bad, history.source, ids_of(good), history.first, history.first + 50)


def test_a_killed_worker_costs_seconds_and_no_model(client: Client, history: History) -> None:
    jobs = waterworks.jobs(history, *(waterworks.model(f"m{i}") for i in range(4)))
    victims = client.run(os.getpid)

    def kill() -> None:
        time.sleep(0.3)
        os.kill(next(iter(victims.values())), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = list(fleet.train(jobs, client=client, deadline_s=500))
    killer.join()
    assert sorted(r.name for r in found) == ["m0", "m1", "m2", "m3"]
    assert all(isinstance(r, Trained) for r in found)
    same = [r.draft.golden.predictions for r in found if isinstance(r, Trained)]
    for predictions in same[1:]:
        np.testing.assert_array_equal(predictions, same[0], "whichever worker, built now or before")
    client.wait_for_workers(2, timeout=60)


def test_what_is_not_done_in_time_is_failed_and_cancelled(client: Client, history: History) -> None:
    jobs = waterworks.jobs(history, *(waterworks.model(f"m{i}") for i in range(6)))
    found = list(fleet.train(jobs, client=client, deadline_s=0.05))
    assert sorted(r.name for r in found) == [f"m{i}" for i in range(6)]
    late = [r for r in found if isinstance(r, Failed)]
    assert late
    assert all("not trained within 0.05 s" in r.error for r in late)
    deadline = time.monotonic() + 60
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(client.processing().values())


def test_the_cluster_has_the_settings_that_outlive_kills(client: Client) -> None:
    def setting(name: str) -> object:
        import dask

        return dask.config.get(name)

    assert client.run_on_scheduler(setting, "distributed.scheduler.allowed-failures") == 10
    assert client.run_on_scheduler(setting, "distributed.scheduler.work-stealing") is False
    assert set(client.run(os.environ.get, "TF_NUM_INTRAOP_THREADS").values()) == {"1"}
    assert set(client.nthreads().values()) == {1}


def test_another_client_by_address(client: Client) -> None:
    with client_for(client.scheduler.address) as second:
        assert second.submit(sum, [1, 2]).result(timeout=30) == 3


def test_no_scheduler_there() -> None:
    with pytest.raises(Unavailable, match="no address"), client_for("no address"):
        pass


def counts() -> tuple[int, int]:
    """On a worker: steps traced, shelves read."""
    from penstock.batch.history import shelf_cells
    from penstock.batch.passes import TRACED

    return TRACED["step"], shelf_cells.cache_info().misses


def test_a_worker_traces_a_shape_once_and_reads_the_history_once(client: Client, history: History) -> None:
    client.run(fleet.quiet_tensorflow)
    before = client.run(counts)
    jobs = waterworks.jobs(history, *(waterworks.model(f"m{i}", window=11) for i in range(6)))
    assert all(isinstance(r, Trained) for r in fleet.train(jobs, client=client, deadline_s=500))
    more = {at: (traced - before[at][0], read - before[at][1]) for at, (traced, read) in client.run(counts).items()}
    assert set(more.values()) <= {(1, 1), (0, 0)}, "0: one worker was quick enough to do all"
    assert (1, 1) in more.values()
