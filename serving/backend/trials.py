"""Which way executes a shape fastest on this machine: tried, checked against golden windows, measured.

What counts is the live tick: a row per member where the way has states for it (`bank.py`), else a window. Runs
inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from .bank import Bank, followed
from .choices import chosen
from .forward import DEPTHS, Shape
from .golden import TOLERANCE, furthest
from .group import Group
from .host import F32, Ints
from .variants import NAMES, begin, missing, possible, standard

MEASURED_S = 0.3
"""How long each way is measured, per number of windows."""
WORDS = 320
"""Most characters of a reason."""
Golden = tuple[F32, F32, F32]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to execute a group or a solo, and what came of it."""

    variant: str
    tick_us: float | None = None
    """Microseconds per member of a live tick, both threads at work: by rows where it goes by rows. The least wins."""
    one_us: float | None = None
    """Per window where each member has one."""
    many_us: float | None = None
    """The same where a member has 16: catching up, and views of the past."""
    apart: float | None = None
    """Largest difference from the golden predictions, in units of each output's scale."""
    right: bool = False
    why: str = ""
    """Why it cannot be taken."""


def begun(shape: Shape, key: str, folder: Path) -> Group:
    """An empty group, executed as was chosen for it on this machine; else in the standard way."""
    found = chosen(folder, key)
    if found and possible(found["variant"]):
        return Group.begin(shape, begin(found["variant"], shape), found["tolerance"])
    return Group.begin(shape, standard(shape))


def optimized(group: Group, members: Mapping[int, Golden], tolerance: float = TOLERANCE) -> tuple[Group, list[Trial]]:
    """The group executed by the fastest way that is right for all `members` (row: golden), and what was tried.

    Where none is right the group stays what it was.
    """
    trials, best, least = [], group, np.inf
    for name in NAMES:
        try:
            candidate = group.executed_by(begin(name, group.shape), tolerance)
            trial = _tried(candidate, members, tolerance)
        except Exception as failure:  # a compiler's own failures are of any class; the trial says which
            trials.append(failed(name, failure, lacking=bool(missing(name))))
            continue
        trials.append(trial)
        if trial.right and trial.tick_us is not None and trial.tick_us < least:
            best, least = candidate, trial.tick_us
    return best, trials


def failed(name: str, failure: Exception, *, lacking: bool = False) -> Trial:
    """A trial that came to nothing; `lacking`: only because a package is not there, which is no failure of anybody."""
    return Trial(variant=name, why=str(failure) if lacking else brief(f"{type(failure).__name__}: {failure}"))


def brief(text: str) -> str:
    """In a line, as it stands in a table: compilers are wordy."""
    return shorten(text, WORDS, placeholder=" ...")


def judged(name: str, apart: float, tolerance: float, figures: Mapping[str, float]) -> Trial:
    """A trial that was measured; `apart`: from the golden predictions, in units of each output's scale."""
    right = bool(apart <= tolerance)
    why = "" if right else f"{apart:.3g} of the target's scale from Keras; allowed: {tolerance:g}"
    return Trial(variant=name, apart=float(apart), right=right, why=why, **figures)


def entry_of(variant: str, tolerance: float, members: int, trials: list[Trial]) -> dict[str, Any]:
    """What is remembered of a choice."""
    table = [asdict(trial) for trial in trials]
    return {"variant": variant, "tolerance": tolerance, "members": members, "table": table}


def fastest_us(work: Callable[[], object], windows: int) -> float:
    """Microseconds per window of the fastest of the calls that fit into MEASURED_S."""
    until, best = time.monotonic() + MEASURED_S, np.inf
    while time.monotonic() < until:
        begun_at = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun_at)
    return round(best * 1e6 / windows, 2)


def stays() -> bool:
    """Nobody waits for a trial, so nobody can go."""
    return False


def _tried(group: Group, members: Mapping[int, Golden], tolerance: float) -> Trial:
    apart = max(furthest(group.run_one(row, golden[0], stays), golden) for row, golden in members.items())
    rows = np.array(sorted(members))
    window = next(iter(members.values()))[0][:1]
    one = _windows_us(group, rows, window)
    many = _windows_us(group, np.repeat(rows, DEPTHS[-1]), window)
    figures = {"tick_us": _tick_us(group, rows, window, one), "one_us": one, "many_us": many}
    return judged(group.variant.name, apart, tolerance, figures)


def _windows_us(group: Group, rows: Ints, window: F32) -> float:
    windows = np.repeat(window, len(rows), axis=0)
    return fastest_us(lambda: group.run(rows, windows, stays), len(rows))


def _tick_us(group: Group, rows: Ints, window: F32, one_us: float) -> float:
    """Per member: those that have states cost a row, the others a window of `one_us`."""
    steady = rows[followed(group, rows)]
    if not len(steady):
        return one_us
    bank, ticks = Bank(), count(1)
    newest = np.repeat(window[:, -1], len(steady), axis=0)
    windows = np.repeat(window, len(steady), axis=0)
    bank.learn(group, steady, steady, np.zeros(len(steady), np.int64), windows, stays)
    row_us = fastest_us(
        lambda: bank.follow(group, steady, np.full(len(steady), next(ticks)), newest, stays), len(steady)
    )
    share = len(steady) / len(rows)
    return round(share * row_us + (1 - share) * one_us, 2)
