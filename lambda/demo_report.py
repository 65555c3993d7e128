"""What a demo came to: readings counted at both ends, models beside their rivals on the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from penstock import answers, demo_fleets, inputs
from penstock.courses import Course
from penstock.data.grid import PRESENT
from penstock.data.windows import Reason, WindowSpec
from penstock.serving.pool import Pool
from penstock.site import Site


def report(site: Site, course: Course, plant: str, ticks: int | None, streamed: dict[str, Any]) -> dict[str, Any]:
    """The JSON of `penstock demo`; `ticks`: how many rows of `course.live` were asked for, None: all."""
    sent = sum(_readings(table) for _, table in inputs.parts(course.history, site.plant.name))
    replayed, live = counted(inputs.parts(course.live, site.plant.name), ticks)
    sent += live
    archived = _archived(site)
    first = streamed["first_prediction_ns"]
    with Pool(site.parts.endpoints()) as pool:
        version = pool.server_version()
    speed = site.desk().speed()
    said = speed.count() if speed else (0, 0)
    return {
        "plant": plant,
        "simulated": course.simulated,
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
        **(demo_fleets.told(site, streamed) if course.fleet else {}),
        "models": {name: _scored(site, name, course, v) for name, v in site.models.champions().items()},
        "triton_version": version,
        "workers": len(site.parts.client().scheduler_info()["workers"]),
        "site": str(site.folder),
    }


def counted(parts: Iterator[tuple[str, pa.Table]], ticks: int | None) -> tuple[int, int]:
    """Rows and readings of the first `ticks` rows; None: of all."""
    rows = readings = 0
    for _, table in parts:
        part = table if ticks is None else table.slice(0, ticks - rows)
        rows, readings = rows + part.num_rows, readings + _readings(part)
        if rows == ticks:
            break
    return rows, readings


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
        **({} if course.cycle_ns is None else _errors("previous_cycle_", _cycle(site, name, course, truth)[rows])),
    }


def _cycle(site: Site, name: str, course: Course, truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """[len(truth)]: the target a cycle earlier minus `truth`, whose rows begin at the seam."""
    assert course.cycle_ns is not None
    back = course.cycle_ns // site.plant.period_ns
    earlier = site.query(name, str(pd.Timestamp(course.seam) - pd.Timedelta(course.cycle_ns)))["truth"].values[:, 0]
    return (earlier[: len(truth)] - truth if len(earlier) == len(truth) + back else np.full(len(truth), np.nan)).astype(
        np.float64
    )


def _errors(prefix: str, residuals: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float | None]:
    if not len(residuals):
        return {f"{prefix}mae": None, f"{prefix}rmse": None}
    return {
        f"{prefix}mae": round(float(np.abs(residuals).mean()), 4),
        f"{prefix}rmse": round(float(np.sqrt((residuals**2).mean())), 4),
    }
