"""A tiny plant with a real archive: what the tests of the batch layer train on.

The target "flow" follows "valve" and "load" two ticks late, on top of a slow
drift; "spare" is noise. Some readings are missing, some bad.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penstock.batch.history import Source
from penstock.batch.plan import History, Job, Wish, plan
from penstock.data.archive import Archive
from penstock.data.grid import PRESENT, Cells, Grid
from penstock.data.plant import HOUR_NS, LstmSpec, ModelSpec, Plant, Tag

TAGS = ("valve", "load", "spare", "flow")
IDS = {name: i for i, name in enumerate(TAGS)}
FIRST = 400_000
GRID = Grid(period_ns=HOUR_NS)
CREATED = "2020-01-01T00:00:00Z"
LSTM = LstmSpec(units=8, epochs=6, patience=3, batch=128, learning_rate=5e-3)


def plant(**models: ModelSpec) -> Plant:
    tags = {name: Tag(name=name, unit="m3/h" if name == "flow" else "%") for name in TAGS}
    return Plant(name="waterworks", period_ns=HOUR_NS, tags=tags, models=models)


def model(name: str, **changes: object) -> ModelSpec:
    given: dict[str, object] = {
        "targets": ("flow",),
        "inputs": ("valve", "load", "spare"),
        "past_target": True,
        "step_ns": HOUR_NS,
        "window": 8,
        "every_ns": HOUR_NS,
        "lstm": LSTM,
    }
    return ModelSpec(name=name, **(given | changes))  # type: ignore[arg-type]


def values(ticks: int = 1500, seed: int = 4) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """[ticks, 4] readings; NaN: no reading."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(ticks, 3)).cumsum(axis=0)
    x = 50 + 5 * np.tanh(walk / 10) + rng.normal(size=(ticks, 3))
    delayed = np.roll(x, 2, axis=0)
    drift = 300 + 20 * np.sin(np.arange(ticks) / 90)
    flow = drift + 3 * (delayed[:, 0] - 50) - 2 * (delayed[:, 1] - 50) + 0.3 * rng.normal(size=ticks)
    table = np.column_stack([x, flow]).astype(np.float32)
    table[rng.random(table.shape) < 0.003] = np.nan
    table[700:720, 0] = np.nan
    return table


def archive(folder: Path, ticks: int = 1500) -> History:
    """Write the readings as one commit."""
    table = values(ticks)
    quality = np.where(np.isnan(table), 0, PRESENT).astype(np.uint16)
    quality[900:905, 1] |= 0x80
    store = Archive.create(folder, GRID)
    with store.committer() as committer:
        committer.admit(np.zeros(len(TAGS), bool))
        at = FIRST
        while at < FIRST + ticks:
            last = min(committer.block("float32", at)[1], FIRST + ticks)
            rows = slice(at - FIRST, last - FIRST)
            cells = Cells.empty(at, last - at, len(TAGS))
            cells.values[:], cells.quality[:] = table[rows], quality[rows]
            committer.merge("float32", 0, cells)
            at = last
        head = committer.commit(1, FIRST + ticks, {}, {})
    source = Source(folder=folder, snapshot=head.snapshot)
    return History(source=source, grid=GRID, first=head.span[0], last=head.span[1])


def jobs(history: History, *models: ModelSpec, wish: Wish | None = None, home: Path = Path()) -> list[Job]:
    made = plant(**{m.name: m for m in models})
    return plan(made, history, IDS, wish or Wish(), home=home, created=CREATED)
