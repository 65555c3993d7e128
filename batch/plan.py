"""What to train: plant + archive span + wishes -> jobs. Pure; nothing is opened, nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from penstock.batch.history import Shelf, Source
from penstock.data.grid import Grid
from penstock.data.plant import JUDGE_SHARE, LstmSpec, ModelSpec, Plant, RetrainSpec
from penstock.data.rules import Rules
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelError, nearest

SHELF_BYTES = 256 << 20
"""What a worker keeps of the archive between two jobs."""
CELL_BYTES = 14
"""Value, quality and offset of a cell: 10, or 14 where a value is float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The archive as a job needs it: where it is, and which state of it."""

    source: Source
    """Which state of which archive: the lineage of the training data."""
    grid: Grid
    first: int
    last: int
    """Ticks first..last-1 hold readings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """A version of the same model to go on from."""

    version: int
    spec: WindowSpec
    keras: bytes = field(repr=False)
    """Its `.keras` file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model to train; a value that any worker which sees the archive can run."""

    name: str
    history: History
    first: int
    last: int
    """Windows end at ticks first..last-1."""
    spec: WindowSpec
    ids: tuple[int, ...]
    """Registry ids of `spec.stored`, in its order."""
    lstm: LstmSpec
    network: str | None = None
    """Absolute ``file.py:function`` instead of the LSTM."""
    isolate: bool = False
    """Served in a process of its own."""
    created: str
    """When the plan was made, UTC, ISO 8601."""
    run: str | None = None
    """The run that it belongs to: the card names it."""
    shelf: Shelf | None = None
    """What is read together with other jobs' tags; None: it reads its own."""
    rows: int | None = None
    """At most so many good windows, the newest ones."""
    left_out: tuple[tuple[int, int], ...] = ()
    """Windows that touch ticks [begin, end) of these do not count."""
    warm: Warm | None = None
    """What the weights begin with; None: with what the seed gives."""

    @property
    def cost(self) -> int:
        """Multiplications of one epoch, roughly: what to begin with when there are many jobs."""
        u, features = self.lstm.units, len(self.spec.features)
        per_row = 4 * u * (features + u) + (self.lstm.layers - 1) * 8 * u * u
        return (self.last - self.first) // self.spec.every * self.spec.length * per_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the caller asks beyond plant.toml; None leaves the plant's word."""

    models: Sequence[str] | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    """Training span [start, end), UTC."""
    lstm: Mapping[str, Any] | None = None
    """Fields of `LstmSpec` to override, e.g. ``{"units": 96}``."""
    run: str | None = None
    """The run that the jobs belong to."""
    held_out: bool = False
    """The newest part of the history is kept for the gate: see `judged_ticks`."""
    warm: Mapping[str, Warm] = field(default_factory=dict)
    """By model: what plant.toml's `retrain.warm` goes on from."""


def plan(plant: Plant, history: History, ids: Mapping[str, int], wish: Wish, *, home: Path, created: str) -> list[Job]:
    """The jobs, dearest first, so that the last worker does not wait for the longest.

    `ids` maps tag names to registry ids; `home` is the folder that `network` paths are relative to.
    Raises ModelError for an unknown override, an unregistered tag or an empty span,
    ModelNotFound for an unknown model.
    """
    names = list(plant.models) if wish.models is None else list(wish.models)
    jobs = [_job(plant, plant.model(name), history, ids, wish, home, created) for name in names]
    return [job for group in _together(sorted(jobs, key=lambda job: -job.cost)) for job in _shelved(group)]


