"""The speed layer of one site, started with what the site knows; and its predictions as they are said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from penstock import challenging, inputs, known, pipeline
from penstock.aggregates import wanted_by
from penstock.data.challengers import is_challenger
from penstock.data.frame import Readings
from penstock.data.importing import importers
from penstock.data.views.speed_view import Spoken
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelError, SourceError
from penstock.import_options import joined
from penstock.loading import reading_options
from penstock.serving.tending import begin, tended
from penstock.serving.triton import Triton
from penstock.sinks import outlets
from penstock.sources import live_sources
from penstock.speed.clock import SourceClock
from penstock.speed.outlet import Outlet
from penstock.speed.overload import Overload
from penstock.speed.source import Source
from penstock.speed.sources.replay import Replay, together
from penstock.tidying import tidying

if TYPE_CHECKING:
    from penstock.site import Site

Progress = Callable[[int, int | None, str], None]
Sources = Sequence[tuple[Source, SourceClock]]

log = logging.getLogger(__name__)


def stream(
    site: Site,
    source: Any,
    *,
    options: Mapping[str, Any],
    rate: float | None,
    ticks: int | None,
    brisk: int,
    progress: Progress | None,
    on_tick: Callable[[Spoken], None] | None,
    metrics_port: int | None = None,
) -> dict[str, Any]:
    """`Site.stream`. Raises SourceError where there is nothing to stream."""

    # What is wrong with a source is told before Triton is started.
    def sources() -> Sources:
        if source is not None:
            return [(replay(site, source, options, rate, ticks, brisk), SourceClock())]
        if not (found := live_sources(site)):
            raise SourceError(
                "nothing to stream: plant.toml has no live source; add a table [sources.NAME], "
                "or name a file or a data set to replay, such as gas-turbine:2014"
            )
        return found

    return _run(site, sources, _teller(site, ticks, progress, on_tick), metrics_port)


def run(
    site: Site, sources: Sources, on_tick: Callable[[Spoken], None], metrics_port: int | None = None
) -> dict[str, Any]:
    """Every champion answers what `sources` bring, until they end; the report of the run.

    Servers that somebody else runs are given what they lack, also those that come back meanwhile.
    """
    return _run(site, lambda: sources, on_tick, metrics_port)


def _run(
    site: Site, sources: Callable[[], Sources], on_tick: Callable[[Spoken], None], metrics_port: int | None
) -> dict[str, Any]:
    """Again for each plant that is applied meanwhile, with `sources` made anew: the reports of all of them as one."""
    total: dict[str, Any] = {}
    while True:
        report = _on_one_plant(site, sources(), on_tick, metrics_port)
        total = together_of(total, report) if total else report
        if not report["superseded"]:
            return total
        site.take_over()


def _on_one_plant(
    site: Site, sources: Sources, on_tick: Callable[[Spoken], None], metrics_port: int | None
) -> dict[str, Any]:
    sinks = outlets(site)  # what is wrong with one is told before Triton is started
    endpoints = site.parts.endpoints()
    deploy_champions(site, endpoints)
    ours = Triton.running(site.folder / "triton")  # watched by whoever started it
    others = [e for e in endpoints if ours is None or e != ours.endpoint]
    with tended(others, partial(challenging.wanted, site.models), partial(challenging.load, site.models)):
        return _stream(site, endpoints, sources, sinks, on_tick, metrics_port)


def _stream(
    site: Site,
    endpoints: Sequence[str],
    sources: Sources,
    sinks: Sequence[Outlet],
    on_tick: Callable[[Spoken], None],
    metrics_port: int | None,
) -> dict[str, Any]:
    return pipeline.stream(
        site.parts.client(),
        endpoints,
        site.desk(),
        site.folder,
        site.layout,
        site.registry.lookup,
        sources,
        segment_bytes=site.settings.journal.segment_mb << 20,
        commit_every_s=site.settings.archive.commit_every_s,
        retention=site.retention(),
        tidy=tidying(site),
        aggregates=wanted_by(site),
        expected=[
            *(known.planned(site.plant, site.models, name) for name in site.model_names()),
            *_challengers(site),
        ],
        on_tick=on_tick,
        metrics_port=site.settings.metrics.port if metrics_port is None else metrics_port,
        hatch=site.parts.hatch(),
        outlets=sinks,
        overload=overload_of(site),
        live={name: model.live for name, model in site.plant.models.items() if model.live.wanted},
        plant=site.edition,
        superseded=site.superseded,
    )


SUMMED = (
    "readings", "rejected", "quarantined", "late", "revised", "ticks", "predictions", "failed_requests",
    "worker_restarts", "rereadings", "resubmitted", "repairs", "passed_ticks", "passed",
)  # fmt: skip


def together_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs, one behind the other, as one report; how fast it was and how it ended is the later one's."""
    first = before["first_prediction_ns"]
    first = after["first_prediction_ns"] if first is None else first
    return {**after, "first_prediction_ns": first, **{key: before[key] + after[key] for key in SUMMED}}


