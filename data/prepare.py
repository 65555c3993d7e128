"""From assessed rows to the columns of a window: lags, differences, means, logarithms.

Part of what a window *is*: batch and speed both call `prepare`, and a row's
bits must not depend on where the block begins. So each step is a fixed
sequence of element-wise operations over lagged rows, oldest first; running
sums, and numpy's own sums (whose order depends on the memory layout), are not
used. All steps of a chain run in float64; the result is cast to float32 once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from penstock.data.block import FILLED, Block, Flag
from penstock.data.derived import derive
from penstock.data.expressions import evaluate, names
from penstock.data.plant import PrepareStep
from penstock.data.window_spec import Feature, WindowSpec, look_back

STEPS: tuple[str, ...] = get_args(get_type_hints(PrepareStep)["name"])
"""The steps that plant.toml may name."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Every row of a block as a row of a window; row for row with the block."""

    first: int
    """Tick of row 0."""
    x: NDArray[np.float32]
    """[k, F] the features in engineering units; NaN where not ok, and only there."""
    ok: Mask
    """[k, F] all that the value needs is usable and lies in the block."""
    filled: Mask
    """[k] some feature rests on a carried or substituted value."""
    running: Mask
    """[k] `when` holds (or there is none)."""
    decided: Mask
    """[k] `when` could be evaluated; where not, the row counts as not usable rather than as not running."""
    empty: Mask
    """[k] no tag that the model reads has anything here: not a reading, nor one held or carried."""

    @property
    def last(self) -> int:
        """One past the last tick."""
        return self.first + len(self.x)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """Features on their way through the steps; all arrays are [k, g]."""

    x: NDArray[np.float64]
    ok: Mask
    filled: Mask


def prepare(spec: WindowSpec, block: Block) -> Prepared:
    """The features of `spec` in each row of `block`, which must hold the columns of `spec.base`.

    Row i is exact from row `spec.look_back` on; before, what reaches out of the block is not ok.
    Raises QueryError when a column is missing.
    """
    base = block.columns(spec.base)
    k, f = len(block.values), len(spec.features)
    x = np.full((k, f), np.nan, np.float32)
    ok, filled = np.zeros((k, f), bool), np.zeros((k, f), bool)
    read = inputs(spec, base)
    for like, at in _alike(spec.features).items():
        done = _chain(_columns(read, at), like, spec)
        with np.errstate(over="ignore"):
            narrow = done.x.astype(np.float32)
        fine = done.ok & np.isfinite(narrow)
        x[:, at] = np.where(fine, narrow, np.float32(np.nan))
        ok[:, at], filled[:, at] = fine, done.filled
    running, decided = _running(spec, base)
    void = Flag.MISSING | Flag.BAD
    empty = ((base.flags & void) == void).all(axis=1)
    return Prepared(
        first=block.first,
        x=x,
        ok=ok,
        filled=np.any(filled, axis=1),
        running=running,
        decided=decided,
        empty=empty,
    )


Chain = tuple[int, tuple[PrepareStep, ...]]


def _alike(features: tuple[Feature, ...]) -> dict[Chain, NDArray[np.intp]]:
    """Positions of the features that go through the same lag and steps: they are computed together."""
    groups: dict[Chain, list[int]] = {}
    for i, feature in enumerate(features):
        groups.setdefault((feature.lag, feature.steps), []).append(i)
    return {chain: np.array(at, np.intp) for chain, at in groups.items()}


def inputs(spec: WindowSpec, base: Block) -> Block:
    """A column per feature: its tag where it is read, before any step. `base` holds the columns of `spec.base`."""
    tags, read = tuple(f.tag for f in spec.features), [f.ahead(spec.period_ns) for f in spec.features]
    if not spec.look_ahead:
        return derive(base, tags, spec.derived)
    shape = len(base.values), len(tags)
    values, flags = np.empty(shape, np.float32), np.empty(shape, np.uint16)
    for ahead in set(read):
        at = [i for i, a in enumerate(read) if a == ahead]
        part = derive(_read_at(spec, base, ahead), [tags[i] for i in at], spec.derived)
        values[:, at], flags[:, at] = part.values, part.flags
    return Block(first=base.first, tags=tags, values=values, flags=flags)


def _read_at(spec: WindowSpec, base: Block, ahead: int) -> Block:
    """The columns that are read so many ticks ahead, under their tags' own names."""
    if not spec.look_ahead:
        return base
    at = np.array([i for i, a in enumerate(spec.base_ahead) if a == ahead], np.intp)
    tags = tuple(spec.base_tags[i].name for i in at.tolist())
    return Block(first=base.first, tags=tags, values=base.values[:, at], flags=base.flags[:, at])


def _columns(block: Block, at: NDArray[np.intp]) -> _Columns:
    flags = block.flags[:, at]
    return _Columns(
        x=block.values[:, at].astype(np.float64),
        ok=(flags & Flag.BAD) == 0,
        filled=(flags & FILLED) != 0,
    )


