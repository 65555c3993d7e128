"""What a backtest walks through: whose history, which rows, which model says what. Values; nothing is opened here.

The published benchmark's models stand in a plant file of their own, `data/plants/backtests/`; of a user's site it is
one model of its plant.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.batch.protocol import SETTINGS, TURN_ROWS, Setting, Turn
from penstock.data.grid import Grid
from penstock.data.plant import AggregateSpec, CorrectSpec, ModelSpec, Plant
from penstock.data.plants.datasets import gas_turbine
from penstock.errors import ModelNotFound, QueryError, nearest

GAS_TURBINE = "gas-turbine"
FITTED_UNTIL = 2013
"""The published protocol fits on 2011 to 2013."""
TARGETS = ("NOX", "TEY", "CO")
ROLES = {"static": "static", "retrain": "refitted", "live": "refitted", "past-target": "past", "forecast-1": "ahead"}
"""Setting -> second half of the model's name: `retrain` and `live` are said by one model, raw and corrected."""
OWN = {
    "static": Setting(name="static"),
    "live": Setting(name="live", corrected=True),
}
"""Settings of a user's own model: as plant.toml has it, fitted once; and the same, corrected."""
OVER_ANSWERS = 24
"""Answers of the bias that corrects an own model whose plant.toml does not say how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One target under one setting, and who says it."""

    target: str
    setting: Setting
    model: str
    output: int = 0
    """Which of the model's targets."""

    @property
    def column(self) -> str:
        """Of a query's answer."""
        return "corrected" if self.setting.corrected else "prediction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One turn, and how many distinct event times of the live source have come when it ends; None: all of them."""

    turn: Turn
    moments: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """All of a walk."""

    name: str
    entries: tuple[Entry, ...]
    history: Any
    """A source of `Site.load`: all that lies before the first leg."""
    live: Any
    """A source of `Site.stream`."""
    legs: tuple[Leg, ...]
    every: int
    """Ticks of a turn, for those that are refitted."""
    published: bool

    @property
    def models(self) -> tuple[str, ...]:
        """Who has to be trained, once each."""
        return tuple(dict.fromkeys(entry.model for entry in self.entries))

    @property
    def refitted(self) -> tuple[str, ...]:
        """Who is trained anew before every turn."""
        return tuple(dict.fromkeys(entry.model for entry in self.entries if entry.setting.refitted))

    @property
    def span(self) -> tuple[int, int]:
        """Ticks first..last-1 that are walked."""
        return self.legs[0].turn.first, self.legs[-1].turn.last


def backtest_plant(file: str) -> Path:
    """A plant file of the published benchmark: `gas-turbine.toml`, or the settings that it was chosen from."""
    import penstock.data.plants

    return Path(penstock.data.plants.__file__).parent / "backtests" / file


def published(
    years: Sequence[int] | None, targets: Sequence[str], settings: Sequence[str], grid: Grid, *, rows: int | None = None
) -> Course:
    """The gas turbine's benchmark; `years` None: all that the data folder holds behind 2013.

    `rows`: only so many of each year. Raises SourceError where the data or a year cannot be had, QueryError for a word
    that is none.
    """
    targets, settings = words("target", targets, TARGETS), words("setting", settings, tuple(SETTINGS))
    there = [year for year in gas_turbine(years) if year.year > FITTED_UNTIL]
    early = [year for year in years or () if year <= FITTED_UNTIL]
    if early or not there:
        told = f"{early[0]} is fitted on" if early else "the data folder holds none"
        raise QueryError(f"backtest: years behind {FITTED_UNTIL} are walked through, and {told}; add gt_2014.csv")
    legs, moments = [], 0
    for year in there:
        first, count = grid.tick_of(int(year.times[0])), len(year.times) if rows is None else min(rows, len(year.times))
        for at in range(0, count, TURN_ROWS):
            end = min(at + TURN_ROWS, count)
            legs.append(Leg(turn=Turn(first=first + at, last=first + end), moments=moments + end))
        moments += len(year.times)
        if rows is not None:
            break
    entries = tuple(
        Entry(target=t, setting=SETTINGS[s], model=f"{t.lower()}_{ROLES[s]}") for t in targets for s in settings
    )
    return Course(
        name=GAS_TURBINE, entries=entries, history=f"{GAS_TURBINE}:2011-{FITTED_UNTIL}",
        live=f"{GAS_TURBINE}:{there[0].year}-{there[-1].year}", legs=tuple(legs), every=TURN_ROWS, published=True,
    )  # fmt: skip


def words(what: str, asked: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """The words asked for, all where none is; raises QueryError for one that is not allowed."""
    for word in asked:
        if word not in allowed:
            near = nearest(word, list(allowed))
            hint = f" Did you mean {near!r}?" if near else ""
            raise QueryError(f"backtest: no {what} {word!r}; there are: {', '.join(allowed)}.{hint}")
    return tuple(dict.fromkeys(asked)) or tuple(allowed)


def own(plant: Plant, name: str, settings: Sequence[str], span: tuple[int, int], *, history: Any, live: Any) -> Course:
    """One model of a user's plant over the ticks of `span`. Raises QueryError for a setting that there is not."""
    settings = words("setting", settings, tuple(OWN))
    model = known_model(plant, name)
    entries = tuple(
        Entry(target=target, setting=OWN[s], model=name, output=o)
        for o, target in enumerate(model.targets)
        for s in settings
    )
    leg = Leg(turn=Turn(first=span[0], last=span[1]), moments=None)
    return Course(
        name=plant.name, entries=entries, history=history, live=live, legs=(leg,), every=span[1] - span[0],
        published=False,
    )  # fmt: skip


def known_model(plant: Plant, name: str) -> ModelSpec:
    """A model of plant.toml. Raises ModelNotFound."""
    if name not in plant.models:
        near = nearest(name, list(plant.models))
        hint = f" Did you mean {near!r}?" if near else ""
        raise ModelNotFound(f"{name}: no such model in plant.toml; there are: {', '.join(plant.models)}.{hint}")
    return plant.models[name]


def walked_plant(plant: Plant, name: str) -> Plant:
    """The plant of a walk: one model, corrected by a bias over 24 answers where plant.toml does not say by what.

    No sources, and no sinks: a walk must not send a past year's predictions to anybody.
    """
    model = plant.models[name]
    if model.live.correct is None:
        correct = CorrectSpec(by="bias", over_ns=OVER_ANSWERS * model.every_ns)
        model = replace(model, live=replace(model.live, correct=correct))
    return replace(plant, models={name: model}, sources={}, sinks={}, aggregates=AggregateSpec())
