"""SavedModels of a few lines of TensorFlow, as a deployer hands them over."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf


def zipped(graph: Callable[[Any], Any] | None, folder: Path) -> bytes:
    """A zipped SavedModel that serves `graph` over windows [n, 12, 3], made under `folder`; None: serves nothing."""
    module = tf.Module()
    if graph is not None:
        module.serve = tf.function(graph, input_signature=[tf.TensorSpec([None, 12, 3], tf.float32)])
    content = io.BytesIO()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        tf.saved_model.save(module, place)
        with zipfile.ZipFile(content, "w") as archive:
            for path in Path(place).rglob("*"):
                archive.write(path, path.relative_to(place))
    return content.getvalue()
