"""`penstock schedule`: plant.toml's cron expressions, kept by APScheduler; a retrain is a process of its own.

    plant.toml ─► turns (models of one expression) ─► APScheduler, one thread ─► penstock retrain ───► runs.sqlite
                                                           ▲                     penstock recompute ─► views/batch
                                                           └───────────── what was missed ◄────────────┘

One at a time, as there is one thread. What fell into a time without a schedule is caught up once, at its start: the
record of runs says when the models were retrained last, each batch view when it was brought up last. A process of its
own, as both may be killed at any moment and go on, and what TensorFlow takes is given back.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from penstock.data.models import ModelStore
from penstock.data.plant import Plant
from penstock.data.plants.cron_text import parse_cron
from penstock.data.runs import Run
from penstock.data.views.batch_view import BatchView
from penstock.errors import SiteError
from penstock.retrain_codes import FAILED, TOO_FEW

PAUSES_S = (60.0, 120.0, 240.0, 480.0, 960.0)
"""Before a retrain that could not be done is tried again; afterwards it waits for its next time."""
POLL_S = 0.2
STOP_S = 30.0
Told = Callable[[str], None]
Command = Literal["retrain", "recompute"]
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Models that are retrained, or whose views are brought up, at the same times, in one run."""

    cron: str
    models: tuple[str, ...]
    command: Command = "retrain"


def turns(plant: Plant) -> list[Turn]:
    """In the order of plant.toml, retrains first; models without a cron expression are in none."""
    found: dict[tuple[Command, str], list[str]] = {}
    for name, model in plant.models.items():
        if model.retrain.cron is not None:
            found.setdefault(("retrain", model.retrain.cron), []).append(name)
    for name, model in plant.models.items():
        if model.view.cron is not None:
            found.setdefault(("recompute", model.view.cron), []).append(name)
    return [Turn(cron=cron, models=tuple(models), command=what) for (what, cron), models in found.items()]


def brought_up(folder: Path, plant: Plant) -> Mapping[str, str]:
    """When the batch view of each live model with a `view.cron` was whole last (ISO 8601; empty: never)."""
    champions, found = ModelStore(folder / "models").champions(), {}
    for name, model in plant.models.items():
        if model.view.cron is not None and name in champions:
            view = BatchView.open(folder / "views" / "batch" / name)
            found[name] = "" if view is None or view.made is None else view.made.at
    return found


def trigger_of(text: str, timezone: str) -> BaseTrigger:
    """APScheduler's trigger for a cron expression, in crontab's meaning of weekdays."""
    cron = parse_cron(text)
    common = {
        "minute": _listed(cron.minutes), "hour": _listed(cron.hours), "month": _listed(cron.months),
        "timezone": timezone,
    }  # fmt: skip
    days, weekdays = {"day": _listed(cron.days)}, {"day_of_week": ",".join(_WEEKDAYS[d] for d in cron.weekdays)}
    if cron.either:
        return OrTrigger([CronTrigger(**common, **days), CronTrigger(**common, **weekdays)])
    return CronTrigger(**common, **days, **weekdays)


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def next_time(turn: Turn, timezone: str, after: datetime) -> datetime | None:
    """The first time of a turn behind `after`; None where its expression names no day that there is."""
    found: datetime | None = trigger_of(turn.cron, timezone).get_next_fire_time(None, after + timedelta(microseconds=1))
    return found


def missed(
    turn: Turn, runs: Sequence[Run], timezone: str, now: datetime, views: Mapping[str, str] | None = None
) -> bool:
    """Whether a time of the turn has passed since its models were last retrained together, or a run was interrupted.

    `runs`: newest first. Models that were never retrained have missed nothing. Of views: whether one has passed since
    the oldest of `views` was brought up; a live model without a view has missed it.
    """
    if turn.command == "recompute":
        since = [at for name, at in (views or {}).items() if name in turn.models]
        return any(not at or _passed(turn, at, timezone, now) for at in since)
    last = next((run for run in runs if run.kind == "retrain" and set(turn.models) <= set(run.models)), None)
    if last is None:
        return False
    return last.ended is None or _passed(turn, last.begun, timezone, now)


def _passed(turn: Turn, since: str, timezone: str, now: datetime) -> bool:
    due = next_time(turn, timezone, datetime.fromisoformat(since))
    return due is not None and due <= now


