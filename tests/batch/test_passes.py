"""Our passes do what Keras' own fitting does, and a shape is traced once however many models have it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import waterworks

from penstock.batch import network, passes, training
from penstock.batch.network import Network, Shape
from penstock.batch.passes import TRACED, Passes
from penstock.batch.plan import History, Wish

SHAPE = Shape(length=6, features=3, units=5, layers=2, outputs=2, linear=True)
SIZE = 16


def fresh() -> Network:
    net = network.lstm(SHAPE)
    network.reset(net, 3)
    net.raw.compile(optimizer=keras.optimizers.Adam(1e-2, clipnorm=0.05), loss="mse")
    net.raw.optimizer.build(net.raw.trainable_variables)
    return net


def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, SHAPE.length, SHAPE.features)).astype(np.float32)
    return x, (x[:, -1, :2] * 2 + x.mean(axis=(1, 2))[:, None]).astype(np.float32)


def test_three_passes_are_three_epochs_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clip norm is so small that it acts: a step without it ends elsewhere."""
    ours, theirs = fresh(), fresh()
    before = ours.raw.get_weights()
    x, y = data(200)
    at = np.arange(20, 190)
    monkeypatch.setattr(passes, "BLOCK_BYTES", 3 * SIZE * 6 * 3 * 4)  # blocks of three batches
    loop = Passes(ours.raw, SIZE)
    rng = np.random.default_rng(2)
    for _ in range(3):
        order = rng.permutation(len(at))
        loop.fit(x, y[at], at, order)
        for start in range(0, len(at) - SIZE + 1, SIZE):
            part = at[order[start : start + SIZE]]
            theirs.raw.train_on_batch(x[part], y[part])
    assert int(ours.raw.optimizer.iterations.numpy()) == int(theirs.raw.optimizer.iterations.numpy()) == 30
    for old, mine, other in zip(before, ours.raw.get_weights(), theirs.raw.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-4)
        if old.any() and old.std() > 0:
            assert np.abs(mine - old).max() > 1e-2, "a fit that moves nothing would prove nothing"


def test_what_is_said_is_what_keras_says_of_every_window_in_order() -> None:
    net = fresh()
    x, _ = data(70)
    at = np.array([69, 3, 40, *range(5, 30)])
    said = Passes(net.raw, SIZE).said(x, at)
    np.testing.assert_allclose(said, net.raw.predict(x[at], verbose=0), atol=1e-6)


def test_a_shape_is_traced_once_for_all_its_models(tmp_path: Path) -> None:
    history: History = waterworks.archive(tmp_path / "archive")
    before = Counter(TRACED)
    names = [waterworks.model(f"m{i}", window=9) for i in range(3)]
    jobs = waterworks.jobs(history, *names, wish=Wish(lstm={"units": 7, "epochs": 2}))
    drafts = [training.train(job) for job in jobs]
    assert Counter(TRACED) - before == Counter({"step": 1, "forward": 1})
    (other,) = waterworks.jobs(history, waterworks.model("other", window=7), wish=Wish(lstm={"units": 7, "epochs": 1}))
    training.train(other)
    assert Counter(TRACED) - before == Counter({"step": 2, "forward": 2})
    assert len({draft.name for draft in drafts}) == 3
