"""A model as a value: the draft that a worker or a user hands over, and the artifact that is read back.

Knows which files a kind of model has and what lies in them; touches no disk.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from penstock.errors import ModelError

KERAS, SERVING, SAVED_MODEL, GOLDEN, CARD = (
    "model.keras",
    "serving.npz",
    "saved_model.zip",
    "golden.npz",
    "card.json",
)
Kind = Literal["lstm", "solo", "callable", "onnx"]
PROGRAMS: Mapping[str, str] = {"callable": "predict.pkl", "onnx": "model.onnx"}
"""The file of a kind that is no Keras model."""
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """Windows whose predictions are known: whoever serves the model must repeat them."""

    windows: NDArray[np.float32]
    """[g, T, F] in engineering units."""
    predictions: NDArray[np.float32]
    """[g, O] what the model itself said: `keras.Model.predict`, a callable, onnxruntime."""
    scale: NDArray[np.float32]
    """[O] the target's scale: "equal" means within 1e-5 of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """A trained or ready-made model as a value, not stored yet; small enough to travel from a worker."""

    name: str
    kind: Kind
    card: Mapping[str, Any]
    """Everything but version and sha256, which the store adds."""
    keras: bytes = b""
    """The `.keras` file, for kinds "lstm" and "solo"."""
    golden: Golden
    serving: Arrays | None = None
    """The network's arrays by name, for kind "lstm"."""
    saved_model: bytes | None = None
    """A zipped SavedModel, for kind "solo"."""
    program: bytes | None = None
    """The ONNX file, or the callable as cloudpickle wrote it, for kinds "onnx" and "callable"."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Artifact:
    """A stored model, read whole and checked; a value that no longer needs the disk."""

    name: str
    version: int
    folder: Path
    """Where it was read from."""
    card: Mapping[str, Any]
    files: Mapping[str, bytes] = field(repr=False)
    """Contents by file name, card.json left out."""

    @property
    def kind(self) -> Kind:
        """ "lstm" (has `serving`), "solo" (has `saved_model`), "callable" or "onnx" (have `program`).

        Raises ModelError for a kind of another version of penstock.
        """
        if self.card["kind"] not in get_args(Kind):
            raise ModelError(
                f"{self.folder}: a model of kind {self.card['kind']!r}; this version knows {', '.join(get_args(Kind))}"
            )
        return cast(Kind, self.card["kind"])

    @property
    def serving(self) -> dict[str, NDArray[Any]]:
        """The network's arrays by name; empty for kind "solo"."""
        return _unpack(self.files[SERVING]) if SERVING in self.files else {}

    @property
    def saved_model(self) -> bytes:
        """The zipped SavedModel; empty for other kinds than "solo"."""
        return self.files.get(SAVED_MODEL, b"")

    @property
    def program(self) -> bytes:
        """The ONNX file or the pickled callable; empty for kinds that are Keras models."""
        return self.files.get(PROGRAMS.get(self.kind, ""), b"")

    @property
    def keras(self) -> bytes:
        """The `.keras` file; empty for kinds that are no Keras models."""
        return self.files.get(KERAS, b"")

    @property
    def golden(self) -> Golden:
        """The golden windows and what the model predicted for them."""
        arrays = _unpack(self.files[GOLDEN])
        return Golden(windows=arrays["windows"], predictions=arrays["predictions"], scale=arrays["scale"])


def contents(draft: Draft) -> dict[str, bytes]:
    """The files of a draft by name, card.json left out. Raises ModelError when it is incomplete."""
    golden = {GOLDEN: _pack(_golden_arrays(draft.golden))}
    match draft.kind:
        case "lstm" if draft.serving:
            return golden | {KERAS: draft.keras, SERVING: _pack(draft.serving)}
        case "solo" if draft.saved_model:
            return golden | {KERAS: draft.keras, SAVED_MODEL: draft.saved_model}
        case "callable" | "onnx" if draft.program:
            return golden | {PROGRAMS[draft.kind]: draft.program}
    raise ModelError(
        f"draft {draft.name!r}: kind {draft.kind!r} needs serving arrays (lstm), a saved model (solo) or a program"
    )


def _golden_arrays(golden: Golden) -> Arrays:
    return {"windows": golden.windows, "predictions": golden.predictions, "scale": golden.scale}


def _pack(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def _unpack(content: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"arrays of a model cannot be read: {error}; train it again") from error
