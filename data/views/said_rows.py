"""What one model said, decoded from the speed view's rows: many consecutive ticks of one layout at a time.

A row holds all members of its tick, packed one behind the other. Rows that follow each other mostly have the same
members, so their columns are joined and read as one matrix. Knows nothing of SQLite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.data.views.adjusted import COLUMNS, Adjusted

Place = tuple[int, int, int]
"""(a member's index, its first output, one past its last)."""
Row = tuple[Any, ...]
"""(tick, layout, values, versions, reasons, filled, hashes): the last five as bytes."""
TYPES = {"versions": "<i4", "reasons": "u1", "filled": "u1", "hashes": "<u8"}
"""Of the columns that have one number per member, in the order of a row."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SaidRows:
    """What one model said; n ticks, o outputs."""

    ticks: NDArray[np.int64]
    """[n] ascending."""
    values: NDArray[np.float32]
    """[n, o]; NaN where withheld."""
    versions: NDArray[np.int32]
    """[n]"""
    reasons: NDArray[np.uint8]
    """[n]"""
    filled: NDArray[np.bool_]
    """[n]"""
    hashes: NDArray[np.uint64]
    """[n]"""
    adjusted: Adjusted | None = None
    """[n, o] what was said beside the values; None: nothing was."""

    @classmethod
    def joined(cls, parts: Sequence[Self], beside: bool) -> Self:
        """The parts, in order; NaN for outputs that one has not. `adjusted` is there where `beside` says so."""
        width = max((part.values.shape[1] for part in parts if len(part.ticks)), default=0)

        def column(name: str, dtype: str) -> NDArray[Any]:
            found = [getattr(part, name) for part in parts]
            return np.concatenate(found).astype(dtype, copy=False) if found else np.zeros(0, dtype)

        return cls(
            ticks=column("ticks", "i8"),
            values=_wide([part.values for part in parts], width),
            versions=column("versions", "i4"),
            reasons=column("reasons", "u1"),
            filled=column("filled", "?"),
            hashes=column("hashes", "u8"),
            adjusted=_beside(parts, width) if beside else None,
        )

    def between(self, first: int, last: int) -> SaidRows:
        """Ticks first..last-1 of them."""
        if not len(self.ticks) or (first <= self.ticks[0] and self.ticks[-1] < last):
            return self
        cut = slice(*np.searchsorted(self.ticks, [first, last]).tolist())
        names = ("ticks", "values", "versions", "reasons", "filled", "hashes")
        adjusted = None if self.adjusted is None else self.adjusted.rows(cut)
        return SaidRows(**{name: getattr(self, name)[cut] for name in names}, adjusted=adjusted)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """Consecutive ticks of one layout; n ticks, m members, o outputs in all."""

    layout: int
    ticks: NDArray[np.int64]
    """[n] ascending."""
    values: NDArray[np.float32]
    """[n, o]"""
    columns: Mapping[str, NDArray[Any]]
    """[n, m] by the names of TYPES."""
    adjusted: Adjusted | None
    """[n, o]; None: beside none of these ticks was anything said."""

    def of(self, place: Place) -> SaidRows:
        """What the member at `place` said."""
        member, start, stop = place
        beside = self.adjusted
        if beside is not None:
            beside = Adjusted(**{name: getattr(beside, name)[:, start:stop] for name in COLUMNS})
        return SaidRows(
            ticks=self.ticks,
            values=self.values[:, start:stop],
            versions=self.columns["versions"][:, member],
            reasons=self.columns["reasons"][:, member],
            filled=self.columns["filled"][:, member].astype(bool),
            hashes=self.columns["hashes"][:, member],
            adjusted=beside,
        )


def runs_of(rows: Sequence[Row], beside: Mapping[int, Sequence[bytes]]) -> Iterator[Run]:
    """The rows, ascending by tick, of which each layout has a member; `beside`: by tick, a blob per column."""
    for layout, same in groupby(rows, key=lambda row: row[1]):
        some = list(same)
        yield Run(
            layout=layout,
            ticks=np.array([row[0] for row in some], np.int64),
            values=_matrix([row[2] for row in some], "<f4"),
            columns={
                name: _matrix([row[k] for row in some], dtype) for k, (name, dtype) in enumerate(TYPES.items(), 3)
            },
            adjusted=_adjusted(some, beside),
        )


def place_of(members: Sequence[tuple[str, int]], model: str) -> Place | None:
    """Where a model stands among `members`, (name, outputs) each; None where it is none of them."""
    return places_of(members).get(model)


def places_of(members: Sequence[tuple[str, int]]) -> dict[str, Place]:
    """Where each of `members`, (name, outputs) each, stands."""
    found, at = {}, 0
    for index, (name, outputs) in enumerate(members):
        found[name] = (index, at, at + outputs)
        at += outputs
    return found


def _matrix(blobs: Sequence[bytes], dtype: str) -> NDArray[Any]:
    """[n, what a blob holds]"""
    whole = np.frombuffer(b"".join(blobs), dtype)
    return whole.reshape(len(blobs), len(whole) // len(blobs))


def _adjusted(rows: Sequence[Row], beside: Mapping[int, Sequence[bytes]]) -> Adjusted | None:
    at = [k for k, row in enumerate(rows) if row[0] in beside] if beside else []
    if not at:
        return None
    told = Adjusted.nothing(len(rows), len(rows[0][2]) // 4)
    for column, name in enumerate(COLUMNS):
        getattr(told, name)[at] = _matrix([beside[rows[k][0]][column] for k in at], "<f4")
    return told


def _wide(parts: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """[n, width] of parts [k, up to width]."""
    if all(part.shape[1] == width for part in parts):
        return np.concatenate(parts).astype(np.float32, copy=False) if parts else np.zeros((0, width), np.float32)
    told = np.full((sum(map(len, parts)), width), np.nan, np.float32)
    at = 0
    for part in parts:
        told[at : at + len(part), : part.shape[1]] = part
        at += len(part)
    return told


def _beside(parts: Sequence[SaidRows], width: int) -> Adjusted:
    each = [part.adjusted or Adjusted.nothing(*part.values.shape) for part in parts]
    return Adjusted(**{name: _wide([getattr(one, name) for one in each], width) for name in COLUMNS})
