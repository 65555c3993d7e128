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


def onnx_sessions(graphs: Sequence[bytes], *, threads: int = 2) -> Ask:
    """An ONNX Runtime session per member, shared out over `threads`. Raises SiteError where it is not installed.

    `graphs`: ONNX, x [T, n, F] -> y [n, 1].
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SiteError(f"no ONNX Runtime to measure beside: {error}; pip install onnxruntime") from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(g, settings, providers=["CPUExecutionProvider"]) for g in graphs]
    pool = ThreadPoolExecutor(threads)

    def ask(windows: Float32) -> Float32:
        """[M, n, T, F] -> [M, n]"""
        turned = _time_first(windows)
        out = np.empty(windows.shape[:2], np.float32)

        def part(begin: int) -> None:
            for k in range(begin, len(sessions), threads):
                out[k] = sessions[k].run(None, {"x": turned[k]})[0][:, 0]

        list(pool.map(part, range(threads)))
        return out

    return ask


def openvino_models(graphs: Sequence[bytes], *, streams: int = 2) -> Ask:
    """A compiled OpenVINO model per member, all asked at once. Raises SiteError where it is not installed.

    Two streams and asynchronous calls: of the ways that were tried - one stream and two Python threads, one stream
    of two threads, calls one after the other - the fastest with 16 windows each; with one, now faster and now not.
    Float32 is asked for: it would take bfloat16 where the processor has it. `graphs` as for `onnx_sessions`, each of
    one number of windows.
    """
    try:
        import openvino
    except ImportError as error:
        raise SiteError(f"no OpenVINO to measure beside: {error}; pip install 'penstock[bench]'") from error
    settings = {"INFERENCE_NUM_THREADS": streams, "NUM_STREAMS": streams, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = [core.compile_model(core.read_model(graph), "CPU", settings) for graph in graphs]
    requests = [model.create_infer_request() for model in compiled]

    def ask(windows: Float32) -> Float32:
        """[M, n, T, F] -> [M, n]"""
        for request, x in zip(requests, _time_first(windows), strict=True):
            request.start_async({0: x}, share_inputs=True)
        for request in requests:
            request.wait()
        return np.stack([request.get_output_tensor().data[:, 0] for request in requests])

    return ask


def _time_first(windows: Float32) -> Float32:
    """[M, n, T, F] -> [M, T, n, F], as ONNX' LSTM wants it."""
    return np.ascontiguousarray(np.moveaxis(windows, 2, 1))
