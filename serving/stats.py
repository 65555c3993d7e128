"""A pool's figures as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from penstock.serving.balance import Station
from penstock.serving.tally import Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStats:
    """One endpoint's figures."""

    used: bool
    """False while it is left alone after failures in a row."""
    in_flight: int
    """Calls that it has not answered yet."""
    asked: int
    """Calls since the pool was made."""
    failed: int
    """Of these, the ones that it did not answer."""
    trouble: str
    """Why it did not answer, of the newest such call; empty once it has answered again."""

    @classmethod
    def of(cls, station: Station) -> Self:
        """As it stands now."""
        return cls(
            used=station.breaker.closed,
            in_flight=station.in_flight,
            asked=station.asked,
            failed=station.failed,
            trouble=station.trouble,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """All of a pool's figures."""

    models: Mapping[str, Counted]
    """By model; its ticks and its calls by name together."""
    endpoints: Mapping[str, EndpointStats]
    """By host:port."""