def overload_of(site: Site) -> Overload:
    """What site.toml wants of a stream that cannot keep up."""
    said = site.settings.stream
    return Overload(policy=said.overload, behind_ticks=max(1, said.behind_ns // site.plant.period_ns))


def _challengers(site: Site) -> list[WindowSpec]:
    cards = (site.models.card(name, version) for name, version in site.models.challengers().items())
    return [WindowSpec.from_json(card["spec"]) for card in cards]


def deploy_champions(site: Site, endpoints: Sequence[str]) -> int:
    """Make every endpoint that is there hold exactly the site's champions and challengers; how many champions.

    A challenger that is refused, or whose files are gone, stays away: it never costs the champions their start. Raises
    Refused, and ServingError when no endpoint is there.
    """
    champions = [site.models.load(name, version) for name, version in site.models.champions().items()]
    try:
        wanted = challenging.wanted(site.models)
        begin(
            endpoints, [*champions, *(challenging.load(site.models, n, wanted[n]) for n in wanted if is_challenger(n))]
        )
    except ModelError as error:
        if not site.models.challengers():
            raise
        log.warning("goes on without challengers: %s", error)
        begin(endpoints, champions)
    return len(champions)


def replay(
    site: Site, source: Any, options: Mapping[str, Any], rate: float | None, ticks: int | None, brisk: int = 0
) -> Replay:
    """Whatever `Site.load` reads, read with the same options, as a source of the speed layer."""
    if isinstance(source, (str, Path)):
        next(inputs.parts(source), None)  # a name that is nothing is told before Triton and workers are started
    wanted = reading_options(joined(site.folder / "plant.toml", source, options))

    def blocks() -> Iterator[Readings]:
        for _, part in inputs.parts(source, site.plant.name):
            for chunk in importers.read(part, site.plant, site.registry, wanted):
                yield together(chunk.readings)

    name = source if isinstance(source, (str, Path)) else importers.source_name(source).removeprefix("import:")
    return Replay(f"replay:{name}", blocks, rate=rate, moments=ticks, brisk=brisk)


def _teller(
    site: Site, ticks: int | None, progress: Progress | None, on_tick: Callable[[Spoken], None] | None
) -> Callable[[Spoken], None]:
    said = 0

    def tell(spoken: Spoken) -> None:
        nonlocal said
        said += 1
        if progress:
            progress(said, ticks, str(pd.Timestamp(site.readings.grid.time(spoken.tick)))[:16])
        if on_tick:
            on_tick(spoken)

    return tell


def follow(site: Site, name: str, poll_s: float, silent_s: float | None) -> Iterator[xr.Dataset]:
    """Rows of the speed view as they appear, each once, merged with what truth there is."""
    view = None
    seen: int | None = None
    heard = time.monotonic()
    while silent_s is None or time.monotonic() - heard < silent_s:
        view = view or site.desk().speed()
        tick = view.last_tick() if view else None
        if tick is not None and tick != seen:
            grid, spec = site.readings.grid, site.spec(name)
            spec_horizon = spec.horizon * spec.period_ns
            first = tick if seen is None else seen + 1
            rows = site.query(name, grid.time(first) + spec_horizon, grid.time(tick + 1) + spec_horizon)
            for i in range(rows.sizes["time"]):
                yield rows.isel(time=slice(i, i + 1))
            seen, heard = tick, time.monotonic()
        else:
            time.sleep(poll_s)
