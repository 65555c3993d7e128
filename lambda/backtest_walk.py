"""A backtest's walk through the product: archive, fits on Dask, Triton, the stream turn by turn, the merge.

    load ─► train ─► deploy ─► stream 168 rows ─► train anew ─► deploy ─► stream 168 rows ─► ... ─► query ─► lanes

What is judged is what the stream said. Workers and Triton stay up from the first turn to the last; a refit is trained
on what lies before its turn, and answers whatever a gate would have found, as the peers' refits do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.backtest_course import Course, Entry, Leg
from penstock.backtest_rows import OURS, Lane
from penstock.batch.field import LENGTH, Answers, Bout, against
from penstock.batch.history import Source
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelError

if TYPE_CHECKING:
    import xarray as xr

    from penstock.site import Site

Told = Callable[[int, int | None, str], None]


@dataclass(slots=True)
class _Tally:
    """Ticks said of all, in one bar: what else is done stands beside it."""

    total: int
    told: Told
    done: int = 0
    before: int = 0

    def say(self, text: str) -> None:
        """What is being done now."""
        self.told(self.done, self.total, text)

    def tick(self, said: int, total: int | None, text: str) -> None:
        """The stream has said so many ticks of its turn."""
        self.done = self.before + said
        self.told(min(self.done, self.total), self.total, text)

    def turned(self, leg: Leg) -> None:
        """A turn has ended."""
        self.before += leg.turn.last - leg.turn.first
        self.done = self.before


def walk(site: Site, course: Course, told: Told) -> None:
    """From an empty site to all that its models say of the course.

    Raises ModelError where a model cannot be trained or deployed, SourceError, ServingError.
    """
    tally = _Tally(total=course.span[1] - course.span[0], told=told)
    site.parts.begin_triton()
    tally.say("import")
    site.load(course.history)
    tally.say(f"train {len(course.models)} models")
    _fitted(site, course.models, course.legs[0])
    for leg in course.legs:
        if leg is not course.legs[0] and course.refitted:
            tally.say("train anew")
            _fitted(site, course.refitted, leg)
        site.stream(course.live, ticks=leg.moments, progress=tally.tick)
        tally.turned(leg)


def _fitted(site: Site, names: Sequence[str], leg: Leg) -> None:
    """Train on what lies before a turn, and let it answer."""
    outcome = site.train_all(names, end=site.readings.grid.time(leg.turn.first))
    if outcome.failed:
        raise ModelError("\n".join(outcome.failed.values()))
    refused = site.deploy_all(names)["refused"]
    if refused:
        raise ModelError("\n".join(refused.values()))


def lanes(site: Site, course: Course, told: Told) -> list[Lane]:
    """What was said, and what the peers say of the same rows. Raises SiteError without scikit-learn."""
    told(0, None, "peers")
    found = against(site.parts.client(), [bout(site, course, entry) for entry in course.entries])
    answers = {model: _answer(site, course, model) for model in course.models}
    return [_lane(site, e, answers[e.model], peers) for e, peers in zip(course.entries, found, strict=True)]


def bout(site: Site, course: Course, entry: Entry) -> Bout:
    """The peers' task: the model's inputs as they are read, nothing prepared."""
    model = replace(site.plant.models[entry.model], prepare={}, window=LENGTH)
    spec, ids = WindowSpec.of(model, site.plant), site.registry.lookup()
    readings, (first, last) = site.readings, course.span
    source = Source(folder=readings.folder, snapshot=readings.head().snapshot, hatch=site.parts.hatch())
    return Bout(
        source=source, spec=spec, ids=tuple(ids[tag.name] for tag in spec.stored), output=entry.output,
        setting=entry.setting, begin=readings.span()[0], first=first, last=last, every=course.every,
    )  # fmt: skip


def _answer(site: Site, course: Course, model: str) -> xr.Dataset:
    """What the merge says of every time predicted for inside the walk."""
    grid, (first, last) = site.readings.grid, course.span
    return site.query(model, start=grid.time(first), end=grid.time(last))


def _lane(site: Site, entry: Entry, answer: xr.Dataset, peers: Answers) -> Lane:
    """Ours and theirs, by the time predicted for."""
    one = answer.sel(target=entry.target)
    times = one["time"].to_numpy().astype("datetime64[ns]")
    grid, spec = site.readings.grid, site.spec(entry.model)
    theirs = pd.to_datetime(grid.time(0) + (peers.ticks + spec.horizon) * grid.period_ns)
    said = {name: _at(pd.Series(v, index=theirs), times) for name, v in peers.said.items()}
    nothing = np.full(len(times), np.nan)

    def column(name: str) -> NDArray[np.float64]:
        return one[name].to_numpy().astype(np.float64) if name in one else nothing

    # low and high enclose what is said corrected, where anything is
    shown = entry.setting.corrected or site.plant.models[entry.model].live.correct is None
    return Lane(
        entry=entry, times=times, truth=column("truth"), said={OURS: column(entry.column)} | said,
        low=column("low") if shown else nothing, high=column("high") if shown else nothing,
        version=one["version"].to_numpy(),
    )  # fmt: skip


def _at(values: pd.Series[Any], times: NDArray[np.datetime64]) -> NDArray[np.float64]:
    return values.reindex(pd.DatetimeIndex(times)).to_numpy(np.float64)
