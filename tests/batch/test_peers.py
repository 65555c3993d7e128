"""The peers of `penstock bench fleet` answer as the members do that they are measured beside."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.batch import peers
from penstock.batch.specimens import Size, drafts
from penstock.serving.backend.onnx_graph import graph_of

SIZE = Size(length=7, features=5, units=6)
COUNT = 5


@pytest.fixture(scope="module")
def members():
    return list(drafts(SIZE, COUNT))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_a_runtime_says_what_keras_says_and_in_the_same_order(members, package, depth):
    make = {"onnxruntime": peers.onnx_sessions, "openvino": peers.openvino_models}[package]
    ask = make([graph_of(m.serving, SIZE.length, depth) for m in members])
    windows = np.stack([m.golden.windows[:depth] for m in members])
    for _ in range(3):
        np.testing.assert_allclose(ask(windows), [m.golden.predictions[:depth, 0] for m in members], atol=1e-5)


def test_the_loop_of_functions_does_too(members):
    said = peers.function_loop([m.serving for m in members])(np.stack([m.golden.windows[0] for m in members]))
    np.testing.assert_allclose(said, [m.golden.predictions[0, 0] for m in members], atol=1e-5)
