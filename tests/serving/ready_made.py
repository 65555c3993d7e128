"""Ready-made models for tests: callables that behave, and that do not, an ONNX graph, stored as artifacts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from penstock.data.models import Artifact, Draft, Golden, Kind, ModelStore
from penstock.data.plant import HOUR_NS, ModelSpec, Plant, Tag
from penstock.data.windows import WindowSpec

Float32 = NDArray[np.float32]

LENGTH, INPUTS = 6, 3
HANG, EXIT, RAISE, NOTHING = 1001.0, 1002.0, 1003.0, 1004.0
"""First number of a window: what it does to `moody`."""
WINDOWS = np.random.default_rng(3).normal(20, 5, (9, LENGTH, INPUTS)).astype(np.float32)
WEIGHTS = np.random.default_rng(4).normal(0, 1, (LENGTH * INPUTS, 1)).astype(np.float32)


def formula(windows: Float32) -> Float32:
    """Some numpy."""
    return np.sqrt(np.abs(windows)).mean(axis=(1, 2)) * 3 + windows[:, -1, 0]


def moody(windows: Float32) -> Float32:
    """The formula, but for a few first numbers."""
    if HANG in windows[:, 0, 0]:
        time.sleep(600)
    if EXIT in windows[:, 0, 0]:
        os._exit(7)
    if RAISE in windows[:, 0, 0]:
        raise ArithmeticError("no such window")
    if NOTHING in windows[:, 0, 0]:
        return np.full(len(windows), np.nan, np.float32)
    return formula(windows)


def linear(windows: Float32) -> Float32:
    """What the ONNX graph computes."""
    return windows.reshape(len(windows), -1) @ WEIGHTS + np.float32(0.5)


def onnx_file(batch: int | None = None) -> bytes:
    """`linear` as an ONNX graph; `batch`: takes so many windows at a time and no others."""
    from onnx import TensorProto, checker, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["windows"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["values"]),
        ],
        "linear",
        [helper.make_tensor_value_info("windows", TensorProto.FLOAT, [batch, LENGTH, INPUTS])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [batch, 1])],
        [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(np.float32([0.5]), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def window(first: float) -> Float32:
    """[T, F] a window that begins with that number."""
    found = WINDOWS[0].copy()
    found[0, 0] = first
    return found


def pickled(predict: Callable[[Float32], Any]) -> bytes:
    """By value, as these functions stand in a file of the tests."""
    homes = {sys.modules[name] for name in (__name__, predict.__module__)}
    for home in homes:
        cloudpickle.register_pickle_by_value(home)
    try:
        return bytes(cloudpickle.dumps(predict))
    finally:
        for home in homes:
            cloudpickle.unregister_pickle_by_value(home)


def save(folder: Path, name: str, kind: Kind, program: bytes, said: Float32) -> Artifact:
    """Stored with `said` [9] or [9, 1] as the golden answers."""
    spec = _spec(name)
    card = {"spec": spec.to_json(), "units": list(spec.target_units), "trained": {"snapshot": "S"}, "metrics": {}}
    scale = np.array([said.std()], np.float32)
    golden = Golden(windows=WINDOWS, predictions=said.reshape(-1, 1), scale=scale)
    return ModelStore(folder).save(Draft(name=name, kind=kind, card=card, golden=golden, program=program))


def callable_artifact(folder: Path, name: str, predict: Callable[[Float32], Any] = moody) -> Artifact:
    """A stored callable that gives the formula for the golden windows."""
    return save(folder, name, "callable", pickled(predict), formula(WINDOWS))


def _spec(name: str) -> WindowSpec:
    tags = {f"IN{i}": Tag(name=f"IN{i}") for i in range(INPUTS)} | {"OUT": Tag(name="OUT", unit="bar")}
    model = ModelSpec(
        name=name,
        targets=("OUT",),
        inputs=tuple(f"IN{i}" for i in range(INPUTS)),
        step_ns=HOUR_NS,
        window=LENGTH,
        every_ns=HOUR_NS,
    )
    return WindowSpec.of(model, Plant(name="bench", period_ns=HOUR_NS, tags=tags, models={name: model}))
