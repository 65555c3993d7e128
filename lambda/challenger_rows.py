"""Rows of `penstock status` and of `penstock challengers`: who is scored beside whom, since when, until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from penstock import trials
from penstock.batch.gate import Judged
from penstock.errors import ModelError
from penstock.trials import Trial

if TYPE_CHECKING:
    from penstock.site import Site


def challenger_rows(site: Site) -> list[dict[str, str]]:
    """Of the status: one per challenger."""
    return [_row(site, trial) for trial in trials.trials(site)]


def challenger_table(site: Site) -> list[dict[str, Any]]:
    """Of the command: every challenger with what the test says of its rows so far."""
    return [_told(site, trial, _figures(site, trial)) for trial in trials.trials(site)]


def _row(site: Site, trial: Trial) -> dict[str, str]:
    name, what = trial.model, f"{trial.model}@{trial.version} beside {trial.champion}, {span_told(site, trial)}"
    state, todo = "ok", ""
    if trial.verdict is not None:
        what, state, todo = (
            f"{what}; {trial.verdict}: {trial.why}",
            "idle",
            f"penstock promote {name}, or dismiss {name}",
        )
    elif trial.due:
        state, todo = "idle", "it is due: penstock challengers --judge"
    return {"part": f"challenger {name}", "state": state, "what": what, "todo": todo}


def span_told(site: Site, trial: Trial) -> str:
    """Since when it is scored, and until when, in the plant's zone."""
    first, last = (_when(site, tick) for tick in (trial.since, trial.until))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _when(site: Site, tick: int) -> pd.Timestamp:
    return pd.Timestamp(site.readings.grid.time(tick), tz="UTC").tz_convert(site.plant.timezone)


def _figures(site: Site, trial: Trial) -> Judged | str:
    try:
        return trials.figures(site, trial)
    except ModelError as error:
        return str(error)


def _told(site: Site, trial: Trial, found: Judged | str) -> dict[str, Any]:
    told = {
        "model": trial.model, "version": trial.version, "champion": trial.champion,
        "since": str(_when(site, trial.since)), "until": str(_when(site, trial.until)), "due": trial.due,
        "verdict": trial.verdict,
    }  # fmt: skip
    if isinstance(found, str):
        return told | {"rows": 0, "smaller": None, "p": None, "so_far": found}
    mine = found.to_json()["against"].get("champion", {})
    return told | {
        "rows": mine.get("n", 0), "smaller": mine.get("smaller"), "p": mine.get("p"), "so_far": found.why
    }  # fmt: skip
