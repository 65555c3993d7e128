"""What comes of challengers: their live residuals beside the champion's, on the same ticks, by the gate's own test.

    speed view: NAME, NAME#challenger ─► ticks that both answered, with truth ─► gate.judge ─► card ─► promote | dismiss

A trial is looked at once, when its time is over and the truths of its last ticks are known: a test that is made again
and again until it says yes says nothing. Only where there are too few rows it is gone on with, four times as long at
most. Everything is found in files; Triton is needed for the move alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock import answers, challenging, deploying
from penstock.batch.gate import Judged, Rows, Verdict, judge, too_few
from penstock.data.challengers import challenger_of
from penstock.data.runs import Outcome
from penstock.data.views.speed_view import SaidRows
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import Refused
from penstock.judging import fair

if TYPE_CHECKING:
    from penstock.site import Site

LONGEST = 4
"""Times as long as it was to last, a trial goes on for want of rows."""

Told = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One challenger, as its card and the speed view tell of it. Ticks are those at which predictions are made."""

    model: str
    version: int
    champion: int | None
    since: int
    until: int
    newest: int
    """The newest tick said; below `since` where none was since."""
    known: int
    """Ticks from a prediction to the earliest tick at which its truth is known."""
    verdict: str | None
    """None: not judged yet."""
    why: str

    @property
    def due(self) -> bool:
        """Whether it is to be judged now."""
        return self.verdict is None and self.newest >= self.until + self.known

    @property
    def over(self) -> bool:
        """Whether it has lasted so long that nothing more is waited for."""
        return self.newest >= self.since + LONGEST * (self.until - self.since) + self.known


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a challenger just now."""

    model: str
    version: int
    verdict: str
    outcome: Outcome
    why: str


def trials(site: Site) -> list[Trial]:
    """Of all challengers, by model; cards and one look at the speed view."""
    found = site.models.challengers()
    if not found:
        return []
    view = site.desk().speed()
    newest = -1
    if view is not None:
        with closing(view):
            last = view.last_tick()
            newest = -1 if last is None else last
    return [_trial(site, name, found[name], newest) for name in sorted(found)]


def figures(site: Site, trial: Trial) -> Judged:
    """What the test says of the rows so far. Raises ModelError where a card or version is gone."""
    rows = _rows(site, trial)
    return too_few(0) if rows is None else judge(rows)


def end_due(site: Site, names: Sequence[str] | None = None, told: Told = lambda step, name: None) -> list[Ended]:
    """Judge the trials that are due, promote or dismiss who was judged, put the record of runs right.

    For whoever holds the lock of retrains. `names`: of these models only. Raises ServingError where a promotion finds
    no Triton: the next call goes on with it.
    """
    challenging.tidy(site)
    ended = []
    for trial in trials(site):
        if names is not None and trial.model not in names:
            continue
        live = _judged(site, trial, told) if trial.due else site.models.card(trial.model, trial.version)["gate"]["live"]
        if live["verdict"] is not None and (outcome := _acted(site, trial, live, told)) is not None:
            ended.append(
                Ended(
                    model=trial.model, version=trial.version, verdict=live["verdict"], outcome=outcome, why=live["why"]
                )
            )
    _close_runs(site)
    return ended


def _trial(site: Site, name: str, version: int, newest: int) -> Trial:
    card = site.models.card(name, version)
    spec, live = WindowSpec.from_json(card["spec"]), (card.get("gate") or {}).get("live") or {}
    return Trial(
        model=name, version=version, champion=site.models.champion(name), since=live.get("since", newest + 1),
        until=live.get("until", newest + 1), newest=newest, known=spec.horizon + max(spec.lags),
        verdict=live.get("verdict"), why=live.get("why", ""),
    )  # fmt: skip


def _judged(site: Site, trial: Trial, told: Told) -> Mapping[str, Any]:
    """The trial's part of the card, with the verdict where there is one now."""
    found, name, version = figures(site, trial), trial.model, trial.version
    gate = dict(site.models.card(name, version)["gate"])
    if found.verdict is Verdict.TOO_FEW and not trial.over:
        live: Mapping[str, Any] = {**gate["live"], "why": f"{found.why}; it goes on"}
    else:
        live = {**gate["live"], **found.to_json(), "champion": trial.champion, "last": trial.newest}
    site.models.note(name, version, "gate", gate | {"live": live})
    told("live", name)
    return live


def _acted(site: Site, trial: Trial, live: Mapping[str, Any], told: Told) -> Outcome | None:
    """Promote or dismiss who was judged; None where a person was asked before, and has not decided."""
    name, version, why = trial.model, trial.version, f"live: {live['why']}"
    if not live["passed"]:
        challenging.dismiss(site, name, why, told)
        return "kept"
    model = site.plant.models.get(name)
    if model is None or model.retrain.promote == "manual":
        return "waiting"
    try:
        deploying.one(
            site, site.models.load(name, version), "promote", why, token=f"trial of {name}@{version}", told=told
        )
    except Refused as refused:
        challenging.dismiss(site, name, f"{why}; refused: {refused}", told)
        return "refused"
    told("promoted", name)
    return "promoted"


def _close_runs(site: Site) -> None:
    """What a run left on trial, and is no more."""
    on_trial = site.models.challengers()
    for run in site.runs.all():
        for name, outcome in run.outcomes.items():
            version = run.done.get(name)
            if outcome == "challenging" and version is not None:
                came = _came(site, name, version, on_trial.get(name) == version)
                if came is not None:
                    site.runs.settled(run.id, name, came)


def _came(site: Site, name: str, version: int, on_trial: bool) -> Outcome | None:
    if not on_trial:
        moves = {row.action for row in site.models.history(name) if row.version == version}
        return "promoted" if moves & {"deploy", "promote", "rollback"} else "kept"
    live = (site.models.card(name, version).get("gate") or {}).get("live") or {}
    return "waiting" if live.get("passed") else None


# The rows


def _rows(site: Site, trial: Trial) -> Rows | None:
    """Ticks that both answered and that neither was trained on, with a good truth; None where there is none."""
    view = site.desk().speed()
    if view is None or trial.champion is None:
        return None
    with closing(view):
        mine = view.read(challenger_of(trial.model), trial.since, trial.newest + 1)
        theirs = view.read(trial.model, trial.since, trial.newest + 1)
    a, b = _answered(mine, trial.version), _answered(theirs, trial.champion)
    ticks, at, beside = np.intersect1d(mine.ticks[a], theirs.ticks[b], assume_unique=True, return_indices=True)
    challenger = site.models.load(trial.model, trial.version)
    cards = [challenger.card, site.models.card(trial.model, trial.champion)]
    specs = [WindowSpec.from_json(card["spec"]) for card in cards]
    truth = answers.truth_at(site.desk(), specs[0], ticks)
    good = np.isfinite(truth).all(axis=1) & fair(specs[0], ticks, cards)
    if not good.any():
        return None
    every = max(spec.every for spec in specs)
    return Rows(
        truth=truth[good], challenger=mine.values[a][at][good], champion=theirs.values[b][beside][good],
        baselines={}, scale=challenger.golden.scale, lags=-(-specs[0].horizon // every),
    )  # fmt: skip


def _answered(rows: SaidRows, version: int) -> NDArray[np.intp]:
    """Where that version gave an answer."""
    there = (rows.versions == version) & (rows.reasons == Reason.OK) & np.isfinite(rows.values).all(axis=1)
    return np.flatnonzero(there)
