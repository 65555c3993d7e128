"""One LSTM of ours as an ONNX graph, its weights in it as constants. The formula: docs/architecture.md, "Network".

Knows the arrays of serving.npz and the package `onnx`; executes nothing, imports neither TensorFlow nor penstock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .host import F32

GATES = (0, 3, 1, 2)
"""ONNX orders the gates i, o, f, c; Keras i, f, c, o."""
OPSET, IR = 14, 8


def graph_of(arrays: Mapping[str, F32], length: int, depth: int | None = None) -> bytes:
    """The member as a serialised ONNX model: x [T, n, F] -> y [n, O], n any number, or `depth` alone.

    Time comes first, as ONNX Runtime executes no LSTM otherwise. Steps that change nothing - a scale of 1, a path of
    zeros - are left out. Raises ImportError where the package `onnx` is missing.
    """
    drawn = _Drawn()
    newest = drawn.add("Gather", "x", drawn.constant(np.array(length - 1, np.int64)), axis=0)
    z = drawn.scaled(arrays, newest)
    last = newest if z == "x" else drawn.add("Gather", z, drawn.constant(np.array(length - 1, np.int64)), axis=0)
    y = drawn.add("MatMul", drawn.layers(arrays, z), drawn.constant(arrays["head.kernel"]))
    y = drawn.unless("Add", y, arrays["head.bias"], 0)
    y = drawn.path(y, last, arrays["linear.kernel"])
    y = drawn.unless("Mul", y, arrays["out.scale"], 1)
    y = drawn.unless("Add", y, arrays["out.shift"], 0)
    y = drawn.path(y, newest, arrays["last"])
    features, outputs = arrays["last"].shape
    return drawn.model(y, [length, depth or "n", features], [depth or "n", outputs])


@dataclass
class _Drawn:
    """A graph while it is drawn: each step's result has a name of its own."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(value, order="C")
        return name

    def add(self, step: str, *inputs: str, **settings: Any) -> str:
        """One step with one result."""
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(step, list(inputs), [name], **settings))
        return name

    def unless(self, step: str, of: str, value: F32, neutral: float) -> str:
        """`step` with a constant, or nothing where all of it is `neutral`."""
        return of if (value == neutral).all() else self.add(step, of, self.constant(value))

    def path(self, y: str, row: str, weights: F32) -> str:
        """y + row @ weights, or y where they are zeros."""
        return self.add("Add", y, self.add("MatMul", row, self.constant(weights))) if weights.any() else y

    def scaled(self, arrays: Mapping[str, F32], newest: str) -> str:
        """z [T, n, F]"""
        z = "x"
        if arrays["relative"].any():
            z = self.add("Sub", z, self.unless("Mul", newest, arrays["relative"], 1))
        z = self.unless("Sub", z, arrays["mean"], 0)
        return self.unless("Mul", z, arrays["inv"], 1)

    def layers(self, arrays: Mapping[str, F32], z: str) -> str:
        """[n, u] what the last LSTM puts out after the last row."""
        from onnx import helper

        count, one = sum(name.endswith(".recurrent") for name in arrays), self.constant(np.array([1], np.int64))
        for k in range(count):
            kernel, recurrent, bias = (arrays[f"l{k}.{part}"] for part in ("kernel", "recurrent", "bias"))
            units = len(recurrent)
            order = np.concatenate([np.arange(units) + gate * units for gate in GATES])
            weights = (kernel[:, order].T[None], recurrent[:, order].T[None], np.append(bias[order], 0 * bias)[None])
            inputs = [z, *(self.constant(array) for array in weights)]
            outputs = [f"all{k}", ""] if k + 1 < count else ["", f"end{k}"]
            self.nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=units))
            z = self.add("Squeeze", f"all{k}", one) if k + 1 < count else f"end{k}"
        return self.add("Squeeze", z, self.constant(np.array([0], np.int64)))

    def model(self, y: str, x_shape: list[Any], y_shape: list[Any]) -> bytes:
        """`y` becomes the graph's output."""
        from onnx import TensorProto, checker, helper, numpy_helper

        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        graph = helper.make_graph(
            self.nodes,
            "lstm",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, y_shape)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content
