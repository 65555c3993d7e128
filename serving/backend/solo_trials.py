"""Which way executes a solo fastest: each is tried in a process of its own, then here, checked and measured.

A graph may hang XLA's compiler, or crash it, and with it whoever compiles: so another process does it first, for
every number of windows that is ever compiled, and has COMPILE_S for it. What compiled there in that time is the same
code for the same shapes here. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .child import Child, Down, Failed, Guest
from .forward import DEPTHS, XLA
from .golden import apart, furthest
from .solo import WAYS, WINDOW_BUCKETS, Solo
from .trials import Golden, Trial, brief, failed, fastest_us, judged, stays

COMPILE_S = 60.0
"""For the process of its own: TensorFlow's import, the compiler, the golden windows."""
Rehearsed = Callable[[float], str]
"""Why XLA cannot be let in, "" when it can; called with the tolerance."""


def optimized(solo: Solo, golden: Golden, tolerance: float, rehearsed: Rehearsed) -> tuple[Solo, list[Trial]]:
    """The solo executed by the fastest way that is right for its golden windows, and what was tried.

    Where none is right it stays what it was.
    """
    trials, best, least = [], solo, np.inf
    for way in WAYS:
        if way == XLA and (why := rehearsed(tolerance)):
            trials.append(Trial(variant=way, why=brief(why)))
            continue
        try:
            candidate = ready(solo, way, golden, tolerance)
            trial = _tried(candidate, golden)
        except Exception as failure:  # a graph's own failures are of any class; the trial says which
            trials.append(failed(way, failure))
            continue
        trials.append(trial)
        if trial.right and trial.tick_us is not None and trial.tick_us < least:
            best, least = candidate, trial.tick_us
    return best, trials


def ready(solo: Solo, way: str, golden: Golden, tolerance: float) -> Solo:
    """The solo executed that way, all that a request can want compiled."""
    candidate = solo.executed_by(way, tolerance)
    candidate.warm(*golden[0].shape[1:])
    return candidate


def rehearsal(guest: Guest, folder: Path, golden: Golden, tolerance: float, within_s: float = COMPILE_S) -> str:
    """Why `guest` does not answer rightly and in time in a process of its own; "" when it does.

    The calling thread must live until then: the process ends with it.
    """
    until = time.monotonic() + within_s
    child = Child(guest, folder)
    try:
        child.open(until)
        for windows in WINDOW_BUCKETS:
            child.say(np.resize(golden[0], (windows, *golden[0].shape[1:])), until)
        return apart(child.say(golden[0], until), golden, tolerance)
    except (Down, Failed) as failure:
        return str(failure)
    finally:
        child.close()


def _tried(solo: Solo, golden: Golden) -> Trial:
    far = furthest(solo.run_one(0, golden[0], stays), golden)
    one, many = (np.resize(golden[0], (n, *golden[0].shape[1:])) for n in (1, DEPTHS[-1]))
    one_us = fastest_us(lambda: solo.run_one(0, one, stays), 1)
    many_us = fastest_us(lambda: solo.run_one(0, many, stays), len(many))
    figures = {"tick_us": one_us, "one_us": one_us, "many_us": many_us}
    return judged(solo.variant, far, solo.tolerance, figures)
