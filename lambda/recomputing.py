"""`penstock recompute` and `Site.recompute`: which models, which ticks, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from penstock import reconcile
from penstock.data.plants.templates import is_glob, matching
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelNotFound, PenstockError
from penstock.view_changes import complete_until
from penstock.view_runs import Recomputed, again, brought_up, champion_of

if TYPE_CHECKING:
    from penstock.site import Site
    from penstock.spans import Moment

Progress = Callable[[int, int | None, str], None]


def live_like(site: Site, patterns: Sequence[str]) -> list[str]:
    """The live models that are called so or fit a glob, each once, in the plant's order; other names as they are.

    Raises ModelNotFound for a glob that fits none.
    """
    champions = site.models.champions()
    live = [name for name in site.model_names() if name in champions]
    found: list[str] = []
    for pattern in patterns:
        fits = matching(pattern, live) if is_glob(pattern, live) else [pattern]
        if not fits:
            raise ModelNotFound(f"no live model is like {pattern!r}; see: penstock models")
        found += fits
    return list(dict.fromkeys(found))


def recompute(
    site: Site, names: Sequence[str], start: Moment = None, end: Moment = None, *, progress: Progress | None = None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """`Site.recompute` of live models, one after the other; of those that could not be, the reasons."""
    done, failed = [], {}
    for name in names:
        try:
            done.append(site_recompute(site, name, start, end, progress))
        except PenstockError as error:  # one failure stops no other
            failed[name] = str(error)
    return done, failed


def site_recompute(
    site: Site, name: str, start: Moment, end: Moment, progress: Progress | None = None
) -> dict[str, Any]:
    """`Site.recompute`; what was said live up to the seam is reconciled with it afterwards."""
    if start is None and end is None:
        done = brought_up(site, name, progress)
        begin = done.start
    else:
        begin, last = ticks_of(site, name, start, end)
        done = again(site, name, begin, last, progress)
    agreed = reconcile.after_recompute(site, name, done.seam)
    return told(site, done) | {"from": _time(site, begin), "reconciled": agreed}


def told(site: Site, done: Recomputed) -> dict[str, Any]:
    """As a command prints it."""
    return {
        "recomputed": f"{done.model}@{done.version}", "from": _time(site, done.start), "seam": _time(site, done.seam),
        "ticks": done.ticks, "changed": done.changed,
    }  # fmt: skip


def ticks_of(site: Site, name: str, start: Moment, end: Moment) -> tuple[int, int]:
    """[first, last) of a span to be computed again; without an end as far as all is complete.

    An end behind that is taken at its word, up to where the archive has what the journal has. Raises QueryError.
    """
    grid, head = site.readings.grid, site.readings.head()
    spec = WindowSpec.from_json(champion_of(site, name).card["spec"])
    begin, stop = site.span(start, end)
    first, last = grid.tick_of(begin), grid.tick_of(stop)
    if end is None:
        last = min(last, complete_until(head, spec))
    elif spec.wait or site.desk().newest() > head.newest:
        last = min(last, head.newest - spec.wait)
    return first, max(first, last)


def _time(site: Site, tick: int) -> str:
    return str(pd.Timestamp(site.readings.grid.time(tick)))
