"""What a sink is: something that takes messages and says when it has them for good.

It knows nothing of models, of what was sent before, or of what comes next: whoever asks it (`outlet.py`) asks
again until it has answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.speed.link import Link


@dataclass(frozen=True, slots=True)
class Message:
    """One of them."""

    topic: str
    payload: bytes


class Sink(Protocol):
    """A place that predictions go to. Its methods block, and are called from one thread, `close` from any."""

    @property
    def name(self) -> str:
        """As in plant.toml."""

    @property
    def link(self) -> Link:
        """How its connection stands."""

    def connect(self) -> None:
        """Be connected, if it is not. Raises SinkError."""

    def send(self, messages: Sequence[Message]) -> None:
        """Returns when the other side has acknowledged all. Raises SinkError: any part of them may have come."""

    def close(self) -> None:
        """Let go of the connection; what is under way raises."""
