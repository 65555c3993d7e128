"""All that a stream service is given, as one value."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distributed import Security

from penstock.data.aggregating import Wanted
from penstock.data.archive.retention import Retention
from penstock.data.grid import Grid
from penstock.data.hatch import Hatch
from penstock.data.layout import Layout
from penstock.data.plant import LiveSpec
from penstock.data.scoring import Scoring
from penstock.data.views.speed_view import Spoken
from penstock.data.window_spec import WindowSpec
from penstock.speed.clock import SourceClock
from penstock.speed.outlet import Outlet
from penstock.speed.overload import ALL, Overload
from penstock.speed.plan import Resolve
from penstock.speed.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a service needs; nothing of it changes while it runs."""

    site: Path
    """The site's folder, as the workers see it too, or those of them that do not need the hatch."""
    grid: Grid
    layout: Callable[[], Layout]
    """The tags' shards as registered now."""
    resolve: Resolve
    sources: Sequence[tuple[Source, SourceClock]]
    scoring: Scoring
    scheduler: str
    """Address of the Dask scheduler."""
    security: Security | None = None
    """What a scheduler at a ``tls://`` address asks for."""
    hatch: Hatch | None = None
    """Where workers that cannot read the site fetch its records; None: all of them read it."""
    connect_s: float = 30.0
    """How long the scheduler may take to answer."""
    expected: Sequence[WindowSpec] = ()
    """Models that may be deployed while it runs: their tags are read from the start."""
    segment_bytes: int = 64 << 20
    """Of the journal's segment files."""
    commit_every_s: float = 1.0
    """Between two commits of the archive."""
    retention: Retention | None = None
    """Which old commits of the archive go; None: none."""
    tidy: Callable[[], None] = lambda: None
    """Looks now and then for what else is old and goes, briefly; behind a commit of the archive."""
    aggregates: Callable[[], Wanted] | None = None
    """What is aggregated of the tags as registered now; None: nothing."""
    now: Callable[[], int] = time.time_ns
    """Wall clock, ns UTC."""
    outlets: Sequence[Outlet] = ()
    """Of the sinks, not started."""
    overload: Overload = ALL
    """What happens when scoring cannot keep up with live sources; a replay of files is held back in any case."""
    live: Mapping[str, LiveSpec] = field(default_factory=dict)
    """Of the models beside whose predictions something is said: corrections, intervals."""
    plant: int = 0
    """Number of the plant that all of this was made from, for the status."""
    superseded: Callable[[], bool] = lambda: False
    """Asked about once a second: whether another plant holds by now, so that it is to stop."""
    on_tick: Callable[[Spoken], None] = lambda spoken: None
    """Told of each tick after it is durable; must not raise."""
