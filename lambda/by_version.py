"""Of what a model said, what one version of it did: as the champion, and as the challenger beside another one. Pure."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from penstock.data.views.adjusted import COLUMNS, Adjusted
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SaidRows


def by(rows: Predictions, version: int) -> Predictions:
    """The rows of `version` alone."""
    mine = rows.versions == version
    return replace(rows, **{f.name: getattr(rows, f.name)[mine] for f in fields(rows)})


def said_by(champion: SaidRows | None, challenger: SaidRows | None, version: int) -> SaidRows | None:
    """Rows of `version`, in order; where it spoke as both, what it answered. None where it never spoke.

    Nothing stands beside what it said as a challenger.
    """
    first, second = (_only(rows, version) for rows in (champion, challenger))
    if first is None or second is None:
        return first or second
    second = _picked(second, ~np.isin(second.ticks, first.ticks))
    order = np.argsort(np.concatenate([first.ticks, second.ticks]), kind="stable")
    joined = {
        f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)])[order]
        for f in fields(SaidRows)
        if f.name != "adjusted"
    }
    beside = _beside(first).then(_beside(second))
    return SaidRows(**joined, adjusted=Adjusted(**{name: getattr(beside, name)[order] for name in COLUMNS}))


def _beside(rows: SaidRows) -> Adjusted:
    return rows.adjusted or Adjusted.nothing(*rows.values.shape)


def _only(rows: SaidRows | None, version: int) -> SaidRows | None:
    if rows is None or not (rows.versions == version).any():
        return None
    return _picked(rows, rows.versions == version)


def _picked(rows: SaidRows, at: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> SaidRows:
    found = {f.name: getattr(rows, f.name)[at] for f in fields(rows) if f.name != "adjusted"}
    said = rows.adjusted
    return SaidRows(
        **found, adjusted=None if said is None else Adjusted(**{name: getattr(said, name)[at] for name in COLUMNS})
    )
