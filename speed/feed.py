"""What a sink is fed from: something durable that is read from a cursor on, and gives the same bytes again.

It knows neither the sink nor when it is asked: `outlet.py` asks, sends, and asks for more once that is acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from penstock.speed.sink import Message

Content = Literal["predictions", "aggregates"]


class Feed(Protocol):
    """Of one sink; after `open` it is used from one thread, `ring` from any."""

    content: Content
    """What its messages tell of."""
    poll_s: float
    """It is looked at so often even when nobody rings."""
    skipped: int
    """Ticks of this run that were not sent since newer ones were there."""

    def open(self) -> None:
        """Begin behind the cursor; a new sink begins with what comes from now on. Raises SiteError, ArchiveError."""

    def ring(self, tick: int) -> None:
        """There is more to send, up to `tick`."""

    def behind(self) -> int:
        """Ticks that could be sent and are not acknowledged."""

    def pieces(self) -> Iterator[Sequence[Message]]:
        """What comes next, some of it; to ask for the next piece says that the one before is acknowledged.

        Nothing comes where all is sent. Raises SiteError, ArchiveError.
        """

    def keep(self) -> None:
        """Make the cursor durable. Raises SiteError."""

    def close(self) -> None:
        """Let go of what is read."""
