"""Challengers: a version that is scored beside the champion at every tick, and never answers for it.

It stands in Triton, in the requests and in the speed view under a name of its own, `nox#challenger`: no model of a
plant can be called so, so that whoever asks for `nox` is never given what its challenger said. One per model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.data.artifact import Artifact

MARK = "#challenger"


def challenger_of(model: str) -> str:
    """The name under which a challenger of `model` is scored."""
    return model + MARK


def is_challenger(name: str) -> bool:
    """Whether `name` is a challenger's."""
    return name.endswith(MARK)


def model_of(name: str) -> str:
    """The model that a challenger, or a champion, is a version of."""
    return name.removesuffix(MARK)


def as_challenger(artifact: Artifact) -> Artifact:
    """`artifact` as it is deployed beside the champion.

    All but LSTMs of penstock's own form get a process of their own: one that hangs or dies costs the tick nothing.
    """
    isolate = bool(artifact.card.get("isolate")) or artifact.kind != "lstm"
    card: Mapping[str, object] = {**artifact.card, "isolate": isolate}
    return replace(artifact, name=challenger_of(artifact.name), card=card)
