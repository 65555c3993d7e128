"""What runs in an isolated member's own process: one model, asked over a socket, until the other side has gone.

    open {kind, content} -> {}                  say {number, shape} x -> {number, shape} y       or {error}

A model is a pickled callable, an ONNX file or a SavedModel; each imports what it
needs, and only that. Whatever it raises is an answer; a model that hangs or
crashes takes this process alone with it. Imports nothing of penstock.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .host import F32
from .link import Gone, receive, send

PR_SET_PDEATHSIG = 1
ONNX_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}

Predict = Callable[[F32], Any]


def serve(descriptor: int, parent: int) -> None:
    """Answer on the socket `descriptor` until it is closed, or the process `parent` ends."""
    # The thread that started this process lives as long as it is wanted, so the signal is exact.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    with socket.socket(fileno=descriptor) as link:
        predict: Predict | None = None
        while True:
            try:
                header, parts = receive(link, None)
            except Gone:
                return
            answer: tuple[dict[str, Any], dict[str, bytes]]
            try:
                if header["do"] == "open":
                    predict, answer = opened(header["kind"], parts["content"]), ({}, {})
                else:
                    assert predict is not None
                    answer = _said(predict, header, parts["x"])
            except (Exception, SystemExit) as failure:  # the model is anybody's code: it may raise anything
                answer = ({"error": _told(failure)}, {})
            try:
                send(link, {"number": header.get("number", 0)} | answer[0], answer[1], None)
            except Gone:
                return


def opened(kind: str, content: bytes) -> Predict:
    """The function over windows [n, T, F] that `content` holds. Raises whatever opening it raises."""
    match kind:
        case "callable":
            return pickle.loads(content)  # type: ignore[no-any-return]
        case "onnx":
            return _onnx(content)
        case "solo" | "compiled solo":
            return _saved_model(content, compiled=kind != "solo")
    raise ValueError(f"no process can be made for a model of kind {kind!r}: update the engine")


def _said(predict: Predict, header: dict[str, Any], x: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    windows = np.frombuffer(x, np.float32).reshape(header["shape"]).copy()  # its own: it may write into it
    y = np.asarray(predict(windows))
    if y.dtype.kind not in "fiub":
        raise TypeError(f"predict returned {y.dtype} values; expected numbers")
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) != len(windows):
        raise ValueError(f"predict returned shape {y.shape} for {len(windows)} windows; expected [n, targets]")
    return {"shape": list(y.shape)}, {"y": np.ascontiguousarray(y, np.float32).tobytes()}


def _onnx(content: bytes) -> Predict:
    import onnxruntime  # an extra: where it is missing, the error names it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in ONNX_TYPES:
        names = [f"{i.name}: {i.type}" for i in inputs], [o.name for o in outputs]
        raise ValueError(f"the ONNX graph has inputs {names[0]}, outputs {names[1]}; expected one of each, floating")
    name, dtype, batch = inputs[0].name, ONNX_TYPES[inputs[0].type], inputs[0].shape[0]

    def predict(windows: F32) -> Any:
        x = windows.astype(dtype)
        if not isinstance(batch, int):
            return session.run(None, {name: x})[0]
        room = -(-len(x) // batch) * batch  # exported for so many windows at a time, and no others
        x = np.concatenate([x, np.zeros((room - len(x), *x.shape[1:]), dtype)])
        parts = [session.run(None, {name: x[at : at + batch]})[0] for at in range(0, room, batch)]
        return np.concatenate(parts)[: len(windows)]

    return predict


def _saved_model(content: bytes, *, compiled: bool) -> Predict:
    from .solo import WAYS, Solo  # TensorFlow: seconds, and only where it is needed

    loaded = Solo.load(content, Path.cwd())
    solo = loaded.executed_by(WAYS[compiled], loaded.tolerance)
    return lambda windows: solo.run_one(0, windows, lambda: False)


def _told(failure: BaseException) -> str:
    """What was raised, and in which line of the model's own code."""
    at = traceback.extract_tb(failure.__traceback__)
    inside = [frame for frame in at if frame.filename != __file__]
    place = f" (in {inside[-1].name}, line {inside[-1].lineno})" if inside else ""
    return f"{type(failure).__name__}: {failure}{place}"
