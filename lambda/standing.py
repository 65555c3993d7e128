"""How a site stands: newest readings, live predictions, one line per part."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from penstock.beside_rows import beside_rows
from penstock.challenger_rows import challenger_rows
from penstock.challenging import wanted
from penstock.data.frame import BAD, UNCERTAIN
from penstock.data.grid import LATE, PRESENT, STATUS, Cells
from penstock.data.history import cells_now
from penstock.disk_row import disk_row
from penstock.drift import drift_rows
from penstock.reconcile_rows import reconcile_rows
from penstock.serving.external import Heard, heard
from penstock.serving.triton import Triton
from penstock.serving.watch import read_watched
from penstock.sink_rows import sink_rows
from penstock.source_rows import source_rows
from penstock.speed.process import occupied
from penstock.speed.status import read_status
from penstock.up import record
from penstock.up.rows import rows
from penstock.view_rows import view_rows

if TYPE_CHECKING:
    from penstock.site import Site

LOOK_BACK = 4096
"""Ticks in which the newest reading of a tag is looked for."""
STALE_S = 10.0
"""A stream that has not written its status for so long is not running well."""


def newest(site: Site, pattern: str) -> list[dict[str, Any]]:
    """Newest reading within the last LOOK_BACK ticks of each stored tag whose name is, or is like, `pattern`."""
    names = site.registry.like(pattern)
    ids = site.registry.ids(names)
    desk = site.desk()
    last = desk.newest()
    cells = cells_now(desk.archive, desk.journal, desk.layout, desk.grid, ids, last - LOOK_BACK, last)
    units = {name: tag.unit for name, tag in site.plant.tags.items()}
    texts = {name: tag.description for name, tag in site.plant.tags.items() if tag.description}
    return [
        {"id": int(ids[i]), "tag": name, "unit": units.get(name, "retired"), **_reading(cells, i, site)}
        | ({"description": texts[name]} if name in texts else {})
        for i, name in enumerate(names)
    ]


def _reading(cells: Cells, column: int, site: Site) -> dict[str, Any]:
    rows = np.flatnonzero(cells.quality[:, column] & PRESENT)
    if not len(rows):
        return {"value": None, "time": "", "quality": "no reading"}
    row = rows[-1]
    quality = int(cells.quality[row, column])
    status = quality & STATUS
    text = "bad" if status >= BAD else "uncertain" if status >= UNCERTAIN else "good"
    when = pd.Timestamp(site.readings.grid.time(cells.first + int(row)), tz="UTC").tz_convert(site.plant.timezone)
    return {
        "value": float(cells.values[row, column]),
        "time": when.isoformat(),
        "quality": f"{text}, late" if quality & LATE else text,
    }


def status(site: Site) -> list[dict[str, str]]:
    """One row per part: part, state (ok, idle, wrong), what, todo."""
    told, alive = record.read(site.folder), record.alive(site.folder)
    files = [_archive(site), _journal(site), _models(site), disk_row(site, time.time_ns())]
    parts = rows(str(site.folder), site.plant.timezone, told, alive, [_triton(site), _stream(site)])
    stream, now_ns, running = read_status(site.folder / "speed") or {}, time.time_ns(), _running(site)
    sources, sinks = source_rows(stream, now_ns, running), sink_rows(stream, now_ns, running)
    return [
        *files,
        *parts,
        *sources,
        *sinks,
        *beside_rows(stream, running),
        *drift_rows(site.folder, site.models.champions()),
        *view_rows(site),
        *reconcile_rows(site.folder / "views", site.plant.timezone),
        *challenger_rows(site),
    ]


def _row(part: str, state: str, what: str, todo: str = "") -> dict[str, str]:
    return {"part": part, "state": state, "what": what, "todo": todo}


def _archive(site: Site) -> dict[str, str]:
    head = site.readings.head()
    if head.span[0] == head.span[1]:
        return _row("archive", "idle", "empty", "penstock import FILE")
    first, last = (
        pd.Timestamp(site.readings.grid.time(t), tz="UTC").tz_convert(site.plant.timezone).isoformat(sep=" ")
        for t in head.span
    )
    accepted = sum(t.accepted for t in head.totals.values())
    return _row("archive", "ok", f"{accepted:,} readings, {first} to {last}, {len(site.registry)} tags")


def _journal(site: Site) -> dict[str, str]:
    waiting = site.journal.tail - site.readings.head().position
    totals = site.journal.totals().values()
    refused = sum(t.rejected + t.quarantined for t in totals)
    what = (
        f"{site.journal.tail - site.journal.first} sequences kept, {waiting} not archived, {refused} readings refused"
    )
    running = _running(site)
    depth = (read_status(site.folder / "speed") or {}).get("journal_bytes") if running else None
    what += "" if depth is None else f", {depth / 1e6:,.1f} MB"
    todo = "penstock stream (it archives what waits)" if waiting and not running else ""
    return _row("journal", "ok" if not todo else "idle", what, todo)


def _models(site: Site) -> dict[str, str]:
    champions = site.models.champions()
    trained = site.models.names()
    if not trained:
        return _row("models", "idle", f"none trained of {len(site.plant.models)}", "penstock train --all")
    never = [name for name in site.plant.models if name not in champions]
    what = f"live: {', '.join(f'{n}@{v}' for n, v in sorted(champions.items())) or 'none'}"
    return _row("models", "ok" if not never else "idle", what, next_for(never, trained))


def next_for(never: list[str], trained: list[str]) -> str:
    """What brings the models that are not live there; one that has no version must be trained before it is deployed."""
    untrained = [name for name in never if name not in trained]
    ready = [name for name in never if name in trained]
    steps = [("train", untrained), ("deploy", ready)]
    return "; ".join(f"penstock {word} {' '.join(names)}" for word, names in steps if names)


def _triton(site: Site) -> dict[str, str]:
    if site.settings.triton.endpoints:
        return external(heard(site.settings.triton.endpoints), len(wanted(site.models)))
    running = Triton.running(site.folder / "triton")
    if running is None:
        return _row("triton", "idle", "not running; starts with a stream or a deploy")
    what = f"{running.endpoint}, pid {running.server}"
    watched = read_watched(site.folder / "triton", running.endpoint)
    if watched is None:
        return _row("triton", "ok", what)
    if watched.last_ns is not None:
        last = pd.Timestamp(watched.last_ns, tz="UTC").tz_convert(site.plant.timezone)
        what += f", repaired {watched.repaired + watched.restarted} times, last at {last:%Y-%m-%d %H:%M:%S%z}"
    if watched.trouble:
        return _row("triton", "wrong", f"{what}; {watched.trouble}", f"see {site.folder / 'triton' / 'triton.log'}")
    if watched.silent:
        why = "; ".join(watched.silent.values())
        return _row("triton", "wrong", f"{what}; {why}", "it starts again by itself; see triton.log, or undeploy it")
    return _row("triton", "ok", what)


def external(told: Sequence[Heard], champions: int) -> dict[str, str]:
    """The row of servers that site.toml names, of which `champions` models should answer."""
    what = f"external: {'; '.join(_told(each) for each in told)}"
    if any(each.trouble for each in told):
        return _row("triton", "wrong", what, "start it there, or correct triton.endpoints in site.toml")
    lacking = any(each.members < champions for each in told)
    todo = f"of {champions} live models some are not there: penstock stream or deploy brings them" if lacking else ""
    return _row("triton", "wrong" if lacking else "ok", what, todo)


def _told(each: Heard) -> str:
    """What one server said, or why it said nothing."""
    if each.trouble:
        return each.trouble if each.trouble.startswith(each.endpoint) else f"{each.endpoint}: {each.trouble}"
    return f"{each.endpoint}: Triton {each.version}, {each.members} models"


def _running(site: Site) -> bool:
    return occupied(site.folder / "speed")


def _stream(site: Site) -> dict[str, str]:
    told = read_status(site.folder / "speed")
    if told is None:
        return _row("stream", "idle", "never ran", "penstock stream --replay SOURCE")
    report = told["report"]
    what = f"{report['ticks']} ticks, {report['predictions']} predictions, late {report['late']}{_mended(site, told)}"
    if not _running(site):
        ended = "ended" if report["ended"] else "stopped"
        return _row("stream", "idle", f"{ended} after {what}", "" if report["ended"] else "penstock stream goes on")
    age = time.time() - told["written_ns"] / 1e9
    if told["trouble"]:
        return _row("stream", "wrong", f"{what}; {told['trouble']}", "it is tried again by itself")
    if age > STALE_S:
        return _row("stream", "wrong", f"{what}; silent for {age:.0f} s", f"look at process {told['pid']}")
    overdue = told.get("overdue_s", 0.0)  # a service of an older version does not tell
    if overdue > max(STALE_S, 2 * site.plant.period_ns / 1e9) and _silent_s(told) > STALE_S:
        todo = f"look at process {told['pid']}"
        return _row("stream", "wrong", f"{what}; nothing is said, and a tick has waited {overdue:.0f} s", todo)
    if told.get("held"):
        todo = "it reads on by itself; see stream.overload in site.toml"
        return _row("stream", "wrong", f"{what}; sources are held back, since scoring is behind", todo)
    return _row("stream", "ok", f"{what}{_promptly(report)}")


def _silent_s(told: Mapping[str, Any]) -> float:
    """Since a tick was said last in this run, as of its newest status."""
    return float("inf") if told["said_ns"] is None else (told["written_ns"] - told["said_ns"]) / 1e9


def _mended(site: Site, told: Mapping[str, Any]) -> str:
    """What was lost on the way and made anew; nothing where nothing was."""
    report = told["report"]
    counts = (
        ("passed_ticks", "ticks passed over for newer ones (overload)"),
        ("worker_restarts", "Dask workers started again"),
        ("resubmitted", "steps sent again"),
        ("repairs", "times a branch made anew"),
    )
    said = "".join(f", {report[key]} {what}" for key, what in counts if report.get(key))
    if told.get("repaired_ns") is not None:
        last = pd.Timestamp(told["repaired_ns"], tz="UTC").tz_convert(site.plant.timezone)
        said += f", last at {last:%Y-%m-%d %H:%M:%S%z} ({told['repaired']})"
    return said


def _promptly(report: Mapping[str, Any]) -> str:
    """How long after their close ticks were said; nothing where none was measured."""
    said = report.get("said_ms")  # a service of an older version does not tell
    if not said or not said["count"]:
        return ""
    return f"; said {said['p50']:.0f} ms after their close, 99 % within {said['p99']:.0f} ms"
