"""The bodies of `penstock up` and `penstock down`: in the foreground, in the background, and the end of either."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from penstock import inputs
from penstock.check import check_place
from penstock.data.plant import Plant
from penstock.data.plants.editions import Editions
from penstock.data.plants.plant_file import load_plant
from penstock.errors import SiteError, Unavailable
from penstock.settings import open_settings
from penstock.turns import scheduled
from penstock.up.child import Child
from penstock.up.part import Plan
from penstock.up.processes import Process
from penstock.up.record import PartRecord, Record, State, alive, occupied, read
from penstock.up.supervisor import Supervisor, clear

START_S = 600.0
"""Longest start of all parts in the background."""
STREAM_STOP_S, TRITON_STOP_S = 90.0, 60.0
"""A stream says what is closed, for half a minute at most, and waits as long for the archive."""
SCHEDULE_STOP_S = 60.0
"""A retrain under way is interrupted, and goes on the next time."""
STOP_S = 300.0
"""More than all parts' own deadlines together."""
POLL_S = 0.1

Told = Callable[[PartRecord], None]


def checked(folder: Path, replay: Mapping[str, Any] | None) -> Path:
    """The site's folder, absolute, after every check that needs no process.

    `replay`: ``source``, ``rate``, ``ticks``, ``options``. Raises SiteError, PlantError, SourceError.
    """
    plant = check_place(folder)
    folder = open_settings(folder.resolve()).folder
    if replay is not None:
        next(inputs.parts(replay["source"], plant.name), None)
    if alive(folder):
        raise occupied(folder)
    return folder


def streamed(folder: Path, replay: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the stream part is to read: the replay, else the live sources of plant.toml; None: there is nothing."""
    if replay is None and plant_of(folder).sources:
        return {"source": None, "rate": None, "ticks": None, "options": {}}
    return replay


def plans(folder: Path, replay: Mapping[str, Any] | None, port: int) -> list[Plan]:
    """The parts of a site, in the order in which they end; what site.toml names by address is none of them."""
    replay = streamed(folder, replay)
    settings, site = open_settings(folder).settings, str(folder)
    found = [Plan(name="page", order={"site": site, "port": port}, stop_s=15.0, anew=True)]
    if settings.dask.scheduler is None:
        found.append(Plan(name="dask", order={"site": site, "workers": settings.dask.workers}))
    if not settings.triton.endpoints:
        found.append(Plan(name="triton", order={"site": site}, stop_s=TRITON_STOP_S))
    needs = tuple(plan.name for plan in found if plan.name != "page")
    if scheduled(plant_of(folder)):
        found = [Plan(name="schedule", order={"site": site}, needs=needs, stop_s=SCHEDULE_STOP_S, anew=True), *found]
    if replay is None:
        return found
    return [Plan(name="stream", order={"site": site, **replay}, needs=needs, stop_s=STREAM_STOP_S), *found]


def plant_of(folder: Path) -> Plant:
    """The plant of the site in `folder`, whoever applies another one meanwhile. Raises PlantError, SiteError."""
    with Editions(folder).reading():
        return load_plant(folder / "plant.toml")


def supervised(folder: Path, replay: Mapping[str, Any] | None, port: int, told: Told) -> Supervisor:
    """The supervisor of a site, which goes over to whatever plant is applied."""
    return Supervisor(
        folder, plans(folder, replay, port), told=told, plant=Editions(folder).newest,
        planned=lambda: plans(folder, replay, port),
    )  # fmt: skip


def foreground(
    folder: Path, replay: Mapping[str, Any] | None, port: int, *, told: Told, ready: Callable[[Record], None]
) -> None:
    """All parts under this process, until SIGINT, SIGTERM or SIGHUP. Raises Unavailable, SiteError."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        supervised(folder, replay, port, told).run(stop, ready)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def background(order: Mapping[str, Any], child: Child) -> None:
    """The same in a process that nobody waits for; what happens goes into its log."""
    child.heed()

    def told(part: PartRecord) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S%z')} {line(part)}", flush=True)

    folder = Path(order["site"])
    supervised(folder, order["replay"], order["port"], told).run(child.stop, lambda record: child.say(up=None))


def detach(folder: Path, replay: Mapping[str, Any] | None, port: int) -> Record:
    """Start a supervisor in the background; what it says once all parts are up.

    Raises Unavailable with the reason when a part does not come up.
    """
    log = folder / "logs" / "up.log"
    process = Process({"part": "up", "site": str(folder), "replay": replay, "port": port}, log)
    try:
        _await(process, log)
    except BaseException:  # Ctrl-C too: half a site is not left behind
        process.end(STOP_S)
        raise
    told = read(folder)
    if told is None:
        raise Unavailable(f"{folder}: ended as soon as it was up; see {log}")
    return told


def _await(process: Process, log: Path) -> None:
    until, why = time.monotonic() + START_S, ""
    while time.monotonic() < until:
        code = process.code()
        for words in process.words():
            if "up" in words:
                return
            why = words.get("why", why)
        if code is not None:
            raise Unavailable(why or f"the supervisor ended: {process.last_line()}; see {log}")
        time.sleep(POLL_S)
    raise Unavailable(f"not all parts are up after {START_S:g} s; see {log.parent}")


def down(folder: Path, ended: Callable[[str], None]) -> list[str]:
    """End what is up on the site in `folder`; the parts that ran, in the order in which they ended.

    `ended` hears of each of them at once. Nothing runs: an empty list. Raises SiteError when it takes too long.
    """
    until = time.monotonic() + STOP_S
    running: list[str] = []
    gone: list[str] = []
    if not alive(folder):
        clear(folder)
        return gone
    while alive(folder):
        told = read(folder)
        if told is not None and not running:
            running = [part.name for part in told.parts if part.pid]
            with contextlib.suppress(ProcessLookupError):  # it was ending already
                os.kill(told.pid, signal.SIGTERM)
        left = [part.name for part in told.parts if part.pid] if told is not None else running
        _report([name for name in running if name not in left], gone, ended)
        if time.monotonic() > until:
            pid = told.pid if told else "unknown"
            raise SiteError(f"{folder}: still ends, pid {pid}; with kill -9 {pid} its parts end by themselves")
        time.sleep(POLL_S)
    _report(running, gone, ended)
    return gone


def _report(names: list[str], gone: list[str], ended: Callable[[str], None]) -> None:
    for name in names:
        if name not in gone:
            gone.append(name)
            ended(name)


def line(part: PartRecord) -> str:
    """What happened to a part, in one line."""
    name, where = f"{part.name:<6}", ", ".join(text for text in (part.address, part.what) if text)
    match part.state:
        case State.UP:
            return f"{name}  up: {where}"
        case State.RESTING:
            return f"{name}  {part.why}; it is started again; log: {part.log}"
        case State.ENDED:
            return f"{name}  {part.what}"
        case State.STOPPED:
            return f"{name}  ended {part.what if part.what.startswith('killed') else ''}".rstrip()
        case _:
            return f"{name}  {part.state}"
