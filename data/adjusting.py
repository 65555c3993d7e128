"""What is said beside live predictions, as a fold over ticks: truths that came are learned from, then a tick is said.

    at each tick t:  learn(truths known at t, not before)  ->  say(t, raw values)  ->  corrections, lows, highs, chances

An *output* is a target of a model; all of them are rows of arrays. The fold knows no clock, journal or model: which
truth is known at which tick is told it, so a stream, a restart and a computation afterwards come to the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.data.conformal import Conformal
from penstock.data.correction import NEVER, Correction, Ways
from penstock.data.plant import LiveSpec
from penstock.data.views.adjusted import Adjusted

HOLD = 512
"""Ticks that a truth may come later than it should have been known, and still teach."""

Index = NDArray[np.intp]
Arrays = dict[str, NDArray[Any]]
"""State by name, a row per output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A target of a model, and what is wanted beside its predictions."""

    model: str
    column: int
    """Which of the model's targets."""
    every: int
    """Ticks between two answers."""
    wait: int
    """Ticks from an answer to the earliest tick at which its truth is known."""
    live: LiveSpec

    @property
    def key(self) -> str:
        """Names it in a state."""
        return f"{self.column} {self.model}"

    @classmethod
    def asleep(cls, key: str, every: int, live: LiveSpec) -> Output:
        """One of a state whose model does not speak at the moment: its row is kept."""
        column, model = key.split(" ", 1)
        return cls(model=model, column=int(column), every=every, wait=0, live=live)

    @property
    def limit(self) -> float:
        """NaN: none."""
        limit = self.live.limits[self.column] if self.column < len(self.live.limits) else None
        return float("nan") if limit is None else limit


class Learned(NamedTuple):
    """Truths that have become known: n of them, at most one per output and tick."""

    outputs: Index
    """[n]"""
    ticks: NDArray[np.int64]
    """[n] at which the prediction was made that each belongs to."""
    truths: NDArray[np.float32]
    """[n]"""


