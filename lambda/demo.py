"""`penstock demo`: the whole loop on a built-in plant, from nothing, restartable.

Import history, train, deploy, recompute the newest history so that there is a
seam, replay the rest, and measure against persistence on the same rows. Every
step looks at what an earlier, killed run has left and does only the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.courses import COURSES, Course
from penstock.data.plants.datasets import gas_turbine_folder
from penstock.data.simulator_station import NAME as SIMULATED
from penstock.data.simulator_station import station_of
from penstock.demo_report import report
from penstock.errors import ModelError, SiteError, SourceError, nearest
from penstock.screen import ERR, Progress
from penstock.site import Site


def run(
    plant: str,
    *,
    folder: Path | None = None,
    headless: bool = False,
    ticks: int | None = None,
    rate: float | None = None,
    epochs: int | None = None,
) -> dict[str, Any]:
    """The whole demo; its report.

    `plant` is one of COURSES; ``simulated,units=4,faults`` says more of that one. Where gas-turbine's data
    cannot be had, the simulated plant takes its place, and it is told loudly.
    Raises SourceError for an unknown plant, ModelError when a model cannot be trained.
    """
    course = _course(plant)
    if course is COURSES["gas-turbine"] and (lack := _lacking()) is not None:
        ERR.print(
            f"{lack}\nSIMULATED instead of gas-turbine: no real plant is shown.",
            style="bold red",
            markup=False,
            soft_wrap=True,
        )
        plant, course = SIMULATED, COURSES[SIMULATED]
        folder = folder.with_name(f"{folder.name}-{SIMULATED}") if folder is not None else None
    folder = folder or Path("sites") / plant.split(",")[0]
    known = (folder / "site.json").exists()
    with Site.open(folder) if known else Site.create(folder, plant) as site:
        _same(site, plant)
        if course is COURSES[SIMULATED]:
            ERR.print(
                f"SIMULATED plant {site.plant.name}: computed, measured nowhere.",
                style="bold red",
                markup=False,
                soft_wrap=True,
            )
        site.parts.begin_triton()
        with _step(headless, f"import {course.history}") as bar:
            site.load(course.history, progress=bar)
        with _step(headless, "train") as bar:
            _train(site, course, epochs, bar)
        with _step(headless, "deploy on Triton"):
            _deploy(site)
        with _step(headless, "recompute the newest history"):
            _recompute(site, course)
        with _step(headless, f"replay {course.live}") as bar:
            streamed = site.stream(course.live, rate=rate, ticks=ticks, progress=bar)
        return report(site, course, plant, ticks, streamed)


def _course(plant: str) -> Course:
    name = plant if station_of(plant) is None else SIMULATED
    if name not in COURSES:
        near = nearest(plant, list(COURSES))
        hint = f" Did you mean {near!r}?" if near else ""
        raise SourceError(f"no demo of {plant!r}; there are: {', '.join(COURSES)}.{hint}")
    return COURSES[name]


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
    outcome = site.train_all(
        missing, end=course.seam, lstm={"epochs": epochs} if epochs is not None else None, progress=bar
    )
    if outcome.failed:
        raise ModelError("\n".join(outcome.failed.values()))


def _deploy(site: Site) -> None:
    live = site.models.champions()
    for name in site.plant.models:
        if name not in live:
            site.deploy(name)


def _recompute(site: Site, course: Course) -> None:
    for name in site.plant.models:
        view = site.desk().batch(name)
        if view is None or view.seam is None:
            site.recompute(name, course.recompute_from, course.seam)
