"""Messages of several partitions in the order of their times.

Partitions are read at different paces, and after an absence far apart: one may be an hour ahead of another, whose
readings would then all be late. So a message waits here until no partition can bring a much older one.

    P0  ─ 1 2 3 4 5 6 ─►        P1 still has more at the broker, and came as far as 3:
    P1  ─ 1 3 ─ ─ ─ ─ ─►        1 2 3 and what is within `slice_ms` of 3 may go, 6 waits

Pure: time is an argument, and what a message is does not matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

M = TypeVar("M")
P = TypeVar("P", bound=Hashable)

STALLED_S = 5.0
"""A partition that says it has more and brings nothing for so long holds the others no more."""
NEVER = -(2**62)


@dataclass(slots=True, eq=False)
class _Part(Generic[M]):
    heard_s: float
    held: deque[tuple[int, int, M]] = field(default_factory=deque)
    """(time, bytes, message), as the partition has them."""
    newest_ms: int = NEVER
    more: bool = True
    """Whether the broker has more of it than came; until it has said so, it may."""


class Order(Generic[P, M]):
    """What came and was not taken yet."""

    def __init__(self, slice_ms: int, full_bytes: int) -> None:
        """`slice_ms`: messages so close to each other count as of one time. `full_bytes`: so much may wait."""
        self._slice_ms, self._full_bytes = slice_ms, full_bytes
        self._parts: dict[P, _Part[M]] = {}
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether as much waits as may: partitions that are ahead should bring no more."""
        return self._bytes >= self._full_bytes

    def waiting(self) -> set[P]:
        """The partitions whose messages wait."""
        return {name for name, part in self._parts.items() if part.held}

    def add(self, name: P, now_s: float) -> None:
        """A partition that will be read."""
        self._parts.setdefault(name, _Part(heard_s=now_s))

    def put(self, name: P, time_ms: int, size: int, message: M, now_s: float) -> None:
        """A message came."""
        part = self._parts[name]
        part.held.append((time_ms, size, message))
        part.newest_ms, part.heard_s = max(part.newest_ms, time_ms), now_s
        self._bytes += size

    def tell(self, name: P, *, more: bool) -> None:
        """Whether the broker has more of a partition than came."""
        self._parts[name].more = more

    def take(self, now_s: float) -> dict[P, list[M]]:
        """The oldest messages, within one slice of time; none where an older one may still come."""
        heads = [part.held[0][0] for part in self._parts.values() if part.held]
        if not heads:
            return {}
        until = min(min(heads) + self._slice_ms, self._horizon(now_s))
        found = {name: self._popped(part, until) for name, part in self._parts.items()}
        return {name: messages for name, messages in found.items() if messages}

    def _horizon(self, now_s: float) -> int:
        """Nothing older than this comes any more, but for a slice."""
        behind = [p.newest_ms for p in self._parts.values() if p.more and now_s - p.heard_s < STALLED_S]
        return min(behind, default=-NEVER) + self._slice_ms

    def _popped(self, part: _Part[M], until_ms: int) -> list[M]:
        found = []
        while part.held and part.held[0][0] <= until_ms:
            _, size, message = part.held.popleft()
            self._bytes -= size
            found.append(message)
        return found
