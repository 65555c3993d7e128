"""What a fleet is measured beside, inside this process: the usual ways to ask many LSTMs at once.

Each is a function from windows [M, T, F] to answers [M]; each member has one window, or all have n and windows are
[M, n, T, F]. Numbers go in and out as the others see them, without network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from penstock.errors import SiteError

Float32 = NDArray[np.float32]
Arrays = Mapping[str, Float32]
Ask = Callable[[Float32], Float32]


def function_loop(members: Sequence[Arrays]) -> Ask:
    """A compiled `tf.function` per member, asked one after the other: the loop that everybody writes first."""
    tf.get_logger().setLevel("ERROR")  # it advises against one function per member, which is what is measured
    functions = [_function(arrays) for arrays in members]

    def ask(windows: Float32) -> Float32:
        return np.array([f(tf.constant(x)).numpy()[0, 0] for f, x in zip(functions, windows, strict=True)], np.float32)

    return ask


def _function(arrays: Arrays) -> Any:
    kernel, recurrent, bias = (tf.constant(arrays[f"l0.{k}"]) for k in ("kernel", "recurrent", "bias"))
    units = recurrent.shape[0]

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator, unused-ignore]
    def forward(x: Any) -> Any:
        projected = x @ kernel + bias

        def step(t: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
            i, f, g, o = tf.split(projected[t][None] + h @ recurrent, 4, axis=-1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            return t + 1, tf.sigmoid(o) * tf.tanh(c), c

        start = tf.zeros([1, units])
        rows = x.shape[0]
        _, h, _ = tf.while_loop(lambda t, *_: t < rows, step, (tf.constant(0), start, start), maximum_iterations=rows)
        return h @ arrays["head.kernel"] + arrays["head.bias"] + x[-1:] @ arrays["linear.kernel"]

    return forward


def onnx_sessions(members: Sequence[Arrays], length: int, *, threads: int = 2, depth: int = 1) -> Ask:
    """An ONNX Runtime session per member, shared out over `threads`. Raises SiteError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise SiteError(f"no ONNX Runtime to measure beside: {error}; pip install onnx onnxruntime") from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(_onnx(arrays, length, depth), settings, providers=["CPUExecutionProvider"])
        for arrays in members
    ]
    pool = ThreadPoolExecutor(threads)

    def ask(windows: Float32) -> Float32:
        """[M, n, T, F] -> [M, n]; the runtime wants time first."""
        turned = np.ascontiguousarray(np.moveaxis(windows, 2, 1))
        out = np.empty(windows.shape[:2], np.float32)

        def part(begin: int) -> None:
            for k in range(begin, len(sessions), threads):
                out[k] = sessions[k].run(None, {"x": turned[k]})[0][:, 0]

        list(pool.map(part, range(threads)))
        return out

    return ask


def _onnx(arrays: Arrays, length: int, depth: int) -> bytes:
    """The member as an ONNX graph: x [T, n, F] -> y [n, O]. ONNX orders the gates i, o, f, c; Keras i, f, c, o."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise SiteError(f"no onnx to build graphs with: {error}; pip install onnx") from error
    kernel, recurrent, bias = (arrays[f"l0.{k}"] for k in ("kernel", "recurrent", "bias"))
    units, features = recurrent.shape[0], kernel.shape[0]
    order = np.concatenate([np.arange(units) + g * units for g in (0, 3, 1, 2)])
    constants = {
        "W": kernel[:, order].T[None],
        "R": recurrent[:, order].T[None],
        "B": np.concatenate([bias[order], 0 * bias])[None],
        "head": arrays["head.kernel"],
        "shift": arrays["head.bias"],
        "linear": arrays["linear.kernel"],
        "newest": np.array(length - 1, np.int64),
        "first": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["", "h1"], hidden_size=units),
        helper.make_node("Squeeze", ["h1", "first"], ["h"]),
        helper.make_node("MatMul", ["h", "head"], ["y1"]),
        helper.make_node("Add", ["y1", "shift"], ["y2"]),
        helper.make_node("Gather", ["x", "newest"], ["row"], axis=0),
        helper.make_node("MatMul", ["row", "linear"], ["y3"]),
        helper.make_node("Add", ["y2", "y3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [length, depth, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [depth, arrays["head.kernel"].shape[1]])],
        [numpy_helper.from_array(np.array(v, order="C"), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
