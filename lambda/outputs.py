"""What a version predicts, beside what is asked: rows of another target, or for another time, are no answer.

A model may get other targets, another order of them, or another horizon from one version to the next. Its rows in the
views then say something else than the question; taken as they are, a number would stand under a wrong name, or at a
wrong time. A version counts where it predicts all that is asked for, at the same horizon; its columns are put in order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.models import ModelStore
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SaidRows
from penstock.errors import ModelError

Outputs = tuple[tuple[str, ...], int]
"""Targets in order, and the horizon in ticks."""
OutputsOf = Callable[[int], Outputs | None]
"""Of a version; None where nobody knows any more: its rows count where they are as wide as what is asked."""
Versions = NDArray[np.signedinteger[Any]]
NOBODY, DROPPED = -1, -2


def columns(asked: Outputs, said: Outputs) -> list[int] | None:
    """Where the asked targets stand among those that are said; None where not all of them do, or not for that time."""
    if asked[1] != said[1] or not set(asked[0]) <= set(said[0]):
        return None
    return [said[0].index(target) for target in asked[0]]


def fitted(rows: Predictions, asked: Outputs, outputs_of: OutputsOf) -> Predictions:
    """The rows that answer what is asked, their columns in its order; rows of other versions are left out.

    A row of version 0 was withheld: it has a reason and no values, whoever it was.
    """
    at = _places(rows.versions, rows.values.shape[1], asked, outputs_of)
    if at is None:
        return rows
    kept = at[:, 0] > DROPPED
    told = {name: array[kept] for name, array in rows.columns().items()}
    return Predictions(**{**told, "values": _moved(rows.values[kept], at[kept])})


def fitted_said(rows: SaidRows, asked: Outputs, outputs_of: OutputsOf) -> SaidRows:
    """Likewise, of what was said live, and what was said beside it."""
    at = _places(rows.versions, rows.values.shape[1], asked, outputs_of)
    if at is None:
        return rows
    kept = at[:, 0] > DROPPED
    beside = rows.adjusted
    if beside is not None:
        moved = {
            name: _moved(getattr(beside, name)[kept], at[kept]) for name in ("corrections", "lows", "highs", "chances")
        }
        beside = Adjusted(**moved)
    return SaidRows(
        ticks=rows.ticks[kept], values=_moved(rows.values[kept], at[kept]), versions=rows.versions[kept],
        reasons=rows.reasons[kept], filled=rows.filled[kept], hashes=rows.hashes[kept], adjusted=beside,
    )  # fmt: skip


def of_store(store: ModelStore, model: str) -> OutputsOf:
    """By the cards; each is read once."""

    @cache
    def outputs_of(version: int) -> Outputs | None:
        try:
            spec = store.card(model, version)["spec"]
        except ModelError:
            return None
        return tuple(spec["targets"]), int(spec["horizon"])

    return outputs_of


def spoke(versions: Versions) -> list[int]:
    """The versions that there are, ascending; 0 and below are none."""
    return [int(version) for version in np.flatnonzero(np.bincount(np.maximum(versions, 0))) if version]


def _places(versions: Versions, width: int, asked: Outputs, outputs_of: OutputsOf) -> NDArray[np.int64] | None:
    """[n, O] the column of each asked target, NOBODY where it has none, DROPPED where the row is no answer.

    None: all rows are as they are asked for.
    """
    own = list(range(len(asked[0])))
    at = {}
    for version in spoke(versions):
        said = outputs_of(version)
        at[version] = (own if width == len(own) else None) if said is None else columns(asked, said)
    if width == len(own) and all(place == own for place in at.values()):
        return None
    found = np.full((len(versions), len(own)), NOBODY, np.int64)
    for version, place in at.items():
        found[versions == version] = DROPPED if place is None or max(place) >= width else place
    return found


def _moved(values: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    if not values.shape[1]:
        return np.full(at.shape, np.nan, np.float32)
    told = np.take_along_axis(values, np.maximum(at, 0), axis=1)
    return np.where(at >= 0, told, np.float32(np.nan))
