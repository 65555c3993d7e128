"""The LSTM, in Keras: scaling inside, engineering units in and out.

The arithmetic is the one in docs/architecture.md, "Network", which the engine
in Triton repeats with the arrays of `weights_of`. This file knows layers and
arrays; it knows nothing of windows, archives or fitting.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from penstock.errors import ModelError

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides the arrays' shapes; networks of equal shape can stand in for each other."""

    length: int
    """T: rows of a window."""
    features: int
    """F: columns of a window."""
    units: int
    layers: int
    outputs: int
    """O: targets."""
    linear: bool
    """Whether there is a linear path beside the LSTM."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scaling:
    """The fixed numbers around the network, all in engineering units."""

    relative: Float32
    """[F] 1 where a column is taken relative to its last row, else 0."""
    mean: Float32
    """[F]"""
    inv: Float32
    """[F] one over the standard deviation; 0 for a column that never moved."""
    scale: Float32
    """[O]"""
    shift: Float32
    """[O]"""
    last: Float32
    """[F, O] 1 where output o is a change from column f of the last row, else 0."""


@keras.saving.register_keras_serializable(package="penstock")
class ScaleWindow(layers.Layer):  # type: ignore[misc]  # keras is untyped
    """z = (x - relative * x[:, -1:, :] - mean) * inv, with the constants as untrained weights.

    Weights and not settings, so that a compiled network takes another model's constants in place.
    """

    def build(self, shape: tuple[int | None, ...]) -> None:
        fixed = {"shape": (shape[-1],), "trainable": False}
        self.relative = self.add_weight(name="relative", initializer="zeros", **fixed)
        self.mean = self.add_weight(name="mean", initializer="zeros", **fixed)
        self.inv = self.add_weight(name="inv", initializer="ones", **fixed)

    def call(self, x: Any) -> Any:
        """[N, T, F] to [N, T, F]."""
        return (x - self.relative * x[:, -1:, :] - self.mean) * self.inv


@keras.saving.register_keras_serializable(package="penstock")
class Unscale(layers.Layer):  # type: ignore[misc]
    """y = raw * scale + shift + x[:, -1, :] @ last."""

    def build(self, shapes: list[tuple[int | None, ...]]) -> None:
        outputs, features = shapes[0][-1], shapes[1][-1]
        self.scale = self.add_weight(name="scale", shape=(outputs,), initializer="ones", trainable=False)
        self.shift = self.add_weight(name="shift", shape=(outputs,), initializer="zeros", trainable=False)
        self.last = self.add_weight(name="last", shape=(features, outputs), initializer="zeros", trainable=False)

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """[N, O] and [N, T, F] to [N, O]."""
        raw, x = inputs
        return raw * self.scale + self.shift + ops.matmul(x[:, -1, :], self.last)


@keras.saving.register_keras_serializable(package="penstock")
class LastRow(layers.Layer):  # type: ignore[misc]
    """x[:, -1, :]: a layer, because a bare slice is saved as code."""

    def call(self, x: Any) -> Any:
        """[N, T, F] to [N, F]."""
        return x[:, -1, :]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """One network under two names: what is served, and what is fitted."""

    model: keras.Model
    """[N, T, F] to [N, O], engineering units on both sides: what is saved."""
    raw: keras.Model
    """[N, T, F] to [N, O] before `Unscale`: what is fitted, so that every target weighs the same."""


def lstm(shape: Shape) -> Network:
    """The standard network of that shape, scaling not set yet."""
    x = keras.Input((shape.length, shape.features), name="window")
    z = ScaleWindow(name="scale")(x)
    h = z
    for i in range(shape.layers):
        h = layers.LSTM(shape.units, return_sequences=i < shape.layers - 1, name=f"lstm_{i}")(h)
    # A small head begins at the mean (or at "no change"), which is where a forecast should begin.
    small = keras.initializers.RandomNormal(stddev=0.01)
    raw = layers.Dense(shape.outputs, kernel_initializer=small, name="head")(h)
    if shape.linear:
        row = LastRow(name="row")(z)
        raw = layers.Add(name="sum")([raw, layers.Dense(shape.outputs, use_bias=False, name="linear")(row)])
    return _closed(x, raw)


def wrapped(body: keras.Model, length: int, features: int, outputs: int) -> Network:
    """Another Keras model between our scaling layers: it sees and gives numbers around 0 and 1.

    Raises ModelError when `body` does not map [N, T, F] to [N, O].
    """
    x = keras.Input((length, features), name="window")
    try:
        raw = body(ScaleWindow(name="scale")(x))
    except (ValueError, TypeError) as error:
        raise ModelError(f"the network does not take windows of [N, {length}, {features}]: {error}") from error
    if tuple(raw.shape) != (None, outputs):
        raise ModelError(f"the network gives {tuple(raw.shape)}; it must give (None, {outputs}): one column per target")
    return _closed(x, raw)


def _closed(x: Any, raw: Any) -> Network:
    y = Unscale(name="out")([raw, x])
    return Network(model=keras.Model(x, y, name="penstock"), raw=keras.Model(x, raw, name="raw"))


def set_scaling(model: keras.Model, scaling: Scaling) -> None:
    """Write the fixed numbers into the first and the last layer."""
    model.get_layer("scale").set_weights([scaling.relative, scaling.mean, scaling.inv])
    model.get_layer("out").set_weights([scaling.scale, scaling.shift, scaling.last])


def reset(network: Network, seed: int) -> None:
    """Give every trained weight a fresh value drawn from `seed` alone.

    Not from Keras' global seed: a network built once and used again must begin
    where one built just now begins.
    """
    seeds = np.random.SeedSequence(seed).generate_state(1000)
    for i, layer in enumerate(network.model.layers):
        match layer:
            case layers.LSTM():
                layer.set_weights(_fresh_lstm(layer, int(seeds[3 * i]), int(seeds[3 * i + 1])))
            case layers.Dense():
                layer.set_weights(_fresh_dense(layer, int(seeds[3 * i])))


def _fresh_lstm(layer: Any, seed: int, recurrent_seed: int) -> list[Any]:
    kernel, recurrent, bias = layer.get_weights()
    forget_open = np.zeros_like(bias)
    forget_open[layer.units : 2 * layer.units] = 1.0
    return [
        np.asarray(keras.initializers.GlorotUniform(seed)(kernel.shape)),
        np.asarray(keras.initializers.OrthogonalInitializer(seed=recurrent_seed)(recurrent.shape)),
        forget_open,
    ]


def _fresh_dense(layer: Any, seed: int) -> list[Any]:
    kernel = np.asarray(keras.initializers.RandomNormal(stddev=0.01, seed=seed)(layer.kernel.shape))
    return [kernel, np.zeros(layer.bias.shape, np.float32)] if layer.use_bias else [kernel]


def begin_linear(model: keras.Model, kernel: Float32, bias: Float32) -> None:
    """Give the linear path its weights [F, O], and the head the bias [O] and no weights: it then says those alone."""
    model.get_layer("linear").set_weights([kernel])
    head = model.get_layer("head")
    head.set_weights([np.zeros(head.kernel.shape, np.float32), bias])


def is_ours(model: keras.Model) -> bool:
    """Whether the model is the standard network, which the engine can repeat from arrays."""
    named = {layer.name: layer for layer in model.layers}
    ours = {"scale": ScaleWindow, "lstm_0": layers.LSTM, "head": layers.Dense, "out": Unscale}
    return all(isinstance(named.get(name), kind) for name, kind in ours.items())


def weights_of(model: keras.Model) -> dict[str, NDArray[Any]]:
    """The arrays of "Network" in docs/architecture.md by their names, float32.

    Raises ModelError for a model that is not one of ours.
    """
    named = {layer.name: layer for layer in model.layers}
    if not is_ours(model):
        raise ModelError(f"model {model.name!r} is not an LSTM of penstock; store it as kind 'solo'")
    arrays = dict(zip(("relative", "mean", "inv"), named["scale"].get_weights(), strict=True))
    i = 0
    while f"lstm_{i}" in named:
        parts = zip(("kernel", "recurrent", "bias"), named[f"lstm_{i}"].get_weights(), strict=True)
        arrays |= {f"l{i}.{part}": array for part, array in parts}
        i += 1
    arrays["head.kernel"], arrays["head.bias"] = named["head"].get_weights()
    arrays["out.scale"], arrays["out.shift"], arrays["last"] = named["out"].get_weights()
    silent = np.zeros_like(arrays["last"])
    arrays["linear.kernel"] = named["linear"].get_weights()[0] if "linear" in named else silent
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def to_bytes(model: keras.Model) -> bytes:
    """The `.keras` file of a model. Raises ModelError when Keras cannot write one (a layer without a config)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
        except (ValueError, TypeError, NotImplementedError, OSError) as error:
            raise ModelError(f"model {model.name!r} cannot be saved as a .keras file: {error}") from error
        return path.read_bytes()


def from_bytes(content: bytes) -> keras.Model:
    """The model of a `.keras` file that this plant's store has kept; never one from a stranger.

    Raises ModelError when Keras cannot read it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        try:
            return keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError, OSError, KeyError) as error:
            raise ModelError(f"the .keras file cannot be read: {error}; train the model again") from error
