"""LSTMs of random weights, for measurements: what a fleet costs does not depend on what its weights say.

Built by Keras once; every specimen takes weights of its own, and what Keras then says to a few windows is its
golden answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from penstock.batch.network import Scaling, Shape, lstm, set_scaling, weights_of
from penstock.data.models import Draft, Golden
from penstock.data.plant import ModelSpec, Plant, Tag
from penstock.data.windows import WindowSpec

Float32 = NDArray[np.float32]
SECOND_NS = 1_000_000_000
GOLDEN_WINDOWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of every specimen of a fleet."""

    length: int = 60
    """T: rows of a window, a second apart."""
    features: int = 32
    """F"""
    units: int = 64


def drafts(size: Size, count: int, *, first: int = 0) -> Iterator[Draft]:
    """Members ``m0000``... of a fleet of one shape, each with its own weights; member k is the same every time."""
    model = _blank(size)
    for k in range(first, first + count):
        yield _draft(model, size, k)


def network_of(size: Size, number: int) -> keras.Model:
    """Member `number` as Keras has it, from windows in engineering units to values."""
    model = _blank(size)
    _weigh(model, np.random.default_rng(number))
    return model


def _blank(size: Size) -> keras.Model:
    shape = Shape(
        length=size.length, features=size.features, units=size.units, layers=1, outputs=1, linear=True
    )  # fmt: skip
    model = lstm(shape).model
    ones, one = np.ones(size.features, np.float32), np.ones(1, np.float32)
    set_scaling(
        model,
        Scaling(
            relative=0 * ones, mean=0 * ones, inv=ones, scale=one, shift=0 * one,
            last=np.zeros((size.features, 1), np.float32),
        ),
    )  # fmt: skip
    return model


def _weigh(model: keras.Model, random: np.random.Generator) -> None:
    for weight in model.trainable_weights:
        weight.assign(random.normal(0, 0.2, weight.shape).astype(np.float32))


def _draft(model: keras.Model, size: Size, number: int) -> Draft:
    random = np.random.default_rng(number)
    _weigh(model, random)
    windows = random.normal(0, 1, (GOLDEN_WINDOWS, size.length, size.features)).astype(np.float32)
    said = np.asarray(model.predict_on_batch(windows), np.float32)
    golden = Golden(windows=windows, predictions=said, scale=np.ones(1, np.float32))
    name = f"m{number:04d}"
    spec = _spec(name, size)
    trained = {"start": "", "end": "", "snapshot": "none", "first": 0, "last": 1}
    card = {"spec": spec.to_json(), "units": list(spec.target_units), "trained": trained, "metrics": {}}
    return Draft(name=name, kind="lstm", card=card, keras=b"", golden=golden, serving=weights_of(model))


def _spec(name: str, size: Size) -> WindowSpec:
    inputs = tuple(f"S{i}" for i in range(size.features))
    tags = {tag: Tag(name=tag, unit="1") for tag in (*inputs, "Y")}
    model = ModelSpec(
        name=name, targets=("Y",), inputs=inputs, step_ns=SECOND_NS, window=size.length, every_ns=SECOND_NS
    )
    return WindowSpec.of(model, Plant(name="specimens", period_ns=SECOND_NS, tags=tags, models={name: model}))
