"""What a stored model of any kind says to windows, on a worker: by Keras itself, as a SavedModel, or alone.

TensorFlow is imported where it is needed and no earlier: it takes seconds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.batch.fleet import quiet_tensorflow
from penstock.data.models import Artifact
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Windows
from penstock.errors import ModelError

Alone = Callable[[Artifact], AbstractContextManager[Callable[[NDArray[np.float32]], NDArray[np.float32]]]]
"""Runs a model that is no Keras model: its function from [n, T, F] to [n, O], in a process of its own."""
FORMS = 8
"""Networks that a worker keeps."""
_traced: dict[str, Any] = {}
_one_asks = threading.Lock()
"""Who has given a traced network its weights asks it before another one does."""


def predicted(
    artifact: Artifact, cut: Windows, at: NDArray[np.intp], alone: Alone | None = None
) -> NDArray[np.float32]:
    """[len(at), O] by Keras itself, by the SavedModel where the `.keras` file needs the user's code, or alone.

    `at`: positions in `cut`. Raises ModelError when the model cannot be run.
    """
    parts = np.array_split(at, max(1, len(at) // 256))
    if artifact.kind in ("callable", "onnx"):
        if alone is None:
            raise ModelError(f"{artifact.name}@{artifact.version}: a {artifact.kind} is run by what `alone` names")
        with alone(artifact) as predict:
            return np.concatenate([_whole(artifact, predict(cut.take(part))) for part in parts])
    quiet_tensorflow()
    from penstock.batch import fitting, foreign  # TensorFlow: seconds, and only where it is needed

    if artifact.kind == "lstm":
        with _one_asks:
            return fitting.predict(_model(artifact.keras), cut.x, at)
    with foreign.served(artifact.saved_model) as serve:
        return np.concatenate([serve(cut.take(part)) for part in parts])


def _whole(artifact: Artifact, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` [n, O]. Raises ModelError where the model gives another number of columns."""
    targets = WindowSpec.from_json(artifact.card["spec"]).targets
    if values.shape[1] != len(targets):
        name = f"{artifact.name}@{artifact.version}"
        raise ModelError(f"{name}: gives {values.shape[1]} values per window, not {len(targets)}")
    return values


def _model(content: bytes) -> Any:
    """The LSTM of a `.keras` file, in a network of its form that this worker has traced already, if there is one.

    To trace one takes a second, and a fleet's members differ in their weights alone.
    """
    form, weights, model = _loaded(content)
    if len(_traced) >= FORMS and form not in _traced:
        _traced.clear()
    model = _traced.setdefault(form, model)
    model.set_weights(weights)
    return model


@lru_cache(maxsize=FORMS)
def _loaded(content: bytes) -> tuple[str, list[NDArray[Any]], Any]:
    """All that decides what it computes: its form, as text, and its weights; and the model itself."""
    from penstock.batch import network

    model = network.from_bytes(content)
    return json.dumps(model.get_config(), sort_keys=True, default=str), model.get_weights(), model
