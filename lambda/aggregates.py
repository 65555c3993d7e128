"""A site's aggregates: what plant.toml wants kept, and questions about what is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from penstock import pipeline
from penstock.data.aggregating import Wanted
from penstock.data.durations import duration_text, parse_duration
from penstock.data.rules import Rules
from penstock.data.views.aggregates import AggregatesView, Mark
from penstock.errors import QueryError, nearest
from penstock.spans import Moment, span_ns

if TYPE_CHECKING:
    from penstock.site import Site

_NONE = 'plant.toml keeps no aggregates; add a table [aggregates] with periods = ["1min", "1h"]'
MOST_CELLS = 1 << 26
"""Periods times tags of one answer: half a gigabyte of each statistic."""


def wanted_by(site: Site) -> Callable[[], Wanted] | None:
    """What is to be aggregated of the tags as registered at each call; None where plant.toml keeps nothing."""
    spec = site.plant.aggregates
    if not spec.periods_ns:
        return None
    periods = tuple(length // site.plant.period_ns for length in spec.periods_ns)
    rules = Rules.of([site.plant.tags[name] for name in spec.tags], site.plant.period_ns)
    known: dict[int, Wanted] = {}

    def wanted() -> Wanted:
        width = len(site.layout())
        if width not in known:
            bounds = np.full((width, 2), np.nan)
            ids = site.registry.lookup()
            at = np.array([ids[name] for name in spec.tags if name in ids], np.int64)
            there = np.array([name in ids for name in spec.tags], bool)
            bounds[at] = np.stack([rules.low[there], rules.high[there]], axis=1)
            known.clear()
            known[width] = Wanted(periods=periods, bounds=bounds)
        return known[width]

    return wanted


def brought_up(site: Site, progress: pipeline.Progress | None = None) -> dict[str, Any]:
    """Compute what the view of aggregates lacks, on Dask where it is much; up to when it is told then.

    Raises QueryError where plant.toml keeps none, ArchiveBusy where another process has been at it for long.
    """
    wanted = wanted_by(site)
    if wanted is None:
        raise QueryError(_NONE)
    mark = pipeline.aggregate(site.parts.client, site.desk(), wanted(), hatch=site.parts.hatch, progress=progress)
    return {"told": str(pd.Timestamp(site.readings.grid.time(mark.told))), "pending": len(mark.todo)}


def query(site: Site, pattern: str, period: str | None, start: Moment, end: Moment) -> xr.Dataset:
    """`Site.aggregates`."""
    length_ns = _length(site, period)
    view = AggregatesView.open(site.folder / "views" / "aggregates")
    mark = None if view is None else view.mark
    ticks = length_ns // site.plant.period_ns
    if view is None or mark is None or ticks not in mark.periods:
        raise QueryError("no aggregates yet: they are computed as readings are archived, by the next import or stream")
    like = set(site.registry.like(pattern))
    chosen = [name for name in site.plant.aggregates.tags if name in like]
    if not chosen:
        near = nearest(pattern, list(site.plant.aggregates.tags))
        hint = f" Did you mean {near!r}?" if near else ""
        raise QueryError(f"{pattern!r}: no tag of [aggregates] is called so.{hint}")
    first, last = _periods(site, mark, ticks, start, end)
    if (last - first) * len(chosen) > MOST_CELLS:
        raise QueryError(
            f"{last - first:,} periods of {len(chosen):,} tags are too many at once; ask for fewer of either"
        )
    told = view.read(ticks, site.registry.ids(chosen), first, last)
    some = told.count > 0
    grid = site.readings.grid
    times = pd.DatetimeIndex((grid.origin_ns + np.arange(first, last) * length_ns).view("datetime64[ns]"))
    statistics = {
        "count": told.count, "mean": told.mean, "min": np.where(some, told.low, np.nan),
        "max": np.where(some, told.high, np.nan), "std": told.std,
    }  # fmt: skip
    units = [site.plant.tags[name].unit for name in chosen]
    return xr.Dataset(
        {name: (("time", "tag"), values) for name, values in statistics.items()},
        coords={
            "time": ("time", times), "tag": ("tag", np.array(chosen, object)),
            "unit": ("tag", np.array(units, object)),
        },
        attrs={"period": duration_text(length_ns), "position": mark.position, "pending": len(mark.todo)},
    )  # fmt: skip


def _length(site: Site, period: str | None) -> int:
    """ns of a period that plant.toml names; None: of the shortest one."""
    kept = site.plant.aggregates.periods_ns
    if not kept:
        raise QueryError(_NONE)
    if period is None:
        return kept[0]
    try:
        length = parse_duration(period)
    except ValueError as error:
        raise QueryError(str(error)) from None
    if length not in kept:
        raise QueryError(f"period {period!r} is not kept; plant.toml has {', '.join(map(duration_text, kept))}")
    return length


def _periods(site: Site, mark: Mark, ticks: int, start: Moment, end: Moment) -> tuple[int, int]:
    """Periods that begin in [start, end) and are over, first and one past the last."""
    grid, span = site.readings.grid, site.readings.head().span
    newest = max(mark.until // ticks * ticks, span[0] + 1)
    begin, stop = span_ns(
        start, end, timezone=site.plant.timezone,
        first_ns=grid.time(span[0] // ticks * ticks), newest_ns=grid.time(newest),
    )  # fmt: skip
    length = ticks * grid.period_ns
    first, last = -(-(begin - grid.origin_ns) // length), -(-(stop - grid.origin_ns) // length)
    return first, max(first, min(last, mark.until // ticks))
