"""Whether an answer that is computed again is the one that was given, and if not, why: one verdict per tick.

Shared by the replay, which says the past again with the stream's code, and by reconcile, which does with the batch
layer's. Arithmetic over rows; knows neither files nor engines.

    ticks           t0 ... t1        late readings, which came with a sequence of their own
    window      [first cell ... its own tick ... onward]     said with the sequence that closed its tick
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from penstock.data.journal.ledger import LateRange
from penstock.data.rules import Rules
from penstock.data.views.speed_view import SaidRows
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason

TOLERANCE = 1e-5
"""Of the target's scale: what is nearer is the same prediction."""
EQUAL, CLOSE, LATE, UNEXPLAINED = "equal", "close", "late", "unexplained"
SILENT, PASSED, OTHER, NEW = "no_answer_live", "passed_over_live", "other_version", "not_said_live"
VERDICTS = (EQUAL, CLOSE, LATE, SILENT, PASSED, OTHER, NEW, UNEXPLAINED)
"""Equal: window and values bit for bit. Close: the same window, values within 1e-5 of the scale."""
DIFFERENT = (LATE, SILENT, PASSED, UNEXPLAINED)

Ticks = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Whose cells a window may read: ticks around its own, both ends included."""

    back: int
    onward: int

    @classmethod
    def of(cls, spec: WindowSpec) -> Self:
        """With what preparation and quality look back at, and what is read ahead or joined on from behind."""
        rules = Rules.of(spec.base_tags, spec.period_ns)
        ahead = rules.joined + np.array(spec.base_ahead, np.int32)
        return cls(back=spec.depth - 1 + rules.reach, onward=int(ahead.max(initial=0)))


def beside(again: SaidRows, live: SaidRows) -> SaidRows:
    """`live` at the ticks of `again`; version 0, reason NO_MODEL and NaN where it has none."""
    n = len(again.ticks)
    at = np.searchsorted(live.ticks, again.ticks)
    there = at < len(live.ticks)
    there[there] = live.ticks[at[there]] == again.ticks[there]
    found = SaidRows(
        ticks=again.ticks, values=np.full_like(again.values, np.nan), versions=np.zeros(n, np.int32),
        reasons=np.full(n, Reason.NO_MODEL, np.uint8), filled=np.zeros(n, np.bool_), hashes=np.zeros(n, np.uint64),
    )  # fmt: skip
    same = there & (live.values.shape[1] == again.values.shape[1])  # a version with other targets says something else
    if same.any():
        found.values[same] = live.values[at[same]]
    for column in ("versions", "reasons", "filled", "hashes"):
        getattr(found, column)[there] = getattr(live, column)[at[there]]
    return found


def judged(again: SaidRows, live: SaidRows, scale: NDArray[np.float32], touched: Mask) -> NDArray[np.str_]:
    """[n] a verdict for each tick; `live` as `beside` has it, `touched` [n] where late readings may explain it."""
    window = (again.hashes == live.hashes) & (again.filled == live.filled)
    whole = window & (again.reasons == live.reasons)
    bits = (again.values.view(np.uint32) == live.values.view(np.uint32)) | (
        np.isnan(again.values) & np.isnan(live.values)
    )
    near = bits | (np.abs(again.values - live.values) <= TOLERANCE * scale)
    silent = np.isin(live.reasons, (Reason.NO_ANSWER, Reason.NO_MODEL)) & window
    rules = [
        (live.versions == 0, NEW),
        (live.versions != again.versions, OTHER),
        (whole & bits.all(axis=1), EQUAL),
        (whole & near.all(axis=1), CLOSE),
        (silent, SILENT),
        (live.reasons == Reason.OVERLOAD, PASSED),
        (touched, LATE),
    ]
    return np.select([where for where, _ in rules], [text for _, text in rules], UNEXPLAINED)


def same_inputs(again: SaidRows, live: SaidRows) -> Mask:
    """[n] the window's bits, whether it is filled, and what withholds it are the same: late readings changed nothing.

    A prediction that was not asked for, or not answered, says nothing of its window's reason.
    """
    unsaid = np.isin(live.reasons, (Reason.NO_ANSWER, Reason.NO_MODEL))
    reasons = (again.reasons == live.reasons) | (unsaid & (again.reasons == Reason.OK))
    same: Mask = (again.hashes == live.hashes) & (again.filled == live.filled) & reasons
    return same


def touched(late: Sequence[LateRange], ticks: Ticks, reach: Reach, said_at: Ticks | None = None) -> Mask:
    """[n] ticks, ascending, whose windows read cells of a range.

    `said_at` [n]: the sequence with which each was said; only what came with a later one can explain a difference.
    None: whatever came.
    """
    found = np.zeros(len(ticks), bool)
    for r in late:
        inside = _windows_of(r, ticks, reach)
        found[inside] |= True if said_at is None else said_at[inside] < r.sequence
    return found


def touching(late: Sequence[LateRange], ticks: Ticks, reach: Reach, said_at: Ticks | None = None) -> list[LateRange]:
    """The ranges that touch any of these windows; see `touched`."""
    return [r for r in late if touched([r], ticks, reach, said_at).any()]


def near(late: Sequence[LateRange], shards: set[int], first: int, last: int, reach: Reach) -> list[LateRange]:
    """Those that windows of ticks first..last-1, out of these shards, may touch."""
    begin, end = first - reach.back, last + reach.onward
    return [r for r in late if r.shard in shards and r.t0 < end and r.t1 > begin]


def rows(said: SaidRows, at: NDArray[np.intp] | Mask | slice) -> SaidRows:
    """Some of the rows, without what was said beside them."""
    columns = ("ticks", "values", "versions", "reasons", "filled", "hashes")
    return replace(said, adjusted=None, **{name: getattr(said, name)[at] for name in columns})


def _windows_of(r: LateRange, ticks: Ticks, reach: Reach) -> slice:
    """Of ticks, ascending: those whose windows read a cell of the range."""
    begin, end = np.searchsorted(ticks, [r.t0 - reach.onward, r.t1 + reach.back])
    return slice(int(begin), int(end))
