"""The names that a source uses, as tag ids; and raw numbers under them, as readings.

Names that are no tags are counted on the source's link, and their readings are rejected: whoever connects a plant
sees what is not mapped yet. Whole columns at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Dense, Float, Frame, Readings
from penstock.data.importing.source_tags import IGNORED, UNKNOWN, SourceTags
from penstock.speed.link import Link

NAMES_KEPT = 1 << 21
"""Names whose ids are remembered; a source that makes up names may not fill the memory."""
LISTS_KEPT = 16
"""Lists of names, of dense rows, whose ids are remembered together."""
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """What the places of one list of names are."""

    names: Sequence[str]
    """Kept, so that its id stays its own."""
    ids: NDArray[np.int32]
    """Of the tags among them: the same array each time, so that others can remember what they found out about it."""
    whole: NDArray[np.int32]
    """[names] ids, negative for those that are no tags, or left out."""
    taken: NDArray[np.intp] | None
    """Where these tags stand; None: everywhere."""
    unknown: NDArray[np.bool_]
    """[names] true for those that are no tags."""

    @classmethod
    def of(cls, names: Sequence[str], ids: NDArray[np.int32]) -> _Columns:
        taken = np.flatnonzero(ids >= 0)
        some = len(taken) < len(ids)
        return cls(names=names, ids=ids[taken], whole=ids, taken=taken if some else None, unknown=ids == UNKNOWN)


class Names:
    """One source's names."""

    def __init__(self, tags: SourceTags, link: Link) -> None:
        """`tags`: the plant's, under the source's names."""
        self._tags, self.link = tags, link
        self._ids: dict[str, int] = {}
        self._lists: dict[int, _Columns] = {}
        self._plain = bool((tags.scale == 1).all() and (tags.offset == 0).all())

    def ids(self, names: Sequence[str]) -> NDArray[np.int32]:
        """[n] tag ids; UNKNOWN and IGNORED (negative) for names that are no tags, or left out."""
        try:
            return np.fromiter(map(self._ids.__getitem__, names), np.int32, len(names))
        except KeyError:
            self._learn(names)
        return np.fromiter(map(self._ids.__getitem__, names), np.int32, len(names))

    def each(
        self, times: NDArray[np.int64], names: Sequence[str], raw: Float, quality: NDArray[np.uint8]
    ) -> tuple[Frame, int]:
        """Readings [n], each with its name [n]: as `long` of them."""
        ids = self.ids(names)
        for name, readings in Counter(names[i] for i in np.flatnonzero(ids == UNKNOWN).tolist()).items():
            self.link.note_unmapped(name, readings)
        return self._taken(times, ids, raw, quality)

    def long(
        self, times: NDArray[np.int64], at: NDArray[np.integer], names: Sequence[str], raw: Float,
        quality: NDArray[np.uint8],
    ) -> tuple[Frame, int]:  # fmt: skip
        """Readings [n] under `names` [at]: (what can be taken, how many cannot). Left-out names count as neither."""
        ids = self._columns(names).whole[at] if len(names) else np.empty(0, np.int32)
        if len(unknown := at[ids == UNKNOWN]):
            self._note(np.bincount(unknown, minlength=len(names)), names)
        return self._taken(times, ids, raw, quality)

    def _taken(
        self, times: NDArray[np.int64], ids: NDArray[np.int32], raw: Float, quality: NDArray[np.uint8]
    ) -> tuple[Frame, int]:
        values = self._scaled(raw, ids)
        keep = (ids >= 0) & ~self._too_large(values, ids)
        frame = Frame(times=times, tags=ids, values=values, quality=quality)
        rejected = int(np.count_nonzero(~keep & (ids != IGNORED)))
        return (frame if keep.all() else frame.only(keep)), rejected

    def dense(
        self, times: NDArray[np.int64], names: Sequence[str], raw: Float, quality: NDArray[np.uint8]
    ) -> tuple[Readings, int]:
        """Rows [k] of `names` [m] read together: (what can be taken, how many readings cannot)."""
        columns, rejected = self._columns(names), 0
        if columns.taken is not None:
            unknown = Dense(times=times, tags=columns.ids, values=raw, quality=quality).present().sum(axis=0)
            unknown *= columns.unknown
            self._note(unknown, names)
            raw, quality, rejected = raw.take(columns.taken, 1), quality.take(columns.taken, 1), int(unknown.sum())
        values = self._scaled(raw, columns.ids)
        if values.dtype != np.float32 and (large := self._too_large(values, columns.ids)).any():
            values, quality = np.where(large, np.array(np.nan, values.dtype), values), np.where(large, 0, quality)
            rejected += int(large.sum())
        return Dense(times=times, tags=columns.ids, values=values, quality=quality), rejected

    def _learn(self, names: Sequence[str]) -> None:
        known = self._ids
        missing = {name for name in names if name not in known}
        if len(known) + len(missing) > NAMES_KEPT:
            known.clear()
            missing = set(names)
        known.update((name, self._tags.find(name)) for name in missing)

    def _columns(self, names: Sequence[str]) -> _Columns:
        """What the places of dense rows are; a list that comes again is known."""
        known = self._lists.get(id(names))
        if known is None:
            while len(self._lists) >= LISTS_KEPT:
                self._lists.pop(next(iter(self._lists)))
            known = self._lists[id(names)] = _Columns.of(names, self.ids(names))
        return known

    def _scaled(self, raw: Float, ids: NDArray[np.int32]) -> Float:
        """Raw numbers in the tags' units, computed in float64 before they become float32."""
        if self._plain:
            return raw
        return raw * self._tags.scale[ids] + self._tags.offset[ids]

    def _too_large(self, values: Float, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Finite numbers that a float32 tag cannot hold."""
        if values.dtype == np.float32:
            return np.zeros(values.shape, bool)
        return np.asarray(np.isfinite(values) & (np.abs(values) > LARGEST) & ~self._tags.double[ids], bool)

    def _note(self, readings: NDArray[np.integer], names: Sequence[str]) -> None:
        for i in np.flatnonzero(readings).tolist():
            self.link.note_unmapped(names[i], int(readings[i]))
