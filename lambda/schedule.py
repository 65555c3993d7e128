"""`penstock schedule`: plant.toml's cron expressions, kept by APScheduler; a retrain is a process of its own.

    plant.toml ─► turns (models of one expression) ─► APScheduler, one thread ─► penstock retrain ───► runs.sqlite
                                                           ▲  │                  penstock recompute ─► views/batch
                                                           │  └─ every LOOK_S ─► penstock challengers --judge
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
from penstock.errors import ModelError, SiteError
from penstock.retrain_codes import BUSY, FAILED, TOO_FEW

PAUSES_S = (60.0, 120.0, 240.0, 480.0, 960.0)
"""Before a retrain that could not be done is tried again; afterwards it waits for its next time."""
LOOK_S = 600.0
"""Between two looks at whether a challenger's time is over."""
FIRST_LOOK_S = 5.0
"""After a start: what was missed is begun before."""
POLL_S = 0.2
STOP_S = 30.0
TRIALS = "trials"
Told = Callable[[str], None]
Command = Literal["retrain", "recompute"]
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Models that are retrained, or whose views are brought up, at the same times, in one run."""

    cron: str
    models: tuple[str, ...]
    command: Command = "retrain"
    drift: bool = False
    """Only those of them that have drifted."""

    @property
    def words(self) -> tuple[str, ...]:
        """The command's, before the models."""
        return (self.command, "--on-drift") if self.drift else (self.command,)


def turns(plant: Plant) -> list[Turn]:
    """In the order of plant.toml, retrains by time, then on drift, then views; models that ask for none are in none."""
    found: dict[tuple[Command, bool, str], list[str]] = {}
    models = plant.models.items()
    asked: list[tuple[Command, bool, list[tuple[str, str | None]]]] = [
        ("retrain", False, [(name, model.retrain.cron) for name, model in models]),
        ("retrain", True, [(name, None if m.retrain.drift is None else m.retrain.drift.cron) for name, m in models]),
        ("recompute", False, [(name, model.view.cron) for name, model in models]),
    ]
    for command, drift, crons in asked:
        for name, cron in crons:
            if cron is not None:
                found.setdefault((command, drift, cron), []).append(name)
    return [
        Turn(cron=cron, models=tuple(names), command=command, drift=drift)
        for (command, drift, cron), names in found.items()
    ]


def scheduled(plant: Plant) -> bool:
    """Whether there is anything to keep a schedule for."""
    return bool(turns(plant)) or any(model.retrain.live_ns for model in plant.models.values())


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

    `runs`: newest first. Models that were never retrained have missed nothing. A look at drift that was missed is made
    at its next time; a retrain that it began is gone on with. Of views: whether one has passed since the oldest of
    `views` was brought up; a live model without a view has missed it.
    """
    if turn.command == "recompute":
        since = [at for name, at in (views or {}).items() if name in turn.models]
        return any(not at or _passed(turn, at, timezone, now) for at in since)
    if turn.drift:
        begun = (run for run in runs if run.kind == "retrain" and run.reasons and set(run.models) <= set(turn.models))
        newest = next(begun, None)
        return newest is not None and newest.ended is None
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
    """What is due when: `cron`, `command`, `models`, whether on `drift` alone, `next` (UTC, ISO 8601; None: never), and
    whether a time was `missed`."""
    moment = datetime.fromisoformat(now)
    rows = []
    for turn in wanted:
        due = next_time(turn, timezone, moment)
        told = None if due is None else due.astimezone(UTC).isoformat()
        late = missed(turn, runs, timezone, moment, views)
        rows.append(
            {
                "cron": turn.cron, "command": turn.command, "models": list(turn.models), "drift": turn.drift,
                "next": told, "missed": late,
            }
        )  # fmt: skip
    return rows


class Schedule:
    """The turns of one site."""

    def __init__(
        self, folder: Path, plant: Plant, *, pauses_s: Sequence[float] = PAUSES_S, look_s: float = LOOK_S
    ) -> None:
        """Raises SiteError where no model has a cron expression, looks at drift, or has its versions tried live."""
        self.folder, self.plant, self.turns = folder, plant, turns(plant)
        self._pauses_s, self._look_s = pauses_s, look_s
        if not scheduled(plant):
            raise SiteError(
                f"{folder}: no model of plant.toml has retrain.cron, on_drift or live, or view.cron; there is nothing "
                "to schedule"
            )
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
            name = f"{' '.join(turn.words)} {turn.cron}"
            scheduler.add_job(self._due, trigger_of(turn.cron, zone), (turn,), id=name, **late)
        first = now + timedelta(seconds=min(self._look_s, FIRST_LOOK_S))
        scheduler.add_job(self._look, "interval", seconds=self._look_s, id=TRIALS, next_run_time=first)
        scheduler.start()
        return scheduler

    def _due(self, turn: Turn) -> None:
        """One turn: until it is done, or has failed as often as there are pauses."""
        for pause in (*self._pauses_s, 0.0):
            models = self._ready(turn)
            if not models:
                return
            what = ", ".join(models)
            self._doing = f"looks for drift at {what}" if turn.drift else f"{turn.command}s {what}"
            code, said = carried_out(self.folder, [*turn.words, *models], self._stop)
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

    def _look(self) -> None:
        """Judge challengers, where there are some; what could not be done is done at the next look."""
        try:
            if not ModelStore(self.folder / "models").challengers():
                return
        except ModelError as error:
            self._trouble = f"; challengers: {error}"
            return
        code, said = carried_out(self.folder, ["challengers", "--judge"], self._stop)
        self._trouble = "" if code in (0, BUSY) or self._stop.is_set() else f"; challengers could not be judged: {said}"


def _waits(scheduler: BackgroundScheduler) -> str:
    jobs = (job for job in scheduler.get_jobs() if job.id != TRIALS)
    times = [job.next_run_time for job in jobs if job.next_run_time is not None]
    return f"next at {min(times):%Y-%m-%d %H:%M:%S%z}" if times else "nothing is due any more"


def carried_out(folder: Path, words: Sequence[str], stop: threading.Event) -> tuple[int, str]:
    """Run a command to its end, or until `stop`: then it is interrupted. Its exit code and last word."""
    command = [sys.executable, "-m", "penstock", *words, "--site", str(folder), "--json"]
    with tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=wrong)
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
