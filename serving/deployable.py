"""What can be deployed: an artifact's files and the header that describes them to the engine."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from penstock.errors import ModelError, Refused
from penstock.serving.repository import ENGINE

_FILES = {
    "lstm": ("serving", "serving.npz"),
    "solo": ("saved_model", "saved_model.zip"),
    "callable": ("program", "predict.pkl"),
    "onnx": ("program", "model.onnx"),
}
"""Per kind: what the engine calls the part that it executes, and the artifact's file."""


class Deployable(Protocol):
    """What of `data.models.Artifact` a deploy reads."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def card(self) -> Mapping[str, Any]: ...
    @property
    def files(self) -> Mapping[str, bytes]: ...


def parts_of(artifact: Deployable) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The artifact's files and the header that describes them.

    Raises Refused when its name cannot stand on Triton, ModelError when a file is missing or its kind unknown.
    """
    if artifact.name == ENGINE or not artifact.name or set(artifact.name) & set("/\\\0") or artifact.name[0] == ".":
        raise Refused(f"a model cannot be called {artifact.name!r} on Triton: choose another name")
    kind = str(artifact.card["kind"])
    if kind not in _FILES:
        raise ModelError(f"{artifact.name}@{artifact.version}: unknown kind {kind!r}; known: {', '.join(_FILES)}")
    try:
        parts = {part: artifact.files[file] for part, file in [("golden", "golden.npz"), _FILES[kind]]}
    except KeyError as error:
        raise ModelError(f"{artifact.name}@{artifact.version} has no file {error}: train it again") from error
    digest = hashlib.sha256(b"".join(parts.values())).hexdigest()
    header = {
        "name": artifact.name,
        "version": artifact.version,
        "kind": kind,
        "digest": f"{artifact.version}:{digest}",
        "card": dict(artifact.card),
        "isolate": bool(artifact.card.get("isolate", False)),
    }
    return parts, header


def shape_of(artifact: Deployable) -> tuple[int, int, int]:
    """T, F, O, as its golden windows have them."""
    with np.load(io.BytesIO(artifact.files["golden.npz"])) as golden:
        _, length, features = golden["windows"].shape
        return length, features, golden["predictions"].shape[1]
