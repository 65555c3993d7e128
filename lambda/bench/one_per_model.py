"""The usual way on the same Triton, to measure beside: a python model, and so a process, per LSTM; and an echo."""

from __future__ import annotations

import io
import json
import py_compile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from penstock.bench.served_fleet import DEADLINE_S, Fleet
from penstock.data.models import Artifact
from penstock.serving.pool import Pool

LSTM = """
import io
from pathlib import Path
import numpy as np
import tensorflow as tf
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        file = Path(args["model_repository"]) / args["model_version"] / "w.npz"
        w = {k: tf.constant(v) for k, v in np.load(file).items()}
        rows = int(w.pop("rows"))

        @tf.function(jit_compile=True)
        def forward(x):
            projected = tf.transpose(x @ w["l0.kernel"] + w["l0.bias"], [1, 0, 2])
            units = w["l0.recurrent"].shape[0]
            def step(t, h, c):
                i, f, g, o = tf.split(projected[t] + h @ w["l0.recurrent"], 4, axis=-1)
                c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
                return t + 1, tf.sigmoid(o) * tf.tanh(c), c
            start = tf.zeros([x.shape[0], units])
            h = tf.while_loop(lambda t, *_: t < rows, step, (tf.constant(0), start, start), maximum_iterations=rows)[1]
            return h @ w["head.kernel"] + w["head.bias"] + x[:, -1] @ w["linear.kernel"]

        self.forward = forward
        forward(tf.zeros([1, rows, w["l0.kernel"].shape[0]]))

    def execute(self, requests):
        answers = []
        for request in requests:
            x = tf.constant(np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "window")).copy())
            y = pb_utils.Tensor.from_dlpack("prediction", tf.experimental.dlpack.to_dlpack(self.forward(x)))
            answers.append(pb_utils.InferenceResponse([y]))
        return answers
"""

ECHO = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack("prediction", pb_utils.get_input_tensor_by_name(r, "window").to_dlpack())]
            )
            for r in requests
        ]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnePerModel:
    """Python models of Triton that answer as members of the fleet do."""

    names: list[str]
    start_s: float
    """Per model, from its load to ready."""
    memory_gib: float
    """Per model."""


@contextmanager
def one_per_model(fleet: Fleet, count: int) -> Iterator[OnePerModel]:
    """The first `count` members once more, each as a TensorFlow python model with a process of its own."""
    before = fleet.memory_gib()
    names = [f"alone_{a.name}" for a in fleet.members[:count]]
    with Pool(fleet.triton.endpoint, deadline_s=DEADLINE_S) as pool:
        begun = time.monotonic()
        for name, artifact in zip(names, fleet.members, strict=False):
            pool.load(name, _config(name), _files(artifact, fleet.size.length))
        start_s = (time.monotonic() - begun) / count
        try:
            memory = (fleet.memory_gib() - before) / count
            yield OnePerModel(names=names, start_s=start_s, memory_gib=memory)
        finally:
            _unload(pool, names)


@contextmanager
def echo(fleet: Fleet) -> Iterator[str]:
    """The name of an ensemble over a model that gives back what it gets."""
    version = fleet.triton.folder / "models" / "echo" / "1"  # Triton looks for what an ensemble stands on here
    version.mkdir(parents=True)
    (version / "model.py").write_text(ECHO)
    py_compile.compile(str(version / "model.py"), doraise=True)
    with Pool(fleet.triton.endpoint, deadline_s=DEADLINE_S) as pool:
        pool.load("echo", _config("echo"))
        step = {
            "model_name": "echo",
            "model_version": -1,
            "input_map": {"window": "window"},
            "output_map": {"prediction": "prediction"},
        }
        ensemble = _described("echoed") | {"platform": "ensemble", "ensemble_scheduling": {"step": [step]}}
        pool.load("echoed", json.dumps(ensemble), {"file:1/keep": b"0"})
        try:
            yield "echoed"
        finally:
            _unload(pool, ["echoed", "echo"])


def _unload(pool: Pool, names: Sequence[str]) -> None:
    for name in names:
        pool.unload(name)


def _described(name: str) -> dict[str, object]:
    tensor = {"data_type": "TYPE_FP32", "dims": [-1, -1, -1]}
    return {"name": name, "input": [{"name": "window", **tensor}], "output": [{"name": "prediction", **tensor}]}


def _config(name: str) -> str:
    place = {"instance_group": [{"kind": "KIND_CPU", "count": 1}]}
    config = _described(name) | {"backend": "python"} | place
    if name != "echo":
        config["output"] = [{"name": "prediction", "data_type": "TYPE_FP32", "dims": [-1, -1]}]
    return json.dumps(config)


def _files(artifact: Artifact, rows: int) -> dict[str, bytes]:
    arrays = dict(np.load(io.BytesIO(artifact.files["serving.npz"])))
    content = io.BytesIO()
    np.savez(content, **arrays, rows=np.array(rows))
    return {"file:1/model.py": LSTM.encode(), "file:1/w.npz": content.getvalue()}