def _chain(columns: _Columns, chain: Chain, spec: WindowSpec) -> _Columns:
    lag, steps = chain
    with np.errstate(all="ignore"):
        columns = _lagged(columns, lag)
        for step in steps:
            columns = _apply(columns, step, look_back(step, spec.period_ns, spec.stride))
    return columns


def _apply(columns: _Columns, step: PrepareStep, back: int) -> _Columns:
    x = columns.x
    match step.name:
        case "difference":
            old = _lagged(columns, back)
            return _Columns(x=x - old.x, ok=columns.ok & old.ok, filled=columns.filled | old.filled)
        case "lag":
            return _lagged(columns, back)
        case "mean" | "min" | "max" | "std":
            return _rolled(columns, ROLLING[step.name], back + 1)
        case "deadband":
            return _rolled(columns, partial(_held, band=step.low), back + 1)
        case "log":
            return replace(columns, x=_each(x, "log(x)"))
        case "clip":
            return replace(columns, x=np.minimum(np.maximum(x, step.low), step.high))
        case "expr":
            return replace(columns, x=_each(x, step.text))


def _each(x: NDArray[np.float64], text: str) -> NDArray[np.float64]:
    """An expression over ``x``, element by element."""
    return evaluate(text, {"x": np.ascontiguousarray(x).reshape(-1)}, x.size).reshape(x.shape)


def _lagged(columns: _Columns, n: int) -> _Columns:
    """The columns as they stood n rows before; not ok where that lies before the block."""
    if n == 0:
        return columns
    k = len(columns.x)
    x, ok, filled = np.full_like(columns.x, np.nan), np.zeros_like(columns.ok), np.zeros_like(columns.filled)
    if n < k:
        x[n:], ok[n:], filled[n:] = columns.x[:-n], columns.ok[:-n], columns.filled[:-n]
    return _Columns(x=x, ok=ok, filled=filled)


Rolling = Callable[[NDArray[np.float64], int], NDArray[np.float64]]


def _rolled(columns: _Columns, function: Rolling, n: int) -> _Columns:
    """`function` over the last n rows, the row itself among them."""
    x = np.full_like(columns.x, np.nan)
    if n <= len(x):
        x[n - 1 :] = function(columns.x, n)
    ok = _count(~columns.ok, n) == 0
    ok[: n - 1] = False
    return _Columns(x=x, ok=ok, filled=_count(columns.filled, n) > 0)


def _count(mask: Mask, n: int) -> NDArray[np.int32]:
    """How many of the last n rows hold; a running sum, but of integers, so exact from any beginning."""
    total = np.cumsum(mask, axis=0, dtype=np.int32)
    total[n:] -= total[:-n].copy()
    return total


def _row(x: NDArray[np.float64], n: int, age: int) -> NDArray[np.float64]:
    """For every full span of n rows, its row that is `age` older than the newest."""
    return x[n - 1 - age : len(x) - age]


def _mean(x: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    total = _row(x, n, n - 1).copy()
    for age in range(n - 2, -1, -1):
        total += _row(x, n, age)
    return total / n


def _std(x: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Of the population (ddof 0), in two passes: the difference of squares loses all digits of a level."""
    mean = _mean(x, n)
    total = np.zeros_like(mean)
    for age in range(n - 1, -1, -1):
        away = _row(x, n, age) - mean
        total += away * away
    return np.sqrt(total / n)


def _min(x: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    least = _row(x, n, n - 1).copy()
    for age in range(n - 2, -1, -1):
        np.minimum(least, _row(x, n, age), out=least)
    return least


def _max(x: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return -_min(-x, n)


def _held(x: NDArray[np.float64], n: int, *, band: float) -> NDArray[np.float64]:
    """The value of each span's oldest row, until one is more than `band` away: then that one, and so on.

    A dead-band that began with the readings would depend on all of them; this one depends on the span alone.
    """
    held = _row(x, n, n - 1).copy()
    undefined = np.isnan(held)
    for age in range(n - 2, -1, -1):
        row = _row(x, n, age)
        undefined |= np.isnan(row)  # by the step before: it must not be passed over
        held = np.where(np.abs(row - held) > band, row, held)
    return np.where(undefined, np.nan, held)


ROLLING: dict[str, Rolling] = {"mean": _mean, "min": _min, "max": _max, "std": _std}


def _running(spec: WindowSpec, base: Block) -> tuple[Mask, Mask]:
    """[k] where `when` holds, and [k] where all that it reads is usable."""
    k = len(base.values)
    if spec.when is None:
        return np.ones(k, bool), np.ones(k, bool)
    read = derive(_read_at(spec, base, 0), names(spec.when), spec.derived)
    columns = {name: read.values[:, i].astype(np.float64) for i, name in enumerate(read.tags)}
    holds = evaluate(spec.when, columns, k)
    decided = ((read.flags & Flag.BAD) == 0).all(axis=1) & ~np.isnan(holds)
    return decided & (holds != 0), decided
