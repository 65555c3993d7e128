"""The gate: whether a challenger may take the champion's place, told from what both said on the same rows.

    losses of challenger, champion, baselines ─► paired tests ─► verdict and its reason, as the card keeps them

A loss is the squared error in units of the target's scale, the mean over targets. The challenger must be better than
the champion, by a test that a challenger of equal skill passes at `level`. Baselines
know only what the model knows; one that is better than the challenger by the same test forbids it. So a first version,
with no champion before it, passes unless a baseline is better. Rows from anywhere do: recomputed history, or what
champion and challenger have said live. Pure numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.batch.paired import Float64, Paired, paired

Float = NDArray[np.float32] | NDArray[np.float64]


class Verdict(StrEnum):
    """What came of it."""

    BETTER = "better"
    """Than the champion, and no baseline is better than it."""
    FIRST = "first"
    """There is no champion, and no baseline is better than it."""
    NO_BETTER = "no better"
    """Than the champion, as far as these rows tell."""
    BEATEN = "beaten"
    """By a baseline."""
    TOO_FEW = "not enough data"
    """To tell it from anything."""
    UNLIKE = "unlike"
    """The champion predicts something else: targets or horizon have changed."""

    @property
    def passed(self) -> bool:
        """Whether the challenger may take the champion's place."""
        return self in (Verdict.BETTER, Verdict.FIRST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How high the gate is."""

    level: float = 0.02
    """Share of challengers no better than the champion that may pass."""
    least: float = 30.0
    """Independent rows without which nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """n rows in order of time, each with a good truth and an answer of everybody; O targets."""

    truth: Float
    """[n, O]"""
    challenger: Float
    """[n, O]"""
    champion: Float | None
    """[n, O]; None: there is none."""
    baselines: Mapping[str, Float]
    """[n, O] by name."""
    scale: Float
    """[O] what an error of each target is measured in."""
    lags: int = 0
    """Rows on that a prediction's errors are still about the same hours: horizon over spacing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The gate's word on one challenger."""

    verdict: Verdict
    why: str
    against: Mapping[str, Paired]
    """The challenger (A) beside "champion" and each baseline (B)."""
    shares: Mapping[str, float]
    """By how much smaller the challenger's mean loss is, as a share of the other's; negative: larger."""
    bar: Bar

    def to_json(self) -> dict[str, Any]:
        """As it stands in the card under `gate`."""
        told = {
            name: {key: _finite(value) for key, value in asdict(found).items()}
            | {"smaller": _finite(self.shares[name])}
            for name, found in self.against.items()
        }
        return {
            "passed": self.verdict.passed, "verdict": str(self.verdict), "why": self.why, "level": self.bar.level,
            "against": told,
        }  # fmt: skip


def judge(rows: Rows, bar: Bar | None = None) -> Judged:
    """Hold the challenger against everybody else."""
    bar = bar or Bar()
    own = losses(rows.truth, rows.challenger, rows.scale)
    others = {} if rows.champion is None else {"champion": rows.champion}
    found, back, shares = {}, {}, {}
    for name, said in {**others, **rows.baselines}.items():
        loss = losses(rows.truth, said, rows.scale)
        found[name], back[name] = paired(own, loss, rows.lags), paired(loss, own, rows.lags)
        mean = float(np.mean(loss)) if len(loss) else 0.0
        shares[name] = found[name].gain / mean if mean > 0 else math.nan
    verdict, why = _verdict(len(own), found, back, shares, bar)
    return Judged(verdict=verdict, why=why, against=found, shares=shares, bar=bar)


def too_few(n: int, bar: Bar | None = None) -> Judged:
    """Where there are not even rows to test."""
    bar = bar or Bar()
    why = f"not enough data: {n} rows that nobody was trained on; {bar.least:g} independent ones are needed"
    return Judged(verdict=Verdict.TOO_FEW, why=why, against={}, shares={}, bar=bar)


def unlike(champion: str, bar: Bar | None = None) -> Judged:
    """Where there is nothing to compare with."""
    why = f"{champion} predicts another target, or at another horizon: nobody can be better at both"
    return Judged(verdict=Verdict.UNLIKE, why=why, against={}, shares={}, bar=bar or Bar())


def losses(truth: Float, said: Float, scale: Float) -> Float64:
    """[n] squared errors of [n, O] in units of `scale` [O], the mean of the targets."""
    off = (said.astype(np.float64) - truth.astype(np.float64)) / scale.astype(np.float64)
    found: Float64 = np.mean(off**2, axis=1)
    return found


def _verdict(
    n: int, found: Mapping[str, Paired], back: Mapping[str, Paired], shares: Mapping[str, float], bar: Bar
) -> tuple[Verdict, str]:
    """The first of these that holds."""
    champion = found.get("champion")
    least = (
        min((each.effective for each in found.values()), default=float(n)) if champion is None else champion.effective
    )
    if n < bar.least or least < bar.least:
        told = f"{n} rows, worth {least:.0f} independent ones; {bar.least:g} are needed"
        return Verdict.TOO_FEW, f"not enough data: {told}"
    for name, each in back.items():
        if name != "champion" and each.p <= bar.level and each.effective >= bar.least:
            return Verdict.BEATEN, f"{name} is better, by {_figures(-found[name].gain, shares[name], each)}"
    if champion is None:
        names = " or ".join(found) or "no baseline"
        return Verdict.FIRST, f"nothing is live, and {names} is not better on {n} rows"
    told = _figures(champion.gain, shares["champion"], champion)
    if champion.p <= bar.level:
        return Verdict.BETTER, f"better than the champion, by {told}"
    return Verdict.NO_BETTER, f"no better than the champion: {told}, more than {100 * bar.level:g} %"


def _figures(gain: float, share: float, test: Paired) -> str:
    told = "no more" if math.isnan(share) else f"{100 * abs(share):.3g} % of squared error"
    sign = "" if gain >= 0 else "-"
    return f"{sign}{told} (p = {test.p:.2g}, {test.n} rows worth {test.effective:.0f})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
