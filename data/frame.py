"""Readings as columns: the only form in which readings travel through penstock.

A reading is (tag, event time, value, quality). No Python object exists per
reading anywhere. Two shapes: `Frame` (long: one row per reading) for whatever
arrives irregularly, `Dense` (rows of time by columns of tags) for plants whose
tags are read together. This file knows nothing of files, clocks or grids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32] | NDArray[np.float64]
Rows = slice | NDArray[np.intp]

GOOD, UNCERTAIN, BAD = 0x00, 0x40, 0x80
"""Source status of a reading (uint8), OPC-like: a larger number is a worse status."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """Readings in long form; all arrays have the same length n."""

    times: NDArray[np.int64]
    """[n] event time, ns since 1970-01-01 UTC."""
    tags: NDArray[np.int32]
    """[n] tag ids of the site's registry."""
    values: Float
    """[n] in the tag's unit; float32, or float64 for tags that say so."""
    quality: NDArray[np.uint8]
    """[n] source status."""

    def __len__(self) -> int:
        return len(self.times)

    def only(self, mask: NDArray[np.bool_]) -> Frame:
        """The readings where `mask` [n] is true."""
        return Frame(times=self.times[mask], tags=self.tags[mask], values=self.values[mask], quality=self.quality[mask])

    def rows(self, at: Rows) -> Frame:
        """The readings at `at`; views of them where it is a slice."""
        return Frame(times=self.times[at], tags=self.tags[at], values=self.values[at], quality=self.quality[at])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense:
    """k rows of m tags read together. NaN with status GOOD means: no reading here."""

    times: NDArray[np.int64]
    """[k] event time, ns UTC."""
    tags: NDArray[np.int32]
    """[m] tag ids."""
    values: Float
    """[k, m]"""
    quality: NDArray[np.uint8]
    """[k, m] source status."""
    _counts: NDArray[np.int64] | None = field(default=None, init=False, repr=False)
    """Of each row, once they were counted."""

    def __len__(self) -> int:
        return int(self.counts().sum())

    @property
    def counted_full(self) -> bool:
        """Whether it was counted, and every place holds a reading."""
        return self._counts is not None and len(self) == self.values.size

    def full(self) -> Dense:
        """Itself, which is known to hold a reading at every place: nobody needs to count them."""
        object.__setattr__(self, "_counts", np.full(len(self.times), len(self.tags), np.int64))
        return self

    def present(self) -> NDArray[np.bool_]:
        """[k, m] true where there is a reading (a NaN with a bad status is one)."""
        return ~self._absent()

    def counts(self) -> NDArray[np.int64]:
        """[k] readings of each row."""
        if self._counts is None:
            counts = len(self.tags) - np.count_nonzero(self._absent(), axis=1)
            object.__setattr__(self, "_counts", np.asarray(counts, np.int64))
        assert self._counts is not None
        return self._counts

    def _absent(self) -> NDArray[np.bool_]:
        absent = np.isnan(self.values)
        if absent.any():
            absent &= self.quality == GOOD
        return np.asarray(absent, bool)

    def long(self) -> Frame:
        """The same readings, row by row."""
        rows, columns = np.nonzero(self.present())
        return Frame(
            times=self.times[rows],
            tags=self.tags[columns],
            values=self.values[rows, columns],
            quality=self.quality[rows, columns],
        )

    def rows(self, at: Rows) -> Dense:
        """The rows at `at`; views of them where it is a slice."""
        return Dense(times=self.times[at], tags=self.tags, values=self.values[at], quality=self.quality[at])

    def columns(self, keep: NDArray[np.intp]) -> Dense:
        """The columns at positions `keep`."""
        return Dense(
            times=self.times,
            tags=self.tags[keep],
            values=self.values.take(keep, axis=1),
            quality=self.quality.take(keep, axis=1),
        )


Readings = Frame | Dense
