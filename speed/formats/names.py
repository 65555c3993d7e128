"""The names that a source uses, as tag ids; and raw numbers under them, as readings.

Names that are no tags are counted on the source's link, and their readings are rejected: whoever connects a plant
sees what is not mapped yet. Whole columns at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Dense, Float, Frame, Readings
from penstock.data.importing.source_tags import IGNORED, UNKNOWN, SourceTags
from penstock.speed.link import Link

NAMES_KEPT = 1 << 20
"""Names whose ids are remembered; a source that makes up names may not fill the memory."""
LARGEST = float(np.finfo(np.float32).max)


class Names:
    """One source's names."""

    def __init__(self, tags: SourceTags, link: Link) -> None:
        """`tags`: the plant's, under the source's names."""
        self._tags, self.link = tags, link
        self._ids: dict[str, int] = {}
        self._plain = bool((tags.scale == 1).all() and (tags.offset == 0).all())

    def ids(self, names: Sequence[str]) -> NDArray[np.int32]:
        """[n] tag ids; UNKNOWN and IGNORED (negative) for names that are no tags, or left out."""
        known = self._ids
        missing = {name for name in names if name not in known}
        if len(known) + len(missing) > NAMES_KEPT:
            known.clear()
            missing = set(names)
        known.update((name, self._tags.find(name)) for name in missing)
        return np.fromiter((known[name] for name in names), np.int32, len(names))

    def long(
        self, times: NDArray[np.int64], at: NDArray[np.integer], names: Sequence[str], raw: Float,
        quality: NDArray[np.uint8],
    ) -> tuple[Frame, int]:  # fmt: skip
        """Readings [n] under `names` [at]: (what can be taken, how many cannot). Left-out names count as neither."""
        ids = self.ids(names)[at] if len(names) else np.empty(0, np.int32)
        self._note(np.bincount(at[ids == UNKNOWN], minlength=len(names)), names)
        values = self._scaled(raw, ids)
        keep = (ids >= 0) & ~self._too_large(values, ids)
        frame = Frame(times=times, tags=ids, values=values, quality=quality)
        rejected = int(np.count_nonzero(~keep & (ids != IGNORED)))
        return (frame if keep.all() else frame.only(keep)), rejected

    def dense(
        self, times: NDArray[np.int64], names: Sequence[str], raw: Float, quality: NDArray[np.uint8]
    ) -> tuple[Readings, int]:
        """Rows [k] of `names` [m] read together: (what can be taken, how many readings cannot)."""
        ids = self.ids(names)
        whole = Dense(times=times, tags=ids, values=raw, quality=quality)
        present = whole.present()
        unknown = present.sum(axis=0) * (ids == UNKNOWN)
        self._note(unknown, names)
        if (ids < 0).any():
            whole = whole.columns(np.flatnonzero(ids >= 0))
        values = self._scaled(whole.values, whole.tags)
        large = self._too_large(values, whole.tags)
        if large.any():
            values = np.where(large, np.array(np.nan, values.dtype), values)
        taken = Dense(times=times, tags=whole.tags, values=values, quality=np.where(large, 0, whole.quality))
        return taken, int(unknown.sum() + large.sum())

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