class Adjuster:
    """The fold, for a fixed list of outputs."""

    def __init__(self, outputs: Sequence[Output], period_ns: int) -> None:
        self.outputs, o = tuple(outputs), len(outputs)
        specs, every = [out.live.correct for out in outputs], [out.every for out in outputs]
        self.correction = Correction(Ways.of(specs, every, period_ns))
        self.intervals = Conformal([out.live.interval for out in outputs])
        self.versions = np.zeros(o, np.int32)
        """[o] that spoke last."""
        self._corrects = np.array([spec is not None for spec in specs], np.bool_)
        self._limits = np.array([out.limit for out in outputs], np.float32)
        self._every = np.array(every, np.int64)
        self._said = _Said(o, max(((out.wait + HOLD) // out.every + 1 for out in outputs), default=1))

    def learn(self, learned: Learned) -> None:
        """Take truths in, those of older predictions first."""
        order = np.lexsort((learned.outputs, learned.ticks))
        at, ticks, truths = learned.outputs[order], learned.ticks[order], learned.truths[order]
        while len(at):  # several truths of one output at once: late ones
            first = np.zeros(len(at), bool)
            first[np.unique(at, return_index=True)[1]] = True
            self._learn(at[first], ticks[first], truths[first])
            at, ticks, truths = at[~first], ticks[~first], truths[~first]

    def say(self, tick: int, at: Index, values: NDArray[np.float32], versions: NDArray[np.int32]) -> Adjusted:
        """What stands beside the raw `values` [n] of the outputs `at` at `tick`, each at most once."""
        other = at[self.versions[at] != versions]
        self.correction.forget(other)
        self.versions[at] = versions
        bias = np.where(self._corrects[at], self.correction.at(at, values), np.nan).astype(np.float32)
        bias[np.isnan(values)] = np.nan
        best = np.where(self._corrects[at], values + bias, values)
        half = self.intervals.half[at].astype(np.float32)
        chances = self.intervals.above(at, self._limits[at] - best)
        said = Adjusted(corrections=bias, lows=best - half, highs=best + half, chances=chances)
        self.remember(np.full(len(at), tick), at, values, versions, said)
        return said

    def remember(
        self,
        ticks: NDArray[np.int64],
        at: Index,
        values: NDArray[np.float32],
        versions: NDArray[np.int32],
        said: Adjusted,
    ) -> None:
        """That all this was said at `ticks` [n]: a truth that comes is judged by it."""
        corrected = np.where(np.isnan(said.corrections), values, values + said.corrections)
        self._said.put(self._every[at], ticks, at, (values, corrected, said.lows, said.highs), versions)

    def _learn(self, at: Index, ticks: NDArray[np.int64], truths: NDArray[np.float32]) -> None:
        known, slot = self._said.find(self._every[at], ticks, at)
        known &= np.isfinite(truths)
        at, slot, y = at[known], slot[known], truths[known].astype(np.float64)
        raw, corrected, low, high = (part[at, slot] for part in self._said.parts)
        own = self._said.versions[at, slot] == self.versions[at]  # another version's error is not to be corrected
        self.correction.push(at[own], ticks[known][own], (y - raw)[own].astype(np.float32), raw[own])
        self.intervals.push(at, (y - corrected).astype(np.float32), (y >= low) & (y <= high), ~np.isnan(low))

    # Kept between two runs

    def snapshot(self, **beside: NDArray[Any]) -> bytes:
        """The state, and arrays `beside` with a row per output; what was said is in the speed view, no part of it."""
        keys = [out.key for out in self.outputs]
        return packed(keys, self._arrays() | self.correction.settings() | beside)

    def resume(self, state: bytes, **beside: NDArray[Any]) -> None:
        """Go on from a snapshot, perhaps of other outputs; those that it has not begin anew."""
        mine = self.correction.settings()
        then = {name: setting.copy() for name, setting in mine.items()}
        put_back(state, [out.key for out in self.outputs], self._arrays() | then | beside)
        changed = np.logical_or.reduce([then[name] != mine[name] for name in mine])
        self.correction.forget(np.flatnonzero(changed))

    def _arrays(self) -> Arrays:
        c, i = self.correction, self.intervals
        return {
            "versions": self.versions, "bias": c.bias, "count": c.count, "residuals": c.residuals, "ticks": c.ticks,
            "slope": c.slope, "middle": c.middle, "low": c.low, "high": c.high, "raw": c.raw,
            "half": i.half, "missing": i.missing, "errors": i.errors, "came": i.count, "judged": i.judged,
            "inside": i.inside, "hits": i.hits,
        }  # fmt: skip


class _Said:
    """The newest answers of each output, in a ring by its own answers' number."""

    def __init__(self, o: int, depth: int) -> None:
        self._depth = depth
        self._ticks = np.full((o, depth), NEVER, np.int64)
        self.parts = tuple(np.full((o, depth), np.nan, np.float32) for _ in range(4))
        """[o, depth] each: raw, corrected, low, high."""
        self.versions = np.zeros((o, depth), np.int32)

    def put(
        self, every: NDArray[np.int64], ticks: NDArray[np.int64], at: Index, parts: Sequence[NDArray[np.float32]],
        versions: NDArray[np.int32],
    ) -> None:  # fmt: skip
        slot = ticks // every % self._depth
        self._ticks[at, slot], self.versions[at, slot] = ticks, versions
        for mine, part in zip(self.parts, parts, strict=True):
            mine[at, slot] = part

    def find(
        self, every: NDArray[np.int64], ticks: NDArray[np.int64], at: Index
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(whether an answer was given, its slot) at `ticks` [n]."""
        slot = ticks // every % self._depth
        return (self._ticks[at, slot] == ticks) & np.isfinite(self.parts[0][at, slot]), slot


def packed(keys: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A state as bytes: rows of arrays, called `keys`."""
    shapes = {name: (a.dtype.str, a.shape) for name, a in arrays.items()}
    head = json.dumps({"keys": list(keys), "arrays": shapes}).encode()
    return b"".join(
        [len(head).to_bytes(4, "little"), head, *(np.ascontiguousarray(a).tobytes() for a in arrays.values())]
    )


def unpacked(state: bytes) -> tuple[list[str], Arrays]:
    """The inverse of `packed`; the arrays cannot be written."""
    size = int.from_bytes(state[:4], "little")
    head, at, arrays = json.loads(state[4 : 4 + size]), 4 + size, Arrays()
    for name, (dtype, shape) in head["arrays"].items():
        arrays[name] = np.frombuffer(state, dtype, int(np.prod(shape, dtype=np.int64)), at).reshape(shape)
        at += arrays[name].nbytes
    return head["keys"], arrays


def put_back(state: bytes, keys: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the rows of a packed state into those of `arrays` that have the same key; longer ones are cut off."""
    theirs, found = unpacked(state)
    row = {key: i for i, key in enumerate(theirs)}
    mine = np.array([i for i, key in enumerate(keys) if key in row], np.intp)
    rows = np.array([row[keys[i]] for i in mine.tolist()], np.intp)
    for name in arrays.keys() & found.keys():
        to, part = arrays[name], found[name][rows]
        if to.ndim == 1:
            to[mine] = part
        else:  # as wide as the output with the most room, which may be another one now
            width = min(part.shape[1], to.shape[1])
            to[mine, :width] = part[:, :width]
