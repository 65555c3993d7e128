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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from penstock.data.models import ModelStore
from penstock.data.plant import Plant
from penstock.data.runs import Run
from penstock.errors import ModelError, SiteError
from penstock.retrain_codes import BUSY, FAILED, TOO_FEW
from penstock.turns import Turn, brought_up, missed, scheduled, trigger_of, turns

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
