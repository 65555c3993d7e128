"""`penstock demo`: the whole loop on a built-in plant's recorded data, from nothing, restartable.

Import history, train, deploy, recompute the newest history so that there is a
seam, replay the rest, and measure against persistence on the same rows. Every
step looks at what an earlier, killed run has left and does only the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from penstock import answers, inputs
from penstock.data.grid import PRESENT
from penstock.data.windows import Reason, WindowSpec
from penstock.errors import ModelError, SourceError, nearest
from penstock.screen import ERR, Progress
from penstock.serving.pool import Pool
from penstock.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a demo of one plant imports, trains on and replays."""

    history: str
    live: str
    recompute_from: str
    """Begin of the batch view."""
    seam: str
    """Its end, and the end of the training span: the first moment of `live`."""


COURSES = {
    "gas-turbine": Course(
        history="gas-turbine:2011-2013", live="gas-turbine:2014", recompute_from="2013-09-01", seam="2014-01-01"
    ),
}


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

    Raises SourceError for an unknown plant, ModelError when a model cannot be trained.
    """
    if plant not in COURSES:
        near = nearest(plant, list(COURSES))
        hint = f" Did you mean {near!r}?" if near else ""
        raise SourceError(f"no demo of {plant!r}; there are: {', '.join(COURSES)}.{hint}")
    course = COURSES[plant]
    folder = folder or Path("sites") / plant
    known = (folder / "site.json").exists()
    with Site.open(folder) if known else Site.create(folder, plant) as site:
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
        return _report(site, course, plant, ticks, streamed)


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


def _report(site: Site, course: Course, plant: str, ticks: int | None, streamed: dict[str, Any]) -> dict[str, Any]:
    sent = sum(_readings(table) for _, table in inputs.parts(course.history))
    live = [table.slice(0, ticks) for _, table in inputs.parts(course.live)]
    replayed = sum(table.num_rows for table in live)
    sent += sum(_readings(table) for table in live)
    archived = _archived(site)
    first = streamed["first_prediction_ns"]
    with Pool(site.parts.endpoints()) as pool:
        version = pool.server_version()
    speed = site.desk().speed()
    said = speed.count() if speed else (0, 0)
    return {
        "plant": plant,
        "ticks": said[0],
        "rows_replayed": replayed,
        "readings_sent": sent,
        "readings_archived": archived,
        "readings_lost": sent - archived,
        "predictions": said[1],
        "failed_requests": streamed["failed_requests"],
        "late": streamed["late"],
        "seconds_to_first_prediction": None
        if first is None
        else round(first / 1e9 - psutil.Process().create_time(), 1),
        "models": {name: _scored(site, name, course, v) for name, v in site.models.champions().items()},
        "triton_version": version,
        "workers": len(site.parts.client().scheduler_info()["workers"]),
        "site": str(site.folder),
    }


def _readings(table: pa.Table) -> int:
    """Cells of the source that hold a value."""
    columns = [c.to_numpy() for name, c in zip(table.column_names, table.columns, strict=True) if name != "time"]
    return int(sum(np.count_nonzero(~np.isnan(c)) for c in columns))


def _archived(site: Site) -> int:
    """Cells of the archive that hold a reading."""
    first, last = site.readings.span()
    tags = np.arange(len(site.registry), dtype=np.int32)
    return int(np.count_nonzero(site.readings.read(tags, first, last).quality & PRESENT))


def _scored(site: Site, name: str, course: Course, version: int) -> dict[str, Any]:
    """Live errors beside persistence's, only on rows where both have an answer and the truth is good."""
    answer = site.query(name, course.seam)
    spec = WindowSpec.of(site.plant.model(name), site.plant)
    times = answer["time"].values.astype("datetime64[ns]").astype(np.int64)
    made = site.readings.grid.tick(times) - spec.horizon
    known = answers.persistence(site.desk(), spec, made)[:, 0]
    truth, said = answer["truth"].values[:, 0], answer["prediction"].values[:, 0]
    rows = (answer["reason"].values == Reason.OK.name) & np.isfinite(truth) & np.isfinite(known) & np.isfinite(said)
    ours, theirs = (said - truth)[rows].astype(np.float64), (known - truth)[rows].astype(np.float64)
    return {
        "version": version,
        "n": int(rows.sum()),
        **_errors("", ours),
        **_errors("persistence_", theirs),
    }


def _errors(prefix: str, residuals: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float | None]:
    if not len(residuals):
        return {f"{prefix}mae": None, f"{prefix}rmse": None}
    return {
        f"{prefix}mae": round(float(np.abs(residuals).mean()), 4),
        f"{prefix}rmse": round(float(np.sqrt((residuals**2).mean())), 4),
    }
