"""Any Keras model: built by the user's own function, or handed over ready made.

A model of a plant may say ``network = "networks/nox.py:build"``. The function
is called as ``build(length, features, targets)`` and returns a Keras model that
maps [N, T, F] to [N, O], numbers around 0 and 1 on both sides; ours puts the
scaling around it and fits it like every other. What cannot be an LSTM slot of
the engine is served as a SavedModel.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from penstock.batch import network
from penstock.batch.network import Network
from penstock.data.models import Draft, Golden
from penstock.data.plant import LstmSpec
from penstock.errors import ModelError

Float32 = NDArray[np.float32]
Build = Callable[[int, int, int], keras.Model]


def built(reference: str, length: int, features: int, outputs: int, settings: LstmSpec) -> Network:
    """The user's network between our scaling layers, ready to be fitted, weights drawn from the seed.

    A model that the function has compiled keeps its optimiser and loss. Raises
    ModelError naming `reference` for whatever goes wrong in it.
    """
    build = builder(reference)
    keras.utils.set_random_seed(settings.seed)
    try:
        body = build(length, features, outputs)
    except Exception as error:  # the user's code may raise anything, and must be named for it
        raise ModelError(
            f"network {reference!r}: build({length}, {features}, {outputs}) raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(body, keras.Model):
        raise ModelError(f"network {reference!r}: build returned {type(body).__name__}; it must return a keras.Model")
    net = network.wrapped(body, length, features, outputs)
    own = (body.optimizer, body.loss) if body.compiled else (keras.optimizers.Adam(settings.learning_rate), "mse")
    net.raw.compile(optimizer=own[0], loss=own[1])
    return net


def builder(reference: str) -> Build:
    """The function that ``file.py:function`` names. Runs the file: it is the plant's own code."""
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not os.access(path, os.R_OK):
        raise ModelError(
            f"network {reference!r}: no file {file!r} that user {os.getuid()} on {socket.gethostname()} can read; "
            "write 'file.py:function', relative to plant.toml; Dask workers elsewhere need it at the same place"
        )
    module_spec = importlib.util.spec_from_file_location(f"penstock_network_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ModelError(f"network {reference!r}: {file!r} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # as above
        raise ModelError(f"network {reference!r}: {type(error).__name__} in the file: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ModelError(f"network {reference!r}: {file!r} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def export(model: keras.Model) -> bytes:
    """A zipped SavedModel whose endpoint `serve` maps float32 [N, T, F] to [N, O]."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "saved_model"
        try:
            with _quiet():
                model.export(folder, verbose=False)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ModelError(f"model {model.name!r} cannot be exported for serving: {error}") from error
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder))
        return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without TensorFlow's line about a temporary folder, which a notebook would show twice."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def served(content: bytes) -> Iterator[Callable[[Float32], Float32]]:
    """The endpoint `serve` of `export`'s bytes, as a function from [n, T, F] to [n, O]."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                archive.extractall(folder)
            loaded = tf.saved_model.load(folder)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise ModelError(f"the SavedModel cannot be read: {error}; store the model again") from error
        yield lambda x: np.asarray(loaded.serve(tf.constant(x, tf.float32)), np.float32)


def draft_of(model: keras.Model, *, name: str, card: Mapping[str, Any], windows: Float32, scale: Float32) -> Draft:
    """A ready-made Keras model as a draft: engineering units in and out, as it stands.

    `windows` [g, T, F] become its golden windows; `scale` [O] is the targets' scale. An LSTM that
    penstock built itself stays kind "lstm", unless its card says `isolate`: a process of its own runs SavedModels.
    Raises ModelError when the model does not take those windows, says what is no number, or its export does not
    repeat what Keras says.
    """
    try:
        predictions = np.asarray(model.predict(windows, verbose=0), np.float32)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise ModelError(f"model {name!r} does not take windows of {windows.shape[1:]}: {error}") from error
    if predictions.shape != (len(windows), len(scale)):
        raise ModelError(
            f"model {name!r} gives {predictions.shape} for {len(windows)} windows; "
            f"it must give one column per target: {(len(windows), len(scale))}"
        )
    if not np.isfinite(predictions).all():
        raise ModelError(f"model {name!r} gives values that are not finite for the newest windows; train it again")
    golden = Golden(windows=windows, predictions=predictions, scale=scale)
    if network.is_ours(model) and not card.get("isolate"):
        serving = network.weights_of(model)
        return Draft(name=name, kind="lstm", card=card, keras=network.to_bytes(model), golden=golden, serving=serving)
    content = export(model)
    _same(name, content, golden)
    return Draft(name=name, kind="solo", card=card, keras=network.to_bytes(model), golden=golden, saved_model=content)


def _same(name: str, content: bytes, golden: Golden) -> None:
    with served(content) as serve:
        apart = np.max(np.abs(serve(golden.windows) - golden.predictions) / golden.scale)
    if not apart <= 1e-5:
        raise ModelError(f"model {name!r}: its export differs from Keras by {apart:.2g} of the target's scale")
