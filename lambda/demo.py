"""`penstock demo`: the whole loop on a built-in plant, from nothing, restartable.

Import history, train, deploy, recompute the newest history so that there is a
seam, replay the rest, and measure against persistence on the same rows. Every
step looks at what an earlier, killed run has left and does only the rest.

With a page open the last WATCHED ticks take WATCHED_S: a whole year at full speed
is over before the browser has drawn it, and at one even pace either the year
lasts long or nothing can be followed. So the page is full of rows at once, and
then lives like a plant's, a tick every quarter of a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock import inputs
from penstock.courses import COURSES, Course, course_of
from penstock.data.plants.datasets import gas_turbine_folder
from penstock.data.simulator_station import NAME as SIMULATED
from penstock.data.simulator_station import station_of
from penstock.demo_fleets import fleets, unfit
from penstock.demo_report import counted, report
from penstock.errors import ModelError, SiteError, SourceError
from penstock.screen import ERR, Progress
from penstock.site import Site

WATCHED = 240
"""Ticks that pass slowly when somebody watches."""
WATCHED_S = 60.0
ALONE = 600
"""The last ticks of a fleet, which come one by one where nobody says a rate,"""
ALONE_PER_S = 10.0
"""so many in a second."""


def run(
    plant: str,
    *,
    folder: Path | None = None,
    headless: bool = False,
    ticks: int | None = None,
    rate: float | None = None,
    epochs: int | None = None,
    show: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """The whole demo; its report. `show` is given the site's folder before the replay, and opens its page.

    `plant` is one of COURSES; ``simulated,units=4,faults`` says more of that one. Where gas-turbine's data
    cannot be had, the simulated plant takes its place, and it is told loudly.
    Raises SourceError for an unknown plant, ModelError when a model cannot be trained.
    """
    course = course_of(plant)
    if course is COURSES["gas-turbine"] and (lack := _lacking()) is not None:
        _loud(f"{lack}\nSIMULATED instead of gas-turbine: no real plant is shown.")
        plant, course = SIMULATED, COURSES[SIMULATED]
        folder = folder.with_name(f"{folder.name}-{SIMULATED}") if folder is not None else None
    folder = folder or Path("sites") / plant.split(",")[0]
    known = (folder / "site.json").exists()
    with Site.open(folder) if known else Site.create(folder, plant) as site:
        _same(site, plant)
        if course.simulated:
            _loud(f"SIMULATED plant {site.plant.name}: computed, measured nowhere.")
        _prepare(site, course, headless, epochs)
        brisk = 0
        if show is not None:
            show(site.folder)
            rate, brisk = pace(site, course, ticks, rate)
        elif course.fleet and rate is None:
            rate, brisk = one_by_one(site, ticks)
        with _step(headless, f"replay {course.live}") as bar:
            streamed = site.stream(course.live, rate=rate, ticks=ticks, brisk=brisk, progress=bar)
        return report(site, course, plant, ticks, streamed)


def _prepare(site: Site, course: Course, headless: bool, epochs: int | None) -> None:
    """All that comes before the replay."""
    site.parts.begin_triton()
    with _step(headless, f"import {course.history}") as bar:
        site.load(course.history, progress=bar)
    with _step(headless, "train") as bar:
        _train(site, course, epochs, bar)
    with _step(headless, "deploy on Triton") as bar:
        _deploy(site, course, bar)
    with _step(headless, "recompute the newest history"):
        _recompute(site, course)


def pace(site: Site, course: Course, ticks: int | None, rate: float | None) -> tuple[float, int]:
    """(event seconds per second, rows that go flat out before it): the user's rate, or a last stretch to watch."""
    if rate is not None:
        return rate, 0
    rows, _ = counted(inputs.parts(course.live, site.plant.name), ticks)
    return site.plant.period_ns / 1e9 * WATCHED / WATCHED_S, max(rows - WATCHED, 0)


def one_by_one(site: Site, ticks: int | None) -> tuple[float | None, int]:
    """The same for a fleet: what one tick costs is seen only where each has a request of its own."""
    if ticks is None:
        return None, 0
    return site.plant.period_ns / 1e9 * ALONE_PER_S, max(ticks - ALONE, 0)


def _lacking() -> str | None:
    """Why there are no data of the gas turbine; None where there are."""
    try:
        gas_turbine_folder()
    except SourceError as error:
        return str(error)
    return None


def _same(site: Site, plant: str) -> None:
    """A folder that holds another station must not take this one's readings.

    Raises SiteError where it does.
    """
    wanted = station_of(plant, site.plant.name)
    held = station_of(site.plant.name)
    if (held is None) != (wanted is None) or (wanted and held and wanted[0] != held[0]):
        raise SiteError(f"{site.folder}: is a site of {site.plant.name!r}, not of {plant!r}; give another --site")


def _loud(text: str) -> None:
    ERR.print(text, style="bold red", markup=False, soft_wrap=True)


@contextmanager
def _step(headless: bool, title: str) -> Iterator[Progress | None]:
    if headless:
        yield None
        return
    begun = time.monotonic()
    with Progress(title) as bar:
        yield bar
    ERR.print(f"{title}: {time.monotonic() - begun:.1f} s")


def _train(site: Site, course: Course, epochs: int | None, bar: Progress | None) -> None:
    missing = [name for name in site.plant.models if not site.models.versions(name)]
    if not missing:
        return
    passes = course.epochs if epochs is None else epochs
    lstm = None if passes is None else {"epochs": passes}
    outcome = site.train_all(missing, end=course.seam, lstm=lstm, progress=bar)
    if outcome.failed and not course.fleet:
        raise ModelError("\n".join(outcome.failed.values()))


def _deploy(site: Site, course: Course, bar: Progress | None) -> None:
    live = site.models.champions()
    left = [n for n in site.plant.models if n not in live and not (course.fleet and unfit(site, n))]
    done = site.deploy_all(left, progress=bar)
    if done["refused"]:
        raise ModelError("\n".join(done["refused"].values()))


def _recompute(site: Site, course: Course) -> None:
    """Of a fleet only the first member of each kind: a view per member would take minutes and show no more."""
    live = [name for name in site.plant.models if name in site.models.champions()]
    for name in [members[0] for members in fleets(live).values()] if course.fleet else live:
        view = site.desk().batch(name)
        if view is None or view.seam is None:
            site.recompute(name, course.recompute_from, course.seam)
