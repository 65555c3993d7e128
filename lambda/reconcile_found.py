"""What a reconciliation found: verdicts by tick, counts by model, runs of differences with what explains them.

Arithmetic over what was said and what was computed again; opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.journal.ledger import LateRange
from penstock.data.views.reconciled import Standing
from penstock.data.views.speed_view import SaidRows
from penstock.data.windows import Reason
from penstock.reconcile_looks import Block, Look, Past, Ticks
from penstock.verdicts import (
    CLOSE,
    EQUAL,
    LATE,
    PASSED,
    SILENT,
    TOLERANCE,
    UNEXPLAINED,
    Reach,
    judged,
    rows,
    same_inputs,
    touched,
    touching,
)

NO_MODEL = "no_model"
"""It was no member then, or its version is no longer stored."""
COUNTED = (EQUAL, CLOSE, LATE, SILENT, PASSED, NO_MODEL, UNEXPLAINED)
AGREE = (EQUAL, CLOSE)
RANGES = 16
"""Late ranges that are named per difference; their number is told too."""

Told = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A block, compared; n rows."""

    block: Block
    again: SaidRows
    verdicts: NDArray[np.str_]
    """[n]"""
    late: Sequence[LateRange]
    """Those that any of the windows may touch."""

    @classmethod
    def of(cls, block: Block, again: SaidRows, past: Past) -> Judged:
        """`again`: what batch makes of the same ticks."""
        live, reach = block.live, Reach.of(block.spec)
        late = past.near(block.spec, int(live.ticks[0]), int(live.ticks[-1]) + 1)
        # Where inputs have the same bits, no late reading explains another prediction.
        may = touched(late, live.ticks, reach, block.said_at) & ~same_inputs(again, live)
        return cls(block=block, again=again, verdicts=judged(again, live, block.scale, may), late=late)

    @property
    def apart(self) -> float | None:
        """The largest difference of two predictions from the same inputs, in scales; None where there are none."""
        live = self.block.live
        same = np.isin(self.verdicts, AGREE) & (live.reasons == Reason.OK)
        return float((np.abs(self.again.values - live.values) / self.block.scale)[same].max()) if same.any() else None

    def what(self, at: int) -> list[str]:
        """In what row `at` differs: window, reason, filled, prediction."""
        again, live = self.again, self.block.live
        found = [
            name
            for name, column in (("window", "hashes"), ("reason", "reasons"), ("filled", "filled"))
            if getattr(again, column)[at] != getattr(live, column)[at]
        ]
        a, b = again.values[at], live.values[at]
        close_by = (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= TOLERANCE * self.block.scale)
        return found + ([] if close_by.all() else ["prediction"])

    def explained(self, run: slice) -> list[LateRange]:
        """The ranges behind some rows."""
        return touching(self.late, self.block.live.ticks[run], Reach.of(self.block.spec), self.block.said_at[run])

    def differences(self, past: Past) -> Iterator[Told]:
        """Runs of rows one behind the other with one verdict that is not agreement."""
        live, at = self.block.live, np.flatnonzero(~np.isin(self.verdicts, AGREE))
        cuts = np.flatnonzero((np.diff(at) != 1) | (self.verdicts[at][1:] != self.verdicts[at][:-1])) + 1
        for run in np.split(at, cuts) if len(at) else []:
            cut, verdict = slice(int(run[0]), int(run[-1]) + 1), str(self.verdicts[run[0]])
            late = self.explained(cut) if verdict == LATE else []
            what = self.what(cut.start) if verdict in (LATE, UNEXPLAINED) else []
            told = _told(past, self.block.name, int(live.versions[cut.start]), live.ticks[cut], verdict, what)
            yield told | {"ranges": len(late), "late": [past.named(r) for r in late[:RANGES]]}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """All that was found of one model, by tick."""

    look: Look
    parts: Sequence[Judged]
    gone: SaidRows
    """Rows of versions that are no longer stored."""

    @classmethod
    def of(cls, look: Look, parts: Sequence[Judged]) -> Table:
        """`parts` in any order."""
        gone = [v for v, artifact in look.artifacts.items() if artifact is None]
        ordered = sorted(parts, key=lambda part: int(part.block.live.ticks[0]))
        return cls(look=look, parts=ordered, gone=rows(look.said, np.isin(look.said.versions, gone)))

    def differences(self, past: Past) -> Iterator[Told]:
        """What does not agree, and why."""
        name, look = self.look.name, self.look
        for part in self.parts:
            yield from part.differences(past)
        for version in np.unique(self.gone.versions).tolist():
            ticks = self.gone.ticks[self.gone.versions == version]
            yield _told(past, name, version, ticks, NO_MODEL, ["the version is no longer stored"])
        for run in consecutive(look.absent):
            yield _told(past, name, 0, run, NO_MODEL, ["it was no member then"])
        for run in consecutive(look.lost):
            yield _told(past, name, 0, run, UNEXPLAINED, ["the tick has no row"])

    def counts(self, past: Past) -> Told:
        """Of the model, as JSON values."""
        look = self.look
        ticks, apart = look.said.ticks, [a for part in self.parts if (a := part.apart) is not None]
        counts = {verdict: sum(int((p.verdicts == verdict).sum()) for p in self.parts) for verdict in COUNTED}
        counts[NO_MODEL] += len(self.gone.ticks) + len(look.absent)
        counts[UNEXPLAINED] += len(look.lost)
        return {
            "model": look.name,
            "versions": np.unique(look.said.versions).tolist(),
            "from": past.time(int(ticks[0])) if len(ticks) else None,
            "to": past.time(int(ticks[-1]) + 1) if len(ticks) else None,
            "ticks": len(ticks) + len(look.lost) + len(look.absent),
            "predictions": int((look.said.reasons == Reason.OK).sum()),
            **counts,
            "apart": max(apart, default=None),
        }

    def stands(self) -> Standing:
        """After the run: what was open and not looked at stays open."""
        look = self.look
        differ = [part.block.live.ticks[part.verdicts == UNEXPLAINED] for part in self.parts]
        seen = np.concatenate([look.said.ticks, look.lost, look.absent])
        left = np.concatenate([np.zeros(0, np.int64), *(np.arange(a, b) for a, b in look.before.open)])
        ticks = np.union1d(np.setdiff1d(left, seen), np.concatenate([look.lost, *differ]))
        return replace(look.after, open=tuple((int(run[0]), int(run[-1]) + 1) for run in consecutive(ticks)))


def consecutive(ticks: Ticks) -> list[Ticks]:
    """One behind the other, as one."""
    return [part for part in np.split(ticks, np.flatnonzero(np.diff(ticks) > 1) + 1) if len(part)]


def _told(past: Past, model: str, version: int, ticks: Ticks, verdict: str, what: Sequence[str]) -> Told:
    return {
        "model": model, "version": version, "from": past.time(int(ticks[0])), "to": past.time(int(ticks[-1]) + 1),
        "ticks": len(ticks), "verdict": verdict, "differs": list(what), "ranges": 0, "late": [],
    }  # fmt: skip
