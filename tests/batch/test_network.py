"""The network: Keras, its exported arrays and the formula of docs/architecture.md agree."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.batch import network
from penstock.batch.network import Scaling, Shape
from penstock.errors import ModelError

Arrays = dict[str, NDArray[np.float32]]


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def forward(a: Arrays, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The formula, slowly: one row at a time."""
    w = {name: array.astype(np.float64) for name, array in a.items()}
    z = (x - w["relative"] * x[:, -1:, :] - w["mean"]) * w["inv"]
    sequence, i = z, 0
    while f"l{i}.kernel" in w:
        u = w[f"l{i}.recurrent"].shape[0]
        h, c, out = np.zeros((len(x), u)), np.zeros((len(x), u)), []
        for t in range(x.shape[1]):
            gates = sequence[:, t] @ w[f"l{i}.kernel"] + h @ w[f"l{i}.recurrent"] + w[f"l{i}.bias"]
            c = sigmoid(gates[:, u : 2 * u]) * c + sigmoid(gates[:, :u]) * np.tanh(gates[:, 2 * u : 3 * u])
            h = sigmoid(gates[:, 3 * u :]) * np.tanh(c)
            out.append(h)
        sequence, i = np.stack(out, axis=1), i + 1
    raw = h @ w["head.kernel"] + w["head.bias"] + z[:, -1] @ w["linear.kernel"]
    return raw * w["out.scale"] + w["out.shift"] + x[:, -1] @ w["last"]


def shaken(shape: Shape, seed: int = 1) -> keras.Model:
    """A network with nothing at its default: every array matters in the comparison."""
    rng = np.random.default_rng(seed)
    net = network.lstm(shape)
    network.reset(net, seed)
    last = np.zeros((shape.features, shape.outputs), np.float32)
    last[0, 0] = 1
    scaling = Scaling(
        relative=(rng.random(shape.features) < 0.4).astype(np.float32),
        mean=rng.normal(50, 5, shape.features).astype(np.float32),
        inv=rng.uniform(0.1, 0.5, shape.features).astype(np.float32),
        scale=rng.uniform(5, 20, shape.outputs).astype(np.float32),
        shift=rng.normal(0, 3, shape.outputs).astype(np.float32),
        last=last,
    )
    network.set_scaling(net.model, scaling)
    for name in ("head", "linear"):
        if name in [layer.name for layer in net.model.layers]:
            layer = net.model.get_layer(name)
            layer.set_weights([rng.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    return net.model


SHAPES = [
    Shape(length=12, features=5, units=8, layers=1, outputs=1, linear=True),
    Shape(length=6, features=3, units=4, layers=2, outputs=3, linear=True),
    Shape(length=6, features=3, units=4, layers=1, outputs=2, linear=False),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exported_arrays_repeat_keras(shape: Shape) -> None:
    model = shaken(shape)
    x = np.random.default_rng(2).normal(50, 10, (40, shape.length, shape.features)).astype(np.float32)
    arrays = network.weights_of(model)
    expected = {
        "relative",
        "mean",
        "inv",
        "head.kernel",
        "head.bias",
        "linear.kernel",
        "out.scale",
        "out.shift",
        "last",
    }
    for i in range(shape.layers):
        expected |= {f"l{i}.kernel", f"l{i}.recurrent", f"l{i}.bias"}
    assert set(arrays) == expected
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}
    said = model.predict(x, verbose=0)
    assert said.shape == (40, shape.outputs)
    assert said.std() > 1, "a comparison of constants would prove nothing"
    np.testing.assert_allclose(said / arrays["out.scale"], forward(arrays, x) / arrays["out.scale"], atol=1e-5)


def test_reload_says_the_same_bits_and_fitting_does_not_touch_the_scaling() -> None:
    model = shaken(SHAPES[0])
    x = np.random.default_rng(2).normal(50, 10, (16, 12, 5)).astype(np.float32)
    again = network.from_bytes(network.to_bytes(model))
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert network.is_ours(again)
    trained = {v.path for v in again.trainable_variables}
    assert not [p for p in trained if p.startswith(("scale", "out"))]
    assert {p.split("/")[0] for p in trained} == {"lstm_0", "head", "linear"}


def test_weights_come_from_the_seed_alone() -> None:
    one, two = network.lstm(SHAPES[0]), network.lstm(SHAPES[0])
    network.reset(one, 5)
    keras.utils.set_random_seed(99)
    network.reset(two, 8)
    assert not np.array_equal(one.model.get_weights()[3], two.model.get_weights()[3])
    network.reset(two, 5)
    for a, b in zip(one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_strange_model_has_no_serving_arrays() -> None:
    x = keras.Input((4, 2))
    strange = keras.Model(x, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
    with pytest.raises(ModelError, match="not an LSTM of penstock"):
        network.weights_of(strange)
    with pytest.raises(ModelError, match="cannot be read"):
        network.from_bytes(b"no zip")


def test_a_wrapped_network_must_give_a_column_per_target() -> None:
    x = keras.Input((4, 2))
    body = keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    with pytest.raises(ModelError, match=r"\(None, 2\): one column per target"):
        network.wrapped(body, 4, 2, 2)
    with pytest.raises(ModelError, match="does not take windows"):
        network.wrapped(body, 4, 7, 3)
