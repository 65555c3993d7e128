"""A plant as wide as is wanted, whose every reading is known: a pure function of tick and tag.

    tick t:      a dense frame of all tags; 1 % bad, 1 % missing (they come late), the rest good
    tick t + 2:  a long frame beside it: what tick t was lacking, and 0.5 % of tick t once more

Numpy alone, a few passes per frame: the source shares the processor with what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.durations import duration_text
from penstock.data.frame import BAD, GOOD

ROWS = 16
"""Rows of random numbers that the values are made of."""
LATE_TICKS = 2
"""How far behind the newest frame late readings come: the tick they belong to has closed by then."""
INPUTS, LENGTH = 32, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class WidePlant:
    """Tags T0000000 ...; models m000 ... over the first tags of equal stretches."""

    tags: int
    period_ns: int
    models: int = 100
    _base: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        base = np.random.default_rng(5).normal(50, 20, (ROWS, self.tags)).round(2).astype(np.float32)
        object.__setattr__(self, "_base", base)

    def names(self) -> list[str]:
        """Of all tags, in order."""
        return [f"T{i:07d}" for i in range(self.tags)]

    def model_tags(self, model: int) -> list[int]:
        """Places of a model's inputs and, last, its target."""
        begin = model * (self.tags // self.models)
        return [(begin + i) % self.tags for i in range(INPUTS + 1)]

    def values(self, tick: int) -> NDArray[np.float32]:
        """[tags] what every tag reads at a tick, whenever it comes."""
        return np.asarray(self._base[tick % ROWS] + np.float32(tick % 4096) * np.float32(0.25), np.float32)

    def status(self, tick: int) -> NDArray[np.uint8]:
        """[tags]"""
        status = np.full(self.tags, GOOD, np.uint8)
        status[self._phase(tick, 71, 100) :: 100] = BAD
        return status

    def late(self, tick: int) -> slice:
        """The tags whose readings of a tick come late."""
        return slice(self._phase(tick, 37, 100), None, 100)

    def repeated(self, tick: int) -> slice:
        """The tags whose readings of a tick come once more."""
        return slice(self._phase(tick, 53, 200), None, 200)

    def dense(self, tick: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Values and status [tags] of a tick as they come in time: NaN and GOOD where there is none yet."""
        values, status, late = self.values(tick), self.status(tick), self.late(tick)
        values[late], status[late] = np.nan, GOOD
        return values, status

    def behind(self, tick: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.uint8]]:
        """(tags, values, status) that come behind a tick: the late ones, and the repeated ones."""
        values, status, every = self.values(tick), self.status(tick), np.arange(self.tags, dtype=np.int32)
        parts = (self.late(tick), self.repeated(tick))
        at = np.concatenate([every[part] for part in parts])
        return at, values[at], status[at]

    def sent(self, ticks: int) -> int:
        """Readings that come in so many ticks: each tag once, and the repeated ones again."""
        return ticks * self.tags + sum(len(range(self.tags)[self.repeated(tick)]) for tick in range(ticks))

    def expected(
        self, ticks: NDArray[np.int64], tags: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Values and status [ticks, tags] once all has come."""
        rise = (ticks % 4096).astype(np.float32) * np.float32(0.25)
        values = self._base[np.ix_(ticks % ROWS, tags)] + rise[:, None]
        bad = tags % 100 == (71 * ticks % 100)[:, None]
        return values, np.where(bad, np.uint8(BAD), np.uint8(GOOD))

    def write(self, folder: Path) -> Path:
        """plant.toml and tags.csv in `folder`; the path of the first."""
        names, step = self.names(), duration_text(self.period_ns)
        gap, window = duration_text(10 * self.period_ns), duration_text(LENGTH * self.period_ns)
        (folder / "tags.csv").write_text("name,max_gap\n" + "".join(f"{name},{gap}\n" for name in names))
        models = []
        for model in range(self.models):
            *inputs, target = (names[i] for i in self.model_tags(model))
            models.append(f'[model.m{model:03d}]\ntarget = "{target}"\ninputs = {inputs}\n'.replace("'", '"'))
        path = folder / "plant.toml"
        path.write_text(
            f'[plant]\nname = "wide"\nperiod = "{step}"\ntimezone = "UTC"\n[tags]\nfile = "tags.csv"\n'
            f'[defaults.model]\nstep = "{step}"\nevery = "{step}"\nwindow = "{window}"\n'
            'lstm = { units = 64, layers = 1, change_from_last = false }\n'
            + "".join(models)
        )  # fmt: skip
        return path

    def _phase(self, tick: int, step: int, every: int) -> int:
        return (step * tick) % every
