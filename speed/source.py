"""What a source is: something that delivers readings and can be resumed.

Event times, connections and retries are the source's own business; what happens
to a delivery is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.data.frame import Readings


async def no_ack() -> None:
    """For sources that keep no account of what was received."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """Readings that become durable together, or not at all."""

    offset: int
    """The source's position after them: where `deliveries` resumes once they are durable."""
    readings: Readings
    rejected: int = 0
    """Readings the source had to refuse while making this delivery."""
    ack: Callable[[], Awaitable[None]] = no_ack
    """Called after the readings are durable, never before."""


class Source(Protocol):
    """A place that readings come from."""

    @property
    def name(self) -> str:
        """Stands in the journal; offsets are kept under it."""

    @property
    def patient(self) -> bool:
        """True where it may be held back without loss (a file); a live plant may not."""

    def deliveries(self, resume_at: int) -> AsyncIterator[Delivery]:
        """What comes after offset `resume_at`, in order; ends when the source has ended.

        Raises SourceError where it cannot be read at all.
        """
