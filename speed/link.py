"""How the connection to a source stands, apart from how old its readings are.

A plant that is quiet and a line that is cut look alike in the data; here they do not. Written by the source,
read by the status; both in the service's event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

UNMAPPED = 1000
"""So many names that are no tags are listed; readings of further ones are counted together."""
REST = "(further names)"


class LinkTold(TypedDict):
    """A link as the status says it; times in ns UTC."""

    up: bool
    since_ns: int
    heard_ns: int | None
    connects: int
    garbage: int
    trouble: str | None
    unmapped: dict[str, int]


@dataclass(slots=True, kw_only=True)
class Link:
    """One source's connection."""

    now: Callable[[], int] = time.time_ns
    """Wall clock, ns UTC."""
    up: bool = False
    since_ns: int = 0
    """Since when it is up, or down."""
    heard_ns: int | None = None
    """When anything came last, whatever its event time."""
    connects: int = 0
    """How often it came up; more than once: it was lost meanwhile."""
    garbage: int = 0
    """Messages that could not be read."""
    trouble: str | None = None
    """Why it is down, or what the newest garbage was; None while all is well."""
    unmapped: dict[str, int] = field(default_factory=dict)
    """Readings per name that is no tag of the plant."""

    def __post_init__(self) -> None:
        self.since_ns = self.since_ns or self.now()

    def came_up(self) -> None:
        """Connected."""
        if not self.up:
            self.up, self.since_ns = True, self.now()
            self.connects += 1
        self.trouble = None

    def went_down(self, why: str) -> None:
        """The connection is lost, or could not be made."""
        if self.up:
            self.up, self.since_ns = False, self.now()
        self.trouble = why

    def heard(self) -> None:
        """Something came."""
        self.heard_ns = self.now()

    def refuse(self, why: str) -> None:
        """A message that cannot be read."""
        self.garbage += 1
        self.trouble = why

    def note_unmapped(self, name: str, readings: int) -> None:
        """Readings under a name that is no tag."""
        key = name if name in self.unmapped or len(self.unmapped) < UNMAPPED else REST
        self.unmapped[key] = self.unmapped.get(key, 0) + readings

    def told(self) -> LinkTold:
        """A copy for the status."""
        return LinkTold(
            up=self.up, since_ns=self.since_ns, heard_ns=self.heard_ns, connects=self.connects,
            garbage=self.garbage, trouble=self.trouble, unmapped=dict(self.unmapped),
        )  # fmt: skip
