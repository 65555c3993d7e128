"""A solo: one SavedModel, executed inside the engine's own process: as its graph is, or compiled by XLA.

Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .forward import GRAPH, XLA
from .golden import TOLERANCE
from .host import F32, Cancelled, Stopped

WINDOW_BUCKETS = (1, 8, 64)
"""Numbers of windows that are traced, or compiled; a larger request goes in pieces."""
WAYS = (GRAPH, XLA)
"""To execute it; the first is what it goes live with."""


@dataclass(frozen=True)
class Solo:
    """One SavedModel with a slot of its own."""

    module: Any
    """Kept alive: a signature holds its variables weakly."""
    handed: Callable[[Any], Any]
    """Its endpoint, as it was handed over."""
    call: Callable[[Any], Any]
    """What executes it."""
    variant: str = GRAPH
    """One of WAYS."""
    tolerance: float = TOLERANCE
    """Of its golden check, in units of each output's scale."""

    @classmethod
    def load(cls, archive: bytes, folder: Path) -> Solo:
        """A zipped SavedModel, unpacked under `folder` while it loads.

        Raises ValueError when it has no endpoint that takes one tensor.
        """
        with tempfile.TemporaryDirectory(dir=folder) as place:
            with zipfile.ZipFile(io.BytesIO(archive)) as packed:
                packed.extractall(place)
            found = sorted(Path(place).rglob("saved_model.pb"))
            if not found:
                raise ValueError("the archive holds no saved_model.pb")
            module = tf.saved_model.load(str(found[0].parent))
        if hasattr(module, "serve"):
            return cls.of(module, module.serve)
        if "serving_default" not in module.signatures:
            raise ValueError("the SavedModel has neither `serve` nor `serving_default`")
        signature = module.signatures["serving_default"]
        key = next(iter(signature.structured_input_signature[1]))
        return cls.of(module, lambda x: next(iter(signature(**{key: x}).values())))

    @classmethod
    def of(cls, module: Any, handed: Callable[[Any], Any]) -> Solo:
        """As its graph is."""
        return cls(module=module, handed=handed, call=handed)

    def executed_by(self, variant: str, tolerance: float) -> Solo:
        """The same model, executed in another of the WAYS; nothing is compiled before it is asked."""
        call = self.handed
        if variant == XLA:
            call = tf.function(call, jit_compile=True, autograph=False)
        return replace(self, call=call, variant=variant, tolerance=tolerance)

    def run(self, rows: NDArray[np.int64], windows: F32, cancelled: Cancelled) -> F32:
        """windows [n, T, F] -> [n, O]; `rows` are all 0."""
        return self.run_one(0, windows, cancelled)

    def run_one(self, row: int, windows: F32, cancelled: Cancelled) -> F32:
        """windows [n, T, F] -> [n, O], padded to the buckets that the golden run compiled."""
        pieces = []
        for at in range(0, len(windows), WINDOW_BUCKETS[-1]):
            if cancelled():
                raise Stopped
            x = windows[at : at + WINDOW_BUCKETS[-1]]
            room = next(b for b in WINDOW_BUCKETS if b >= len(x))
            y = np.asarray(self.call(tf.constant(_padded(x, room))))
            pieces.append(y.reshape(room, -1)[: len(x)].astype(np.float32))
        return np.concatenate(pieces)

    def drop(self, row: int) -> None:
        """Nothing stays of it."""

    def warm(self, rows: int, features: int) -> None:
        """Run every bucket once, so that nothing is traced on the request path."""
        for n in WINDOW_BUCKETS:
            self.run_one(0, np.zeros((n, rows, features), np.float32), lambda: False)


def _padded(x: Any, room: int) -> Any:
    return x if len(x) == room else np.concatenate([x, np.zeros((room - len(x), *x.shape[1:]), x.dtype)])
