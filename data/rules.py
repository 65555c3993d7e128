"""What each tag's settings ask of its readings, as columns in ticks.

Built once per layout, so that `quality.assess` is arithmetic on whole blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from penstock.data.plant import Tag


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rules:
    """Per-tag rules; all arrays are [m]. Rules look back by whole ticks."""

    tags: tuple[str, ...]
    """Names of the columns."""
    period_ns: int
    """Length of a tick."""
    low: NDArray[np.float64]
    """Least plausible reading, inclusive, rounded to the tag's dtype; -inf: any."""
    high: NDArray[np.float64]
    """Largest plausible reading, inclusive, rounded to the tag's dtype; inf: any."""
    rate: NDArray[np.float64]
    """Largest believable change per second; inf: any."""
    flat: NDArray[np.int32]
    """Ticks of equal readings from which they are flagged; 0: never."""
    gap: NDArray[np.int32]
    """Ticks over which a good value bridges a fault."""
    hold: NDArray[np.int32]
    """Ticks over which silence means that nothing changed; 0: silence is a fault."""
    stale: NDArray[np.int32]
    """Ticks of silence after which the tag is stale; -1: never."""
    substitute: NDArray[np.float32]
    """Stands in when nothing else does; NaN: none."""
    counter: NDArray[np.bool_]
    """The value is the difference from the previous reading."""
    joined: NDArray[np.int32]
    """Ticks before and behind a tick in which a reading may lie that comes onto it; 0: only the tick's own counts."""
    linear: NDArray[np.bool_]
    """Where joined: the line between two readings, else the nearest one."""

    @classmethod
    def of(cls, tags: Sequence[Tag], period_ns: int) -> Rules:
        """The rules of stored tags on a grid of `period_ns`."""

        def ticks(span_ns: int) -> int:
            return span_ns // period_ns

        heartbeat = [ticks(t.heartbeat_ns) if t.heartbeat_ns is not None else None for t in tags]
        bounds = [t.range or (-np.inf, np.inf) for t in tags]
        gap = [ticks(t.max_gap_ns) for t in tags]
        silent = [g if t.kind == "state" else 0 for g, t in zip(gap, tags, strict=True)]
        return cls(
            tags=tuple(t.name for t in tags),
            period_ns=period_ns,
            low=np.array([_rounded(b[0], t) for b, t in zip(bounds, tags, strict=True)], np.float64),
            high=np.array([_rounded(b[1], t) for b, t in zip(bounds, tags, strict=True)], np.float64),
            rate=np.array([np.inf if t.rate is None else t.rate for t in tags], np.float64),
            flat=np.array([-(-(t.flat_after_ns or 0) // period_ns) for t in tags], np.int32),
            gap=np.array(gap, np.int32),
            hold=np.array([s if h is None else h for h, s in zip(heartbeat, silent, strict=True)], np.int32),
            stale=np.array([-1 if h is None else h for h in heartbeat], np.int32),
            substitute=np.array([np.nan if t.substitute is None else t.substitute for t in tags], np.float32),
            counter=np.array([t.kind == "counter" for t in tags], np.bool_),
            joined=np.array([0 if t.join == "last" else max(1, ticks(t.join_delay_ns)) for t in tags], np.int32),
            linear=np.array([t.join == "linear" for t in tags], np.bool_),
        )

    @property
    def bridge(self) -> NDArray[np.int32]:
        """[m] ticks back to the oldest reading that a value may come from; a counter counts from it."""
        return np.maximum(np.maximum(self.gap, self.hold), self.counter.astype(np.int32))

    @property
    def judged(self) -> NDArray[np.int32]:
        """[m] ticks back that the judgement of a reading needs."""
        return np.maximum(np.isfinite(self.rate).astype(np.int32), np.where(self.flat > 0, self.flat + self.gap, 0))

    @property
    def reaches(self) -> NDArray[np.int32]:
        """[m] ticks needed before a row: judging a reading, putting it onto ticks, then bridging from it."""
        return self.judged + self.joined + np.maximum(self.bridge, self.stale)

    @property
    def reach(self) -> int:
        """Ticks needed before the first row wanted: the most of any tag."""
        return int(self.reaches.max()) if self.tags else 0

    @property
    def wait(self) -> int:
        """Ticks needed behind the last row wanted: the most of any tag."""
        return int(self.joined.max()) if self.tags else 0

    def as_read(self) -> Rules:
        """The same without joins: each reading in its own cell."""
        return replace(self, joined=np.zeros_like(self.joined))

    def only(self, at: NDArray[np.intp]) -> Rules:
        """The rules of the columns `at`."""
        if len(at) == len(self.tags):
            return self
        picked = {f.name: getattr(self, f.name)[at] for f in fields(self) if f.name not in ("tags", "period_ns")}
        return replace(self, tags=tuple(self.tags[i] for i in at.tolist()), **picked)


def _rounded(bound: float, tag: Tag) -> float:
    """The bound as a reading of this tag would store it: 0.1 lies inside [0, 0.1] in float32 too."""
    with np.errstate(over="ignore"):
        return float(np.dtype(tag.dtype).type(bound))
