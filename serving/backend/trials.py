"""Which way executes a shape fastest on this machine: tried, checked against golden windows, measured, remembered.

`variants.json` in the state folder keeps per group what was chosen, the tolerance that it was chosen with, and the
table; a start takes the choice from there. Another processor, TensorFlow or numba: it counts no more. Runs inside
Triton, imports nothing of penstock.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .forward import DEPTHS, Shape
from .golden import TOLERANCE, furthest
from .group import Group
from .host import F32
from .variants import NAMES, begin, possible, standard

FILE = "variants.json"
MEASURED_S = 0.3
"""How long each way is measured, per number of windows."""
Golden = tuple[F32, F32, F32]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to execute a group, and what came of it."""

    variant: str
    one_us: float | None = None
    """Microseconds per window where each member has one, both threads at work: the live tick."""
    many_us: float | None = None
    """The same where a member has 16: catching up, and views of the past."""
    apart: float | None = None
    """Largest difference from the golden predictions, in units of each output's scale."""
    right: bool = False
    why: str = ""
    """Why it cannot be taken."""


def begun(shape: Shape, key: str, folder: Path) -> Group:
    """An empty group, executed as was chosen for it on this machine; else in the standard way."""
    found = _read(folder).get(key)
    if found and found["machine"] == _machine() and possible(found["variant"]):
        return Group.begin(shape, begin(found["variant"], shape), found["tolerance"])
    return Group.begin(shape, standard(shape))


def optimized(group: Group, members: Mapping[int, Golden], tolerance: float = TOLERANCE) -> tuple[Group, list[Trial]]:
    """The group executed by the fastest way that is right for all `members` (row: golden), and what was tried.

    Fastest at one window per member. Where none is right the group stays what it was.
    """
    trials, best, least = [], group, np.inf
    for name in NAMES:
        try:
            candidate = group.executed_by(begin(name, group.shape), tolerance)
        except Exception as failure:  # a compiler's own failures are of any class; the trial says which
            trials.append(Trial(variant=name, why=f"{type(failure).__name__}: {failure}"))
            continue
        trial = _tried(candidate, members, tolerance)
        trials.append(trial)
        if trial.right and trial.one_us is not None and trial.one_us < least:
            best, least = candidate, trial.one_us
    return best, trials


def remember(folder: Path, key: str, group: Group, trials: Sequence[Trial]) -> dict[str, Any]:
    """Write the choice down; what was written."""
    chosen = {
        "machine": _machine(),
        "variant": group.variant.name,
        "tolerance": group.tolerance,
        "members": len(group.used),
        "table": [asdict(trial) for trial in trials],
    }
    aside = folder / (FILE + ".new")
    aside.write_text(json.dumps(_read(folder) | {key: chosen}))
    os.replace(aside, folder / FILE)
    return chosen


def _tried(group: Group, members: Mapping[int, Golden], tolerance: float) -> Trial:
    name = group.variant.name
    apart = max(furthest(group.run_one(row, golden[0], _stays), golden) for row, golden in members.items())
    rows = np.array(sorted(members))
    window = next(iter(members.values()))[0][:1]
    one = _us_per_window(group, rows, window)
    many = _us_per_window(group, np.repeat(rows, DEPTHS[-1]), window)
    right = bool(apart <= tolerance)
    why = "" if right else f"{apart:.3g} of the target's scale from Keras; allowed: {tolerance:g}"
    return Trial(variant=name, one_us=one, many_us=many, apart=float(apart), right=right, why=why)


def _us_per_window(group: Group, rows: Any, window: F32) -> float:
    windows = np.repeat(window, len(rows), axis=0)
    until, best = time.monotonic() + MEASURED_S, np.inf
    while time.monotonic() < until:
        begun_at = time.perf_counter()
        group.run(rows, windows, _stays)
        best = min(best, time.perf_counter() - begun_at)
    return round(best * 1e6 / len(rows), 2)


def _stays() -> bool:
    """Nobody waits for a trial, so nobody can go."""
    return False


def _read(folder: Path) -> dict[str, Any]:
    """What is remembered; nothing where the file is none: it is measured again then."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _machine() -> str:
    """Processor and libraries that the figures are of."""
    said = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    about = sorted({line for line in said if line.startswith(("model name", "flags"))})
    return " ".join([*(_version(p) for p in ("tensorflow", "numba")), f"{zlib.crc32(repr(about).encode()):08x}"])


def _version(package: str) -> str:
    try:
        return f"{package}-{version(package)}"
    except PackageNotFoundError:
        return f"no-{package}"
