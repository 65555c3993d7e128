"""What is said beside the predictions of a tick, for the scorer: the fold of `adjusting` over what has become known.

Everything here can be thrown away: the speed view holds what was said and the state behind it, written with the ticks
in one transaction, and the log tells again which truths were known. So a restart goes on where the view ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.adjusting import HOLD, Adjuster, Output, unpacked
from penstock.data.archive import Archive
from penstock.data.journal import Journal
from penstock.data.layout import Layout
from penstock.data.plant import LiveSpec
from penstock.data.scoring import Member
from penstock.data.views.adjusted import COLUMNS, Adjusted
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.window_spec import WindowSpec
from penstock.speed.plan import Resolve
from penstock.speed.truths import Truths, Wanted

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideTold:
    """How the corrections and the interval of one target stand."""

    correction: float | None
    """What is added now; None: it is not corrected."""
    known: int
    """Residuals that this version's correction has seen."""
    slope: float
    """What the correction grows by per unit of the prediction; 0: it is the same for all."""
    share: float | None
    """Of the truths that its interval is to hold; None: it has none."""
    judged: int
    """Truths that came for an interval, since the site has one,"""
    inside: int
    """and those that lay in it."""
    recent: float | None
    """Share of the newest 256 of them that lay inside; None: none has come."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Places:
    """Where the outputs lie in a tick's values."""

    values: Index
    members: Index
    outputs: Index


class Beside:
    """For one scorer's ticks, in order."""

    def __init__(
        self, live: Mapping[str, LiveSpec], site: Path, view: SpeedView, resolve: Resolve, layout: Callable[[], Layout]
    ) -> None:
        """`live`: of the models that want something said. Opens the site's files. Raises JournalError, ArchiveError."""
        self._live, self._view, self._resolve, self._layout = live, view, resolve, layout
        self._journal, self._archive = Journal.open(site / "journal"), Archive.open(site / "archive")
        self._specs: dict[str, WindowSpec] = {}
        self._fold: tuple[Adjuster, Truths] | None = None
        self._newest: Adjuster | None = None
        self._next = -1
        self._places: dict[tuple[tuple[str, int], ...], _Places] = {}

    def close(self) -> None:
        """Let go of the files."""
        self._journal.close()

    def adjust(self, members: Sequence[Member], spoken: Sequence[Spoken]) -> tuple[tuple[Spoken, ...], bytes | None]:
        """The same rows, which go on from those before, with what stands beside them; and the state behind them.

        None: no member wants any. `members`: all that may be among the rows. Raises JournalError, ArchiveError.
        """
        wanted = {m.name: m.spec for m in members if m.name in self._live}
        if not wanted:
            return tuple(spoken), None
        adjuster, truths = self._at(wanted, spoken[0])
        self._fold = None  # what raises here leaves nothing half-folded behind
        learned = truths.known([s.tick for s in spoken], [s.position for s in spoken])
        told = []
        for one, new in zip(spoken, learned, strict=True):
            adjuster.learn(new)
            told.append(self._said(adjuster, one))
        self._fold, self._newest, self._next = (adjuster, truths), adjuster, spoken[-1].tick + 1
        return tuple(told), adjuster.snapshot(taken=_rows(truths.taken, len(adjuster.outputs)))

    def told(self) -> dict[str, dict[str, BesideTold]]:
        """Per model and target, as it stands."""
        adjuster, told = self._newest, dict[str, dict[str, BesideTold]]()
        if adjuster is None:
            return told
        recent = adjuster.intervals.recent()
        for i, out in enumerate(adjuster.outputs):
            if (spec := self._specs.get(out.model)) is not None:
                told.setdefault(out.model, {})[spec.targets[out.column]] = _told(adjuster, i, float(recent[i]))
        return told

    def _said(self, adjuster: Adjuster, spoken: Spoken) -> Spoken:
        places = self._places.get(spoken.members)
        if places is None:
            places = self._places[spoken.members] = _placed(spoken, adjuster)
        if not len(places.outputs):
            return spoken
        values, versions = spoken.values[places.values], spoken.versions[places.members]
        said, whole = adjuster.say(spoken.tick, places.outputs, values, versions), Adjusted.nothing(len(spoken.values))
        for name in COLUMNS:
            getattr(whole, name)[places.values] = getattr(said, name)
        return replace(spoken, adjusted=whole)

    # Where it begins

    def _at(self, wanted: Mapping[str, WindowSpec], first: Spoken) -> tuple[Adjuster, Truths]:
        """The fold as it stands before a tick."""
        covered = all(self._specs.get(name) == spec for name, spec in wanted.items())
        if self._fold is None or first.tick != self._next or not covered:
            self._specs |= wanted
            self._fold = self._begun(first)
        return self._fold

    def _begun(self, first: Spoken) -> tuple[Adjuster, Truths]:
        """From what the view and the log say."""
        self._places.clear()
        targets = [Wanted(spec=s, column=c) for s in self._specs.values() for c in range(len(s.targets))]
        names = [name for name, s in self._specs.items() for _ in s.targets]
        outputs = [_output(name, w, self._live[name]) for name, w in zip(names, targets, strict=True)]
        position = self._view.last_position()
        truths = Truths(
            targets, self._resolve, self._layout(), self._journal, self._archive, tick=first.tick,
            position=first.position - 1 if position is None else position,
        )  # fmt: skip
        kept = self._view.state()
        adjuster = Adjuster([*outputs, *self._asleep(kept, outputs)], self._archive.grid.period_ns)
        if kept is not None:
            taken = _rows(truths.taken, len(adjuster.outputs))
            adjuster.resume(kept[1], taken=taken)
            if kept[0] == first.tick - 1:  # else nobody knows what came meanwhile
                truths.taken = taken[: len(targets)]
        for i, out in enumerate(outputs):
            self._remember(adjuster, i, out, first.tick)
        return adjuster, truths

    def _asleep(self, kept: tuple[int, bytes] | None, outputs: Sequence[Output]) -> list[Output]:
        if kept is None:
            return []
        keys, arrays = unpacked(kept[1])
        awake, every = {out.key for out in outputs}, arrays["every"].tolist()
        found = [(key, n, key.split(" ", 1)[1]) for key, n in zip(keys, every, strict=True) if key not in awake]
        return [Output.asleep(key, n, self._live[model]) for key, n, model in found if model in self._live]

    def _remember(self, adjuster: Adjuster, index: int, out: Output, tick: int) -> None:
        """What was said whose truths may still come."""
        rows = self._view.read(out.model, tick - out.wait - HOLD, tick)
        if out.column >= rows.values.shape[1]:
            return
        said = rows.adjusted or Adjusted.nothing(*rows.values.shape)
        column = Adjusted(**{name: getattr(said, name)[:, out.column] for name in COLUMNS})
        at = np.full(len(rows.ticks), index, np.intp)
        adjuster.remember(rows.ticks, at, rows.values[:, out.column], rows.versions, column)


