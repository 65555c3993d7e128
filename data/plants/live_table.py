"""The keys of a model that say what stands beside its live predictions: correction, interval, limit."""

from __future__ import annotations

from typing import Literal, cast

from penstock.data.durations import DURATION
from penstock.data.plant import CorrectSpec, LiveSpec
from penstock.data.plants.tables import Table, shown

LIVE_KEYS = ("correct", "interval", "limit")
CORRECT_KEYS = ("by", "over")
NOT = "none"
"""`by` of a model that takes back what [defaults.model] says."""
LEAST, MOST = 0.5, 0.999
"""Of an interval: a narrower one says little, a wider one needs more residuals than are kept."""


def read_live(table: Table, targets: int) -> LiveSpec:
    """What a model's table says; mistakes are noted and their keys left out."""
    return LiveSpec(correct=_correct(table), interval=_interval(table), limits=_limits(table, targets))


def _correct(table: Table) -> CorrectSpec | None:
    if "correct" not in table:
        return None
    mine = table.sub("correct")
    mine.close(CORRECT_KEYS)
    by = mine.text("by", required=True, one_of=("bias", "ewm", "slope", NOT))
    over = mine.duration("over")
    if not over and by != NOT and (over == 0 or "over" not in mine):
        mine.wrong("over", f"{DURATION}, longer than 0")
    if by in ("", NOT) or not over:
        return None
    return CorrectSpec(by=cast(Literal["bias", "ewm", "slope"], by), over_ns=over)


def _interval(table: Table) -> float | None:
    share = table.number("interval")
    if share is None or LEAST <= share <= MOST:
        return share
    table.wrong("interval", f"a share of the truths, {LEAST} to {MOST}, such as 0.9")
    return None


def _limits(table: Table, targets: int) -> tuple[float | None, ...]:
    if "limit" not in table:
        return ()
    found = table.raw("limit")
    if not isinstance(found, list):
        limit = table.number("limit")
        return () if limit is None else (limit,) * targets
    fits = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < float("inf") for v in found)
    if fits and len(found) == targets:
        return tuple(float(v) for v in found)
    table.mistakes.add(table.place("limit"), shown(found), f"a number, or a list of {targets}: one per target")
    return ()