def _together(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Neighbours with one span whose cells fit on a shelf."""
    group: list[Job] = []
    ids: set[int] = set()
    for job in jobs:
        ticks = job.last - job.first + job.spec.depth + job.spec.look_ahead
        joined = ids | set(job.ids)
        apart = group and ((job.first, job.last) != (group[0].first, group[0].last) or job.rows or group[0].rows)
        if apart or (group and len(joined) * ticks * CELL_BYTES > SHELF_BYTES):
            yield group
            group, joined = [], set(job.ids)
        group.append(job)
        ids = joined
    if group:
        yield group


def _shelved(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with their shelf; a single one needs none, and keeps nothing."""
    if len(jobs) == 1:
        return list(jobs)
    rules = [Rules.of(j.spec.stored, j.spec.period_ns) for j in jobs]
    begins = (j.first - j.spec.depth + 1 - r.reach for j, r in zip(jobs, rules, strict=True))
    ids = tuple(sorted({i for job in jobs for i in job.ids}))
    last = jobs[0].last + max(job.spec.look_ahead for job in jobs) + max(r.wait for r in rules)
    shelf = Shelf(ids=ids, first=min(begins), last=last)
    return [replace(job, shelf=shelf) for job in jobs]


def _job(
    plant: Plant,
    model: ModelSpec,
    history: History,
    ids: Mapping[str, int],
    wish: Wish,
    home: Path,
    created: str,
) -> Job:
    spec = WindowSpec.of(model, plant)
    first, last = _span(model, history, wish, Rules.of(spec.stored, spec.period_ns).wait)
    return Job(
        name=model.name,
        history=history,
        first=first,
        last=last,
        spec=spec,
        ids=tuple(_id(model.name, tag.name, ids) for tag in spec.stored),
        lstm=_settings(model, wish.lstm or {}),
        network=None if model.network is None else _located(model.network, home),
        isolate=model.isolate,
        created=created,
        run=wish.run,
        rows=model.retrain.rows,
        left_out=left_out(model.retrain, history.grid),
        warm=wish.warm.get(model.name),
    )


def judged_ticks(retrain: RetrainSpec, grid: Grid, first: int, last: int) -> int:
    """So many of the newest ticks of first..last-1 judge a retrained model, and are not trained on."""
    if retrain.judge_ns is not None:
        return max(1, retrain.judge_ns // grid.period_ns)
    trained = last - first if retrain.span_ns is None else min(last - first, retrain.span_ns // grid.period_ns)
    return max(1, int(JUDGE_SHARE * trained))


def left_out(retrain: RetrainSpec, grid: Grid) -> tuple[tuple[int, int], ...]:
    """Spans that plant.toml marks, in ticks [begin, end): those that hold any moment of them."""
    return tuple((grid.tick_of(begin), grid.tick_of(end - 1) + 1) for begin, end in retrain.leave_out)


def _span(model: ModelSpec, history: History, wish: Wish, wait: int) -> tuple[int, int]:
    """Ticks of the wish, else what `retrain` says of what there is, clipped to what there is.

    The last `wait` ticks are left out: what is joined onto them has not all come, as it has when they are answered.
    """
    grid, retrain = history.grid, model.retrain
    first, last = history.first, history.last - wait
    if wish.end_ns is not None:
        last = min(last, grid.tick_of(wish.end_ns - 1) + 1)
    if wish.held_out:
        last -= judged_ticks(retrain, grid, first, last)
    if wish.end_ns is None and retrain.end_ns is not None:
        last = min(last, grid.tick_of(retrain.end_ns - 1) + 1)
    start_ns = retrain.start_ns if wish.start_ns is None else wish.start_ns
    if start_ns is not None:
        first = max(first, -(-(start_ns - grid.origin_ns) // grid.period_ns))
    if wish.start_ns is None and retrain.span_ns is not None:
        first = max(first, last - retrain.span_ns // grid.period_ns)
    if first >= last:
        raise ModelError(
            f"model {model.name!r}: no readings in the training span; the archive holds ticks "
            f"{history.first}..{history.last - 1} (asked: {first}..{last - 1}); give another start or end"
        )
    return first, last


def _settings(model: ModelSpec, overrides: Mapping[str, Any]) -> LstmSpec:
    known = [f.name for f in fields(LstmSpec)]
    for key in overrides:
        if key not in known:
            near = nearest(key, known)
            hint = f" Did you mean {near!r}?" if near else ""
            raise ModelError(f"model {model.name!r}: lstm has no setting {key!r}; allowed: {', '.join(known)}.{hint}")
    settings = replace(model.lstm, **overrides)
    if min(settings.units, settings.layers, settings.epochs, settings.batch) < 1:
        raise ModelError(f"model {model.name!r}: lstm units, layers, epochs and batch must be at least 1")
    if not 0.0 < settings.validation < 1.0 or settings.learning_rate <= 0:
        raise ModelError(f"model {model.name!r}: lstm validation must lie between 0 and 1, learning_rate above 0")
    if settings.ridge < 0 or (settings.ridge > 0 and not settings.linear):
        raise ModelError(
            f"model {model.name!r}: lstm ridge must be 0 or more, and needs linear = true where it is more"
        )
    return settings


def _id(model: str, tag: str, ids: Mapping[str, int]) -> int:
    if tag not in ids:
        near = nearest(tag, list(ids))
        hint = f"did you mean {near!r}?" if near else "import or stream some of its readings first"
        raise ModelError(f"model {model!r}: tag {tag!r} is not in the registry; {hint}")
    return ids[tag]


def _located(network: str, home: Path) -> str:
    file, _, function = network.rpartition(":")
    return f"{(home / file).resolve()}:{function}"
