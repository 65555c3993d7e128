"""When a plant's models are due: turns by plant.toml's cron expressions, and whether one was missed.

Pure but for `brought_up`, which asks the views themselves. Knows nothing of processes and of who keeps the times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from penstock.data.models import ModelStore
from penstock.data.plant import Plant
from penstock.data.plants.cron_text import parse_cron
from penstock.data.runs import Run
from penstock.data.views.batch_view import BatchView

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
