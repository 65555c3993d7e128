"""Windows out of the archive, by the very functions that the speed layer cuts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data import windows
from penstock.data.archive import Archive
from penstock.data.plant import Tag
from penstock.data.quality import Block, Rules, assess
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One state of an archive; a value, so that it can travel to a worker."""

    folder: Path
    """As the workers see it."""
    snapshot: str

    def block(self, tags: Sequence[Tag], ids: Sequence[int], period_ns: int, first: int, last: int) -> Block:
        """Assessed rows first..last-1 of `tags`, whose registry ids are `ids`."""
        rules = Rules.of(tags, period_ns)
        archive = Archive.open(self.folder)
        cells = archive.read(np.array(ids, np.int32), first - rules.reach, last, snapshot=self.snapshot)
        return assess(cells, rules).rows(first, last)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """Every window of a model over a span, with what came of it."""

    ends: NDArray[np.int64]
    """[a] the windows' ticks."""
    windows: Windows
    y: NDArray[np.float32]
    """[a, O] the target at the predicted time."""
    usable: NDArray[np.bool_]
    """[a, O] whether that truth can be relied on."""
    newest: NDArray[np.float32]
    """[a, O] newest target known at the window's tick; NaN where none is."""


def past(source: Source, spec: WindowSpec, ids: Sequence[int], first: int, last: int) -> Past:
    """Windows and truth inside ticks first..last-1: the predicted times too lie before `last`."""
    rows = source.block(spec.stored, ids, spec.period_ns, first - spec.depth + 1, last)
    ends = answered(spec, first, last - spec.horizon)
    cut = windows.cut(spec, windows.prepare(spec, rows), ends)
    y, usable, newest = windows.targets(spec, rows, ends)
    return Past(ends=ends, windows=cut, y=y, usable=usable, newest=newest)


def answered(spec: WindowSpec, first: int, last: int) -> NDArray[np.int64]:
    """The ticks of first..last-1 at which the model answers."""
    ticks = np.arange(first, max(first, last), dtype=np.int64)
    return ticks[windows.answers_at(spec, ticks)]
