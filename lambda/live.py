"""The speed layer of one site, started with what the site knows; and its predictions as they are said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from penstock import inputs, pipeline
from penstock.data.frame import Readings
from penstock.data.importing import importers
from penstock.data.views.speed_view import Spoken
from penstock.data.windows import WindowSpec
from penstock.errors import SourceError
from penstock.import_options import joined
from penstock.loading import reading_options
from penstock.serving.deploy import Deployer
from penstock.speed.clock import SourceClock
from penstock.speed.sources.replay import Replay, together

if TYPE_CHECKING:
    from penstock.site import Site

Progress = Callable[[int, int | None, str], None]


def stream(
    site: Site,
    source: Any,
    *,
    options: Mapping[str, Any],
    rate: float | None,
    ticks: int | None,
    progress: Progress | None,
    on_tick: Callable[[Spoken], None] | None,
) -> dict[str, Any]:
    """`Site.stream`. Raises SourceError where there is nothing to stream."""
    if source is None:
        raise SourceError("nothing to stream: name a file or a data set to replay, such as gas-turbine:2014")
    replayed = replay(site, source, options, rate, ticks)  # a wrong option is told before Triton is started
    endpoints = site.parts.endpoints()
    with Deployer(endpoints) as deployer:
        deployer.ensure([site.models.load(name, v) for name, v in site.models.champions().items()])
    return pipeline.stream(
        site.parts.client(),
        endpoints,
        site.desk(),
        site.folder,
        site.layout,
        site.registry.lookup,
        [(replayed, SourceClock())],
        segment_bytes=site.settings.journal.segment_mb << 20,
        commit_every_s=site.settings.archive.commit_every_s,
        retention=site.retention(),
        expected=[WindowSpec.of(model, site.plant) for model in site.plant.models.values()],
        on_tick=_teller(site, ticks, progress, on_tick),
    )


def replay(site: Site, source: Any, options: Mapping[str, Any], rate: float | None, ticks: int | None) -> Replay:
    """Whatever `Site.load` reads, read with the same options, as a source of the speed layer."""
    if isinstance(source, (str, Path)):
        next(inputs.parts(source), None)  # a name that is nothing is told before Triton and workers are started
    wanted = reading_options(joined(site.folder / "plant.toml", source, options))

    def blocks() -> Iterator[Readings]:
        for _, part in inputs.parts(source, site.plant.name):
            for chunk in importers.read(part, site.plant, site.registry, wanted):
                yield together(chunk.readings)

    name = source if isinstance(source, (str, Path)) else importers.source_name(source).removeprefix("import:")
    return Replay(f"replay:{name}", blocks, rate=rate, moments=ticks)


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


def follow(site: Site, name: str, poll_s: float) -> Iterator[xr.Dataset]:
    """Rows of the speed view as they appear, each once, merged with what truth there is."""
    view = None
    seen: int | None = None
    while True:
        view = view or site.desk().speed()
        tick = view.last_tick() if view else None
        if tick is not None and tick != seen:
            grid, spec_horizon = site.readings.grid, site.plant.model(name).horizon_ns
            first = tick if seen is None else seen + 1
            rows = site.query(name, grid.time(first) + spec_horizon, grid.time(tick + 1) + spec_horizon)
            for i in range(rows.sizes["time"]):
                yield rows.isel(time=slice(i, i + 1))
            seen = tick
        else:
            time.sleep(poll_s)