def _output(name: str, wanted: Wanted, live: LiveSpec) -> Output:
    spec = wanted.spec
    return Output(
        model=name, column=wanted.column, every=spec.every, wait=spec.horizon + wanted.lag, live=live
    )  # fmt: skip


def _placed(spoken: Spoken, adjuster: Adjuster) -> _Places:
    row = {(out.model, out.column): i for i, out in enumerate(adjuster.outputs)}
    at, found = 0, []
    for member, (name, outputs) in enumerate(spoken.members):
        found += [(at + c, member, row[name, c]) for c in range(outputs) if (name, c) in row]
        at += outputs
    columns = np.array(found, np.intp).reshape(-1, 3).T
    return _Places(values=columns[0], members=columns[1], outputs=columns[2])


def _rows(taken: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """With rows for outputs that sleep: of theirs all is taken."""
    more = np.ones((rows - len(taken), taken.shape[1]), np.bool_)
    return np.concatenate([taken, more])


def _told(adjuster: Adjuster, i: int, recent: float) -> BesideTold:
    live, intervals = adjuster.outputs[i].live, adjuster.intervals
    return BesideTold(
        correction=None if live.correct is None else float(adjuster.correction.bias[i]),
        known=int(adjuster.correction.count[i]),
        slope=float(adjuster.correction.slope[i]),
        share=live.interval,
        judged=int(intervals.judged[i]),
        inside=int(intervals.inside[i]),
        recent=None if np.isnan(recent) else recent,
    )
