"""What a source is: something that delivers readings and can be resumed.

Event times, connections and retries are the source's own business; what happens
to a delivery is not. Sources only read: none has a way to write to a plant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.data.frame import Readings
from penstock.speed.link import Link

PART = "#"
"""Between a source's name and that of one of its parts, in the journal."""


async def no_ack() -> None:
    """For sources that keep no account of what was received."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """Readings that become durable together, or not at all."""

    offset: int
    """The source's (or its part's) position after them: where `deliveries` resumes once they are durable."""
    readings: Readings
    rejected: int = 0
    """Readings the source had to refuse while making this delivery."""
    part: str = ""
    """What the offset counts: a partition, a sender; empty where the source has but one."""
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

    @property
    def link(self) -> Link | None:
        """How its connection stands; None where there is none (a file)."""

    def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """What comes after `offsets` (by part, none: from the beginning), in order; ends when the source has ended.

        A live source never ends: it connects again, with growing pauses, for as long as it is asked. Called
        again after an error, it begins anew. Raises SourceError where it cannot be read at all.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where a live source is, and what it asks of its visitors: site.toml."""

    url: str
    """Scheme, host and port, such as ``mqtts://broker:8883``."""
    client: str = "penstock"
    """Who we are: sessions and groups are kept under this name, so no two sites may share it."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Certificates that the other side's must come from; None: the system's."""
    cert_file: Path | None = None
    """Our own certificate, where one is asked for."""
    key_file: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    """Passed on to the client library, such as librdkafka's settings."""


def journal_name(source: str, part: str) -> str:
    """The name under which a part's offset stands in the journal."""
    return f"{source}{PART}{part}" if part else source


def offsets_of(source: str, offsets: Mapping[str, int]) -> dict[str, int]:
    """Offsets by part, from the journal's by name."""
    mine = {name: at for name, at in offsets.items() if name == source or name.startswith(source + PART)}
    return {name[len(source) + 1 :]: at for name, at in mine.items()}
