"""A small site with schedules and forecasts, and readings of them in any order, revised, late or never."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penstock.data.archive import Archive
from penstock.data.early import parted
from penstock.data.frame import BAD, Frame
from penstock.data.grid import Grid
from penstock.data.journal import Entry, Journal
from penstock.data.layout import Layout
from penstock.data.plant import ModelSpec, Plant, PrepareStep, Tag
from penstock.data.scoring import Member
from penstock.data.window_spec import WindowSpec
from penstock.speed.clock import Clock, SourceClock, span_of

SECOND = 10**9
GRID = Grid(period_ns=SECOND)
NAMES = ("A", "B", "PLAN", "WIND")
AHEAD = (0, 0, 12, 5)
TAGS = {
    "A": Tag(name="A", max_gap_ns=2 * SECOND, range=(-60.0, 60.0)),
    "B": Tag(name="B", substitute=1.0),
    "PLAN": Tag(name="PLAN", ahead_ns=12 * SECOND, max_gap_ns=3 * SECOND, flat_after_ns=4 * SECOND),
    "WIND": Tag(name="WIND", ahead_ns=5 * SECOND, max_gap_ns=SECOND, rate=60.0, substitute=0.5),
    "NET": Tag(name="NET", expr="PLAN - WIND"),
}
LAYOUT = Layout(dtypes=["float32"] * 4, shards=2, ahead=AHEAD)
IDS = np.arange(4, dtype=np.int32)


def lag(seconds: int) -> PrepareStep:
    return PrepareStep(name="lag", span_ns=seconds * SECOND)


def model(name: str, inputs: tuple[str, ...], prepare: dict[str, tuple[PrepareStep, ...]], **more: object) -> ModelSpec:
    return ModelSpec(
        name=name, targets=("B",), inputs=inputs, prepare=dict.fromkeys(inputs, ()) | prepare,
        step_ns=int(more.pop("step", 1)) * SECOND, window=int(more.pop("window", 3)),  # type: ignore[call-overload]
        every_ns=int(more.pop("every", 1)) * SECOND, **more,  # type: ignore[arg-type]
    )  # fmt: skip


MEAN = PrepareStep(name="mean", span_ns=3 * SECOND)
MODELS = {
    "now": model("now", ("A", "PLAN"), {}),
    "plan": model("plan", ("A", "PLAN"), {"PLAN": (lag(-4),)}, past_target=True),
    "net": model(
        "net", ("PLAN", "NET", "WIND", "A"),
        {"PLAN": (lag(-12), MEAN), "NET": (PrepareStep(name="difference"), lag(-5))},
        step=2, every=2, when="WIND > -40",
    ),
    "wind": model("wind", ("WIND",), {"WIND": (lag(-3),)}, window=2),
    "twin": model("twin", ("PLAN",), {"PLAN": (lag(-3),)}, window=2),
    "far": model("far", ("PLAN",), {"PLAN": (lag(-9), lag(2))}, window=2),
}  # fmt: skip
PLANT = Plant(name="ahead", period_ns=SECOND, tags=TAGS, models=MODELS)
MEMBERS = tuple(
    Member(name=m.name, version=1, slot=i, spec=WindowSpec.of(m, PLANT)) for i, m in enumerate(MODELS.values())
)


def resolve(names: object) -> np.ndarray:
    return np.array([NAMES.index(n) for n in names], np.int32)  # type: ignore[attr-defined]


def make_site(folder: Path) -> tuple[Journal, Archive]:
    journal = Journal.open(folder / "journal", segment_bytes=1 << 20)
    return journal, Archive.create(folder / "archive", GRID)


def readings(rng: np.random.Generator, ticks: int, *, once: bool) -> list[Frame]:
    """In order of arrival. `once`: nothing is late or revised, and what lies ahead came before any window needs it.

    Else each forecast comes at any time from 16 ticks before to 3 ticks after its own, up to three times.
    """
    rows: list[tuple[float, int, int]] = []  # (arrival, tick, tag)
    for tick in range(ticks):
        rows += [(tick + (0 if once else rng.normal(0, 1.0)), tick, tag) for tag in (0, 1) if rng.random() < 0.95]
    for tick in range(ticks + 20):
        for tag in (2, 3):
            for _ in range(1 if once else int(rng.integers(0, 4))):
                before = AHEAD[tag] + 2 if once else rng.uniform(-3, 16)
                rows.append((tick - before + (0 if once else rng.normal(0, 0.1)), tick, tag))
    rows.sort()
    at = np.array([(tick, tag) for _, tick, tag in rows], np.int64)
    times = at[:, 0] * SECOND + rng.integers(0, SECOND, len(at))
    values = rng.normal(0, 25, len(at)).round(1).astype(np.float32)
    values[rng.random(len(at)) < 0.3] = 3.0  # so that something gets stuck
    quality = np.where(rng.random(len(at)) < 0.04, BAD, 0).astype(np.uint8)
    whole = Frame(times=times, tags=at[:, 1].astype(np.int32), values=values, quality=quality)
    cuts = np.sort(rng.integers(0, len(at), ticks))
    return [whole.rows(slice(a, b)) for a, b in zip([0, *cuts], [*cuts, len(at)], strict=True)]


def append_all(journal: Journal, groups: list[Frame], lateness_s: float) -> None:
    """As the intake does: what may be ahead goes first and tells no time."""
    clock = Clock(GRID, {"s": SourceClock(lateness_ns=int(lateness_s * SECOND))})
    for number, group in enumerate(groups):
        own, early = parted(group, LAYOUT.ahead_of())
        if early is not None:
            journal.append([Entry(source="s", source_offset=number, parts=LAYOUT.split(early))])
        span = span_of(own)
        decision = None if span is None else clock.observe("s", span[1], 0, span[0])
        journal.append([Entry(source="s", source_offset=number + 1, parts=LAYOUT.split(own), clock=decision)])
    journal.append([Entry(source="s", source_offset=len(groups), parts={}, clock=clock.end("s"))])
