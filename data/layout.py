"""Which shard and which column a tag has: tag ids spread over shards, by arithmetic alone.

Tag ids are 0, 1, 2, ... in order of registration and are never reused, so the i-th float32 tag
keeps its shard and column for ever, however many tags are appended after it. This file knows
nothing of files, clocks or the journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Dense, Frame, Readings
from penstock.data.grid import spaced
from penstock.data.remembered import Remembered
from penstock.errors import SiteError


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where one shard's columns stand in dense rows of certain tags."""

    shard: int
    at: slice | NDArray[np.intp]
    """A slice where they are evenly spaced: that copies several times faster."""
    tags: NDArray[np.int32]

    @classmethod
    def of(cls, shard: int, at: NDArray[np.intp], tags: NDArray[np.int32]) -> _Place:
        even = spaced(at)
        return cls(shard=shard, at=at if even is None else even, tags=np.ascontiguousarray(tags[at]))


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Tags spread over shards; rebuilt when tags are appended."""

    dtypes: Sequence[str]
    """[tags] "float32" or "float64" of each tag id."""
    shards: int
    """Shards per dtype, from site.json."""
    ahead: Sequence[int] = ()
    """[tags] ticks that each may be known before its time; none: no tag may."""
    _ahead: NDArray[np.int64] = field(init=False, repr=False)
    _double: NDArray[np.bool_] = field(init=False, repr=False)
    _shard_of: NDArray[np.int32] = field(init=False, repr=False)
    _index: NDArray[np.int32] = field(init=False, repr=False)
    _places: Remembered[tuple[_Place, ...]] = field(init=False, repr=False, default_factory=Remembered)

    def __post_init__(self) -> None:
        """Raises SiteError for a dtype that is neither float32 nor float64, or less than one shard."""
        names = np.asarray(self.dtypes, dtype=object)
        double = names == "float64"
        if not bool((double | (names == "float32")).all()):
            raise SiteError("tag registry: a dtype is neither float32 nor float64; correct the tag in plant.toml")
        if self.shards < 1:
            raise SiteError(f"site.json: found {self.shards} shards; allowed: 1 or more")
        index = np.where(double, np.cumsum(double), np.cumsum(~double)).astype(np.int32) - np.int32(1)
        shard = index % self.shards + np.where(double, self.shards, 0)
        object.__setattr__(self, "_ahead", np.array(self.ahead, np.int64))
        object.__setattr__(self, "_double", double.astype(bool))
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_shard_of", shard.astype(np.int32))

    def __len__(self) -> int:
        return len(self._index)

    def shard_count(self) -> int:
        """Shards, twice that when float64 tags exist."""
        return self.shards * (2 if bool(self._double.any()) else 1)

    def tags(self, shard: int) -> NDArray[np.int32]:
        """Ids of the tags of a shard, ascending."""
        return np.flatnonzero(self._shard_of == shard).astype(np.int32)

    def dtype(self, shard: int) -> str:
        """ "float32" or "float64"."""
        return "float32" if shard < self.shards else "float64"

    def shard_of(self) -> NDArray[np.int32]:
        """[tags] the shard of each id."""
        return self._shard_of

    def column_of(self, shard: int) -> NDArray[np.int32]:
        """[tags] the column inside the shard, -1 for tags of other shards."""
        inside = self._shard_of == shard
        return np.where(inside, self._index // self.shards, np.int32(-1)).astype(np.int32)

    def double(self) -> NDArray[np.bool_]:
        """[tags] true for float64 tags."""
        return self._double

    def ahead_of(self) -> NDArray[np.int64]:
        """[tags] ticks that each may be known before its time; empty where none may."""
        return self._ahead

    def index_of(self) -> NDArray[np.int32]:
        """[tags] place of each tag among the tags of its dtype, in id order: its column in the archive."""
        return self._index

    def split(self, readings: Readings) -> dict[int, Readings]:
        """The readings by shard, in the shard's dtype; shards that have no reading are left out.

        Raises SiteError when a tag id is not in this layout.
        """
        parts: dict[int, Readings]
        if isinstance(readings, Dense):
            places = self._places.of(partial(self._placed, readings.tags), readings.tags)
            parts = {place.shard: self._columns(readings, place) for place in places}
        else:
            shards = self._shards(readings.tags)
            parts = {int(s): self._rows(readings, shards, int(s)) for s in np.unique(shards)}
        return {shard: part for shard, part in parts.items() if len(part)}

    def _shards(self, tags: NDArray[np.int32]) -> NDArray[np.int32]:
        if len(tags) and not 0 <= int(tags.min()) <= int(tags.max()) < len(self):
            raise SiteError(
                f"tag ids {int(tags.min())}..{int(tags.max())} go beyond the {len(self)} tags "
                "of this layout: rebuild it from the tag registry"
            )
        return self._shard_of[tags]

    def _placed(self, tags: NDArray[np.int32]) -> tuple[_Place, ...]:
        shards = self._shards(tags)
        found = np.flatnonzero(np.bincount(shards)).tolist() if len(tags) else []
        return tuple(_Place.of(shard, np.flatnonzero(shards == shard), tags) for shard in found)

    def _columns(self, dense: Dense, place: _Place) -> Readings:
        values = np.ascontiguousarray(dense.values[:, place.at], self.dtype(place.shard))
        quality = np.ascontiguousarray(dense.quality[:, place.at])
        part = Dense(times=dense.times, tags=place.tags, values=values, quality=quality)
        return part.full() if dense.counted_full else part

    def _rows(self, frame: Frame, shards: NDArray[np.int32], shard: int) -> Readings:
        part = frame.only(shards == shard)
        values = part.values.astype(self.dtype(shard), copy=False)
        return Frame(times=part.times, tags=part.tags, values=values, quality=part.quality)
