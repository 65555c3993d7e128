"""What was found out about an array, remembered for the next time the same array comes.

A dense plant sends its tags again and again: the ids of a million tags are one array object, frame after frame, and
where they lie among the shards need be found once. Arrays asked about must never be changed. Knows nothing of tags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

T = TypeVar("T")
KEPT = 8
"""Newest answers that are kept, and the arrays with them."""


class Remembered(Generic[T]):
    """Answers by the identity of the arrays that they are about. Threads may share it: at worst one finds out twice."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._known: dict[tuple[int, ...], tuple[tuple[NDArray[Any], ...], T]] = {}

    def of(self, find: Callable[[], T], *arrays: NDArray[Any]) -> T:
        """What `find` said about these very arrays, or says now."""
        key = tuple(map(id, arrays))
        known = self._known.get(key)
        if known is not None:  # the arrays are held here, so their ids are still theirs
            return known[1]
        found = find()
        while len(self._known) >= self._kept:
            self._known.pop(next(iter(self._known), key), None)
        self._known[key] = (arrays, found)
        return found