def listing(
    wanted: Sequence[Turn], runs: Sequence[Run], timezone: str, now: str, views: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """What is due when: `cron`, `command`, `models`, `next` (UTC, ISO 8601; None: never), and whether a time was
    `missed`."""
    moment = datetime.fromisoformat(now)
    rows = []
    for turn in wanted:
        due = next_time(turn, timezone, moment)
        told = None if due is None else due.astimezone(UTC).isoformat()
        late = missed(turn, runs, timezone, moment, views)
        rows.append(
            {"cron": turn.cron, "command": turn.command, "models": list(turn.models), "next": told, "missed": late}
        )
    return rows


class Schedule:
    """The turns of one site."""

    def __init__(self, folder: Path, plant: Plant, *, pauses_s: Sequence[float] = PAUSES_S) -> None:
        """Raises SiteError where no model has a cron expression."""
        self.folder, self.plant, self.turns, self._pauses_s = folder, plant, turns(plant), pauses_s
        if not self.turns:
            raise SiteError(f"{folder}: no model of plant.toml has retrain.cron or view.cron; nothing to schedule")
        self._stop = threading.Event()
        self._doing, self._trouble = "", ""

    def run(self, runs: Sequence[Run], told: Told, stop: threading.Event) -> None:
        """Until `stop` is set; `told` hears what is under way, or when the next turn is.

        `runs`: all so far, newest first.
        """
        self._stop = stop
        scheduler = self._begun(runs, datetime.now(UTC))
        before = ""
        try:
            while not stop.is_set():
                what = self._doing or f"{_waits(scheduler)}{self._trouble}"
                if what != before:
                    told(what)
                before = what
                stop.wait(POLL_S)
        finally:
            stop.set()
            scheduler.shutdown(wait=True)

    def _begun(self, runs: Sequence[Run], now: datetime) -> BackgroundScheduler:
        zone, views = self.plant.timezone, brought_up(self.folder, self.plant)
        scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=zone,
        )
        for turn in self.turns:
            late = {"next_run_time": now} if missed(turn, runs, zone, now, views) else {}
            name = f"{turn.command} {turn.cron}"
            scheduler.add_job(self._due, trigger_of(turn.cron, zone), (turn,), id=name, **late)
        scheduler.start()
        return scheduler

    def _due(self, turn: Turn) -> None:
        """One turn: until it is done, or has failed as often as there are pauses."""
        for pause in (*self._pauses_s, 0.0):
            models = self._ready(turn)
            if not models:
                return
            what = ", ".join(models)
            self._doing = f"{turn.command}s {what}"
            code, said = carried_out(self.folder, turn.command, models, self._stop)
            self._doing = self._trouble = ""
            if self._stop.is_set() or code in (0, TOO_FEW, FAILED):
                return
            done = "retrained" if turn.command == "retrain" else "recomputed"
            self._trouble = f"; {what} could not be {done}: {said}"
            if self._stop.wait(pause):
                return

    def _ready(self, turn: Turn) -> tuple[str, ...]:
        """Its models; of views those that are live: another one has nothing to say yet."""
        if turn.command == "retrain":
            return turn.models
        champions = ModelStore(self.folder / "models").champions()
        return tuple(name for name in turn.models if name in champions)


def _waits(scheduler: BackgroundScheduler) -> str:
    times = [job.next_run_time for job in scheduler.get_jobs() if job.next_run_time is not None]
    return f"next at {min(times):%Y-%m-%d %H:%M:%S%z}" if times else "nothing is due any more"


def carried_out(folder: Path, command: Command, models: Sequence[str], stop: threading.Event) -> tuple[int, str]:
    """Run `penstock COMMAND` to its end, or until `stop`: then it is interrupted. Its exit code and last word."""
    words = [sys.executable, "-m", "penstock", command, *models, "--site", str(folder), "--json"]
    with tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=wrong)
        while process.poll() is None:
            if stop.wait(POLL_S):
                _end(process)
        wrong.seek(0)
        said = wrong.read().strip()
    if said:
        print(said, file=sys.stderr, flush=True)
    return process.returncode, said.splitlines()[-1] if said else f"exit code {process.returncode}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """In order if it can: its workers and Triton end with it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
