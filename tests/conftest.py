"""Fixtures that several folders of tests share: the real Triton, and artifacts for it.

One server serves the whole session; it starts when the first test asks.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.data.models import Artifact, Draft, Golden, ModelStore
from penstock.data.plant import HOUR_NS, ModelSpec, Plant, Tag
from penstock.data.windows import WindowSpec
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.serving.triton import Triton

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """The session's server. A test that damages it repairs it."""
    with Triton.start(tmp_path_factory.mktemp("site") / "triton", capacity=24) as server:
        yield server


@pytest.fixture
def pool(triton: Triton) -> Iterator[Pool]:
    """A pool of calls to the session's server; patient, as the machine is shared."""
    with Pool(triton.endpoint, deadline_s=10.0) as calls:
        yield calls


@pytest.fixture
def deployer(triton: Triton) -> Iterator[Deployer]:
    """A deployer to the session's server, which is empty again afterwards."""
    with Deployer(triton.endpoint, drain_s=0.1) as deploys:
        yield deploys
        deploys.ensure([])


@pytest.fixture(scope="session")
def make_artifact(tmp_path_factory: pytest.TempPathFactory) -> MakeArtifact:
    """``make_artifact(name, inputs=3, length=12, units=8, layers=1, seed=0)``: an LSTM of random weights, stored.

    `relative`: so many of its inputs, the last ones, are taken relative to the window's newest row.
    """
    store = ModelStore(tmp_path_factory.mktemp("models"))

    def make(name: str, *, spoil: Callable[[Any, Any], None] | None = None, **shape: int) -> Artifact:
        """`spoil(arrays, golden)` may change what is stored in place."""
        seed = shape.pop("seed", 0)
        spec, arrays, golden = _lstm(name, seed, **shape)
        if spoil:
            spoil(arrays, golden)
        return store.save(
            Draft(name=name, kind="lstm", card=_card(spec), keras=b"", golden=Golden(**golden), serving=arrays)
        )

    return make


@pytest.fixture(scope="session")
def make_solo(tmp_path_factory: pytest.TempPathFactory) -> MakeArtifact:
    """``make_solo(name)``: a Keras model that is no LSTM of ours, as a zipped SavedModel."""
    store = ModelStore(tmp_path_factory.mktemp("solos"))

    def make(name: str, *, inputs: int = 3, length: int = 12) -> Artifact:
        import keras

        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((length, inputs)), keras.layers.GRU(5), keras.layers.Dense(2)])
        windows = np.random.default_rng(1).normal(size=(4, length, inputs)).astype(np.float32)
        golden = Golden(
            windows=windows,
            predictions=np.asarray(model.predict_on_batch(windows), np.float32),
            scale=np.ones(2, np.float32),
        )
        packed = _zipped(model, tmp_path_factory.mktemp("export"))
        spec = _spec(name, inputs, length, 2)
        return store.save(Draft(name=name, kind="solo", card=_card(spec), keras=b"", golden=golden, saved_model=packed))

    return make


def _spec(name: str, inputs: int, length: int, outputs: int) -> WindowSpec:
    tags = {f"IN{i}": Tag(name=f"IN{i}", unit="degC") for i in range(inputs)}
    targets = tuple(f"OUT{i}" for i in range(outputs))
    tags |= {t: Tag(name=t, unit="mg/m3") for t in targets}
    model = ModelSpec(
        name=name,
        targets=targets,
        inputs=tuple(f"IN{i}" for i in range(inputs)),
        step_ns=HOUR_NS,
        window=length,
        every_ns=HOUR_NS,
    )
    return WindowSpec.of(model, Plant(name="bench", period_ns=HOUR_NS, tags=tags, models={name: model}))


def _card(spec: WindowSpec) -> dict[str, Any]:
    trained = {"start": "2012-01-01", "end": "2013-12-31", "snapshot": "SNAP", "n_train": 1}
    return {"spec": spec.to_json(), "units": list(spec.target_units), "trained": trained}


def _lstm(
    name: str,
    seed: int,
    *,
    inputs: int = 3,
    length: int = 12,
    units: int = 8,
    layers: int = 1,
    outputs: int = 1,
    relative: int = 1,
) -> tuple[WindowSpec, dict[str, Any], dict[str, Any]]:
    """Spec, serving arrays and golden windows of a random network; the predictions are Keras' own."""
    from penstock.batch.network import Scaling, Shape, lstm, set_scaling, weights_of

    random = np.random.default_rng(seed)
    shape = Shape(length=length, features=inputs, units=units, layers=layers, outputs=outputs, linear=True)
    model = lstm(shape).model
    model.set_weights([random.normal(0, 0.4, w.shape).astype(np.float32) for w in model.get_weights()])
    scaling = Scaling(
        relative=(np.arange(inputs) >= inputs - relative).astype(np.float32),
        mean=random.normal(20, 5, inputs).astype(np.float32),
        inv=random.uniform(0.1, 1, inputs).astype(np.float32),
        scale=random.uniform(1, 9, outputs).astype(np.float32),
        shift=random.normal(60, 9, outputs).astype(np.float32),
        last=np.zeros((inputs, outputs), np.float32),
    )
    set_scaling(model, scaling)
    windows = random.normal(20, 5, (6, length, inputs)).astype(np.float32)
    golden = {
        "windows": windows,
        "predictions": np.asarray(model.predict_on_batch(windows), np.float32),
        "scale": scaling.scale,
    }
    return _spec(name, inputs, length, outputs), weights_of(model), golden


def _zipped(model: Any, folder: Path) -> bytes:
    model.export(str(folder / "saved"), verbose=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path in sorted((folder / "saved").rglob("*")):
            packed.write(path, path.relative_to(folder / "saved"))
    return buffer.getvalue()
