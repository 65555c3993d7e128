"""`penstock backtest`: a past year walked through as if it were live, every method judged on the same rows.

The site of a backtest is its own: a folder that is named, or one that is gone afterwards. A user's site is only read.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.backtest_course import Course, backtest_plant, known_model, own, published, walked_plant
from penstock.backtest_rows import Lane, table
from penstock.backtest_walk import Told, lanes, walk
from penstock.data.grid import Grid
from penstock.data.plants.plant_file import load_plant
from penstock.data.windows import WindowSpec
from penstock.errors import QueryError, SiteError
from penstock.site import Site

LEAST_WINDOWS = 64
"""Windows before the walk without which it is not begun: a model would be fitted on nearly nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backtest:
    """What came of it."""

    name: str
    rows: list[dict[str, Any]]
    lanes: list[Lane]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"backtest": self.name, "rows": self.rows, "seconds": round(self.seconds, 1)}

    def plots(self, folder: Path) -> list[str]:
        """One HTML file per target, written into `folder`; their names."""
        from penstock.serving.backtest_chart import backtest_charts

        return backtest_charts(folder, self.rows, {(la.entry.target, la.entry.setting.name): la for la in self.lanes})


def backtest_published(
    years: Sequence[int] | None,
    targets: Sequence[str],
    settings: Sequence[str],
    *,
    folder: Path | None = None,
    rows: int | None = None,
    plant: Path | None = None,
    site_text: str = "",
    told: Told,
) -> Backtest:
    """The gas turbine's published protocol; `folder`: where its site is made and stays.

    `rows`: of the first year only so many. `plant`: a plant.toml instead of the built-in choice. `site_text`: its
    site.toml. Raises SourceError without the data, QueryError for wrong words, SiteError where `folder` is taken.
    """
    begun, file = time.monotonic(), plant or backtest_plant("gas-turbine.toml")
    grid = Grid(period_ns=load_plant(file).period_ns)
    course = published(years, targets, settings, grid, rows=rows)
    with _site(folder, file, site_text) as site:
        return _run(site, course, begun, told)


def backtest_own(
    site: Site,
    name: str,
    start: str,
    end: str | None,
    settings: Sequence[str],
    *,
    folder: Path | None = None,
    site_text: str = "",
    told: Told,
) -> Backtest:
    """One model of `site`, fitted on what lies before `start`, over [start, end) of its own archive.

    Raises ModelNotFound, QueryError where nothing lies in the span or too little before it.
    """
    begun, model = time.monotonic(), known_model(site.plant, name)
    grid, (first, _) = site.readings.grid, site.readings.span()
    begin_ns, stop_ns = site.span(start, end)
    walked = grid.tick_of(begin_ns), grid.tick_of(stop_ns - 1) + 1
    spec = WindowSpec.of(model, site.plant)
    before = (walked[0] - first - spec.depth) // spec.every
    if before < LEAST_WINDOWS:
        raise QueryError(
            f"backtest: {max(before, 0)} windows of {name!r} lie before --from, at least {LEAST_WINDOWS} are needed; "
            "begin later, or import more history"
        )
    plant = walked_plant(site.plant, name)
    with tempfile.TemporaryDirectory(prefix="penstock-backtest-") as scratch:
        history, live = (Path(scratch) / f"{part}.parquet" for part in ("history", "live"))
        site.export(history, end=grid.time(walked[0]), quality=True)
        site.export(live, start=grid.time(walked[0]), end=grid.time(walked[1]), quality=True)
        course = own(plant, name, settings, walked, history=history, live=live)
        with _site(folder, site.folder / "plant.toml", site_text) as made:
            made.plant = plant
            return _run(made, course, begun, told)


def _run(site: Site, course: Course, begun: float, told: Told) -> Backtest:
    walk(site, course, told)
    found = lanes(site, course, told)
    rows = table(found, published=course.published)
    return Backtest(name=course.name, rows=rows, lanes=found, seconds=time.monotonic() - begun)


@contextmanager
def _site(folder: Path | None, plant: Path, site_text: str) -> Iterator[Site]:
    """A new site of that plant. Raises SiteError where the folder is one already."""
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise SiteError(f"{folder}: is not empty; a backtest begins from nothing, so give a new folder to --site")
    with (
        tempfile.TemporaryDirectory(prefix="penstock-backtest-") as scratch,
        Site.create(folder or Path(scratch) / "site", plant, site_text=site_text) as site,
    ):
        yield site
