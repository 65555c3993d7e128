"""How the published benchmark's settings were chosen: `penstock backtest --plant gas-turbine --choose`.

The candidates are models of a plant file; each is fitted on two of the three years of the history and judged on the
third, or walked through each year where it is refitted. No later year is read. The best is the one with the smallest
RMSE, averaged over the years.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.backtest_course import FITTED_UNTIL, GAS_TURBINE, TARGETS, backtest_plant, words
from penstock.batch.choosing import Told, Trial, choose, shared
from penstock.batch.history import Source
from penstock.batch.plan import History, Job, Wish, plan
from penstock.batch.protocol import SETTINGS
from penstock.data.grid import Grid
from penstock.data.plant import HOUR_NS, CorrectSpec, ModelSpec
from penstock.site import Site

YEARS = tuple(range(2011, FITTED_UNTIL + 1))
CORRECTIONS: tuple[CorrectSpec, ...] = (
    *(CorrectSpec(by="ewm", over_ns=hours * HOUR_NS) for hours in (1, 2, 3, 6, 12)),
    *(CorrectSpec(by="bias", over_ns=hours * HOUR_NS) for hours in (1, 2, 3, 6, 24)),
)
"""Tried on what the refitted candidates said."""

SKIP = 4
"""Of the turns of a refitted candidate every so many-th is walked: it tells as much, in a quarter of the time."""

Progress = Callable[[int, int | None, str], None]


def choice(targets: Sequence[str], settings: Sequence[str], told: Progress) -> dict[str, Any]:
    """`choice`: a row per candidate, best first within its target and setting. Raises SourceError, QueryError."""
    targets, settings = words("target", targets, TARGETS), words("setting", settings, tuple(SETTINGS))
    with (
        tempfile.TemporaryDirectory(prefix="penstock-choice-") as folder,
        Site.create(Path(folder) / "site", backtest_plant("gas-turbine-candidates.toml")) as site,
    ):
        told(0, None, "import")
        site.load(f"{GAS_TURBINE}:{YEARS[0]}-{YEARS[-1]}")
        models = {
            name: model
            for name, model in site.plant.models.items()
            if model.targets[0] in targets and set(asked(model)) & set(settings)
        }
        trials = [trial for job in _jobs(site, list(models)) for trial in _trials(site, job)]
        found: list[Told] = []
        for one in choose(site.parts.client(), trials):
            found.append(one)
            told(len(found), len(trials), f"{one.name} {_year(site.readings.grid, one)}")
        rows = _table(site, models, found)
    rows = [row for row in rows if row["setting"] in settings]
    return {"backtest": GAS_TURBINE, "years": [str(year) for year in YEARS], "choice": ranked(rows)}


def _table(site: Site, models: Mapping[str, ModelSpec], found: Sequence[Told]) -> list[dict[str, Any]]:
    """Candidates of one target and setting on the rows that all of them have."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, model in models.items():
        kinds.setdefault((model.targets[0], asked(model)[0]), []).append(name)
    rows = []
    for names in kinds.values():
        rivals = [one for one in found if one.name in names]
        ticks = {year: shared(one for one in rivals if one.year == year) for year in {one.year for one in rivals}}
        for name in names:
            rows += _rows(site, models[name], [one for one in rivals if one.name == name], ticks)
    return rows


def asked(model: ModelSpec) -> tuple[str, ...]:
    """The settings that a candidate stands for."""
    if model.retrain.rows is not None:
        return ("retrain", "live")
    if model.horizon_ns:
        return ("forecast-1",)
    return ("past-target",) if model.past_target else ("static",)


def ranked(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """By target and setting, the smallest mean RMSE first, which is `chosen`."""
    order = sorted(
        rows, key=lambda r: (TARGETS.index(r["target"]), list(SETTINGS).index(r["setting"]), r["rmse"], r["candidate"])
    )
    seen: set[tuple[str, str]] = set()
    for row in order:
        key = row["target"], row["setting"]
        row["chosen"] = key not in seen
        seen.add(key)
    return order


def _jobs(site: Site, names: list[str]) -> list[Job]:
    readings = site.readings
    first, last = readings.span()
    source = Source(folder=readings.folder, snapshot=readings.head().snapshot)
    history = History(source=source, grid=readings.grid, first=first, last=last)
    return plan(
        site.plant, history, site.registry.lookup(), Wish(models=names), home=site.folder, created=str(YEARS[-1])
    )  # fmt: skip


def _trials(site: Site, job: Job) -> list[Trial]:
    spans = [_span(site.readings.grid, year) for year in YEARS]
    return [Trial(job=job, year=span, refitted=job.rows is not None, skip=SKIP) for span in spans]


def _span(grid: Grid, year: int) -> tuple[int, int]:
    begin, end = (grid.tick_of(pd.Timestamp(f"{y}-01-01", tz="UTC").value) for y in (year, year + 1))
    return begin, end


def _year(grid: Grid, told: Told) -> str:
    return str(np.datetime64(grid.time(told.year[0]), "ns"))[:4]


def _rows(
    site: Site, model: ModelSpec, found: Sequence[Told], ticks: Mapping[tuple[int, int], NDArray[np.int64]]
) -> list[dict[str, Any]]:
    """One per setting that the model stands for; for `live` one per correction."""
    raw, *live = asked(model)
    grid = site.readings.grid
    rows = [_row(model, raw, model.name, {_year(grid, f): f.figures(ticks[f.year]) for f in found})]
    for spec in CORRECTIONS if live else ():
        name = f"{model.name}, {spec.by} {spec.over_ns // HOUR_NS}h"
        years = {_year(grid, f): f.corrected(ticks[f.year], spec, site.plant.period_ns) for f in found}
        rows.append(_row(model, "live", name, years))
    return rows


def _row(model: ModelSpec, setting: str, name: str, years: dict[str, dict[str, float]]) -> dict[str, Any]:
    def mean(key: str) -> float:
        return float(np.mean([figures[key] for figures in years.values()]))

    return {
        "target": model.targets[0], "setting": setting, "candidate": name, "mae": mean("mae"), "rmse": mean("rmse"),
        "years": {year: figures["rmse"] for year, figures in years.items()},
    }  # fmt: skip
