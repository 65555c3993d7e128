"""A small site of two shards, and readings that misbehave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from penstock.data.archive import Archive
from penstock.data.frame import BAD, Dense, Frame, Readings
from penstock.data.grid import Grid
from penstock.data.journal import Entry, Journal
from penstock.data.layout import Layout
from penstock.data.plant import ModelSpec, Plant, PrepareStep, Tag
from penstock.data.scoring import Ask, Member, Said
from penstock.data.window_spec import WindowSpec
from penstock.errors import Unavailable
from penstock.speed.clock import Clock, SourceClock, span_of

SECOND = 10**9
SHIFT = 10**6  # seeds are not negative, ticks may be
GRID = Grid(period_ns=SECOND)
NAMES = ("A", "B", "C", "D", "E")
TAGS = {
    "A": Tag(name="A", max_gap_ns=2 * SECOND),
    "B": Tag(name="B", range=(-50.0, 50.0), substitute=1.0),
    "C": Tag(name="C", flat_after_ns=4 * SECOND, max_gap_ns=3 * SECOND),
    "D": Tag(name="D", rate=40.0, max_gap_ns=SECOND),
    "E": Tag(name="E", max_gap_ns=2 * SECOND),
}
LAYOUT = Layout(dtypes=["float32"] * 5, shards=2)


def _model(name: str, inputs: tuple[str, ...], **more: object) -> ModelSpec:
    return ModelSpec(
        name=name, targets=("E",), inputs=inputs, prepare=more.pop("prepare", dict.fromkeys(inputs, ())),  # type: ignore[arg-type]
        step_ns=int(more.pop("step", 1)) * SECOND, window=int(more.pop("window", 4)),  # type: ignore[call-overload]
        every_ns=int(more.pop("every", 1)) * SECOND, **more,  # type: ignore[arg-type, call-overload]
    )  # fmt: skip


MODELS = {
    "near": _model("near", ("A", "B"), past_target=True),
    "far": _model(
        "far", ("A", "C", "D"), step=2, window=3, every=2, when="B > -20",
        prepare={"A": (PrepareStep(name="difference"),), "C": (), "D": (PrepareStep(name="mean", span_ns=3 * SECOND),)},
    ),
}  # fmt: skip
PLANT = Plant(name="small", period_ns=SECOND, tags=TAGS, models=MODELS)
MEMBERS = tuple(
    Member(name=m.name, version=1, slot=i, spec=WindowSpec.of(m, PLANT)) for i, m in enumerate(MODELS.values())
)


SLOW = {"A": 3, "D": 4}
"""Of the tags that `JOINED` joins: ticks between two readings."""
SLOW_TAGS = {
    **TAGS,
    "A": replace(TAGS["A"], join="linear", join_delay_ns=4 * SECOND),
    "D": replace(TAGS["D"], join="nearest", join_delay_ns=2 * SECOND),
}
JOINED = tuple(
    Member(name=m.name, version=1, slot=i, spec=WindowSpec.of(m, replace(PLANT, tags=SLOW_TAGS)))
    for i, m in enumerate(MODELS.values())
)
"""The same models where A and D, which are in one shard and in the other, come seldom."""


def resolve(names: object) -> np.ndarray:
    return np.array([NAMES.index(n) if n in NAMES else -1 for n in names], np.int32)  # type: ignore[attr-defined]


def make_site(folder: Path) -> tuple[Journal, Archive]:
    journal = Journal.open(folder / "journal", segment_bytes=1 << 20)
    return journal, Archive.create(folder / "archive", GRID)


def rows(first: int, last: int, seed: int) -> Dense:
    """One row per tick, all tags, some readings missing, bad, stuck or wild."""
    k, values = last - first, np.empty((last - first, 5), np.float32)
    for i in range(k):  # by tick, so that a tick's readings do not depend on the block it comes in
        values[i] = np.random.default_rng([seed, SHIFT + first + i]).normal(0, 20, 5).round(1)
    again = np.array([np.random.default_rng([seed, 7, SHIFT + first + i]).random(5) for i in range(k)]).reshape(k, 5)
    values[:, 2] = np.where(again[:, 2] < 0.6, np.float32(3.0), values[:, 2])
    values[again < 0.08] = np.nan
    quality = np.where((again > 0.95) & ~np.isnan(values), BAD, 0).astype(np.uint8)
    return Dense(
        times=GRID.times(first, last) + SECOND // 3, tags=np.arange(5, dtype=np.int32), values=values, quality=quality
    )


def seldom(readings: Frame) -> Frame:
    """Without most readings of the slow tags."""
    ticks, kept = GRID.tick(readings.times), np.ones(len(readings), bool)
    for name, every in SLOW.items():
        kept &= (readings.tags != NAMES.index(name)) | (ticks % every == 0)
    return readings.only(kept)


def unruly(rng: np.random.Generator, ticks: int, *, late: bool, slow: bool = False) -> list[Readings]:
    """The same kind of readings as long frames: shuffled, repeated, several to a cell; late ones if asked for."""
    long = rows(0, ticks, int(rng.integers(1 << 30))).long()
    long = seldom(long) if slow else long
    twice = np.concatenate([np.arange(len(long)), rng.integers(0, len(long), len(long) // 5)])
    jitter = rng.normal(0, 1.2, len(twice)) + np.where(rng.random(len(twice)) < 0.05 * late, 9, 0)
    order = np.argsort(long.times[twice] / SECOND + (jitter if late else np.clip(jitter, -1.4, 1.4)), kind="stable")
    at = twice[order]
    times = long.times[at] + rng.integers(-SECOND // 3, SECOND // 2, len(at))
    mixed = Frame(times=times, tags=long.tags[at], values=long.values[at], quality=long.quality[at])
    cuts = np.sort(rng.integers(0, len(at), ticks // 2))
    return [
        mixed.only((np.arange(len(at)) >= a) & (np.arange(len(at)) < b))
        for a, b in zip([0, *cuts], [*cuts, len(at)], strict=True)
    ]


def append_all(journal: Journal, groups: list[Readings], lateness_s: float) -> None:
    """Readings with the decisions they cause, and the end."""
    clock = Clock(GRID, {"s": SourceClock(lateness_ns=int(lateness_s * SECOND))})
    for number, group in enumerate(groups):
        span = span_of(group)
        decision = None if span is None else clock.observe("s", span[1], 0, span[0])
        journal.append([Entry(source="s", source_offset=number + 1, parts=LAYOUT.split(group), clock=decision)])
    journal.append([Entry(source="s", source_offset=len(groups), parts={}, clock=clock.end("s"))])


class Means:
    """Follows `Scoring`: each model says the mean of its window. Can be away."""

    def __init__(self, members: tuple[Member, ...] = MEMBERS) -> None:
        self.current = members
        self.away = 0
        """So many requests go unanswered."""
        self.requests = 0

    def members(self) -> tuple[Member, ...]:
        return self.current

    def score(self, asks: list[Ask]) -> list[Said]:
        self.requests += 1
        if self.away:
            self.away -= 1
            raise Unavailable("nobody answers; start Triton")
        return [Said(values=a.windows.mean(axis=(1, 2))[:, None], version=a.member.version) for a in asks]
