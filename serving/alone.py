"""A model in a process of its own outside Triton: to see what it says before it is deployed, or over history.

The process is the one that the engine would start (`backend/child.py`), so what holds here holds there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.models import Artifact
from penstock.errors import ModelError
from penstock.serving.backend.child import Child, Down, Failed, Guest

Float32 = NDArray[np.float32]
Predict = Callable[[Float32], Float32]

OPEN_S = 60.0
"""Its imports."""
CALL_S = 60.0
"""One call of it, some hundred windows; live it gets less (`backend/isolated.py`)."""


@contextmanager
def alone(artifact: Artifact) -> Iterator[Predict]:
    """The function from [n, T, F] to [n, O] of a stored callable or ONNX file. Raises ModelError naming it."""
    with opened(f"{artifact.name}@{artifact.version}", artifact.kind, artifact.program) as predict:
        yield predict


@contextmanager
def opened(name: str, kind: str, program: bytes) -> Iterator[Predict]:
    """Likewise, of a model that is not stored yet. Raises ModelError for whatever goes wrong in it, also a hang."""
    with tempfile.TemporaryDirectory() as folder:
        child = Child(Guest(name=name, kind=kind, content=program), Path(folder))
        try:
            child.open(time.monotonic() + OPEN_S)
            yield lambda windows: child.say(windows, time.monotonic() + CALL_S)
        except (Down, Failed) as error:
            raise ModelError(f"{error}{_remedy(str(error))}") from error
        finally:
            child.close()


def _remedy(text: str) -> str:
    if "No module named 'onnxruntime'" in text:
        return '; install it where Triton runs too: pip install "penstock[onnx]"'
    if "ModuleNotFoundError" in text:
        return "; define what it needs beside the function, or install that module where Triton runs too"
    return ""
