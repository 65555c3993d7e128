"""What a site's supervisor and its parts come to in `penstock status`: a row each, with what to do where it is wrong.

part     state  what                                                           to do
dask     ok     tcp://127.0.0.1:41234, 2 workers; restarted 1 time, last at ... (killed by signal 9)
stream   wrong  exit code 1: ...; is started again at 12:00:31                 see .../logs/stream.log
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from penstock.up.record import PartRecord, Record, State

Row = dict[str, str]

ORDER = ("triton", "dask", "stream", "schedule", "page")
"""Of the lines: each after what it needs."""


def rows(folder: str, timezone: str, told: Record | None, alive: bool, own: Sequence[Row]) -> list[Row]:
    """`own` (rows of the parts that may run alone) with what the supervisor knows, and rows for its other parts.

    `told`, `alive`: what the record says, and whether its supervisor lives.
    """
    if told is None:
        return list(own)
    if not alive:
        what = f"the supervisor, pid {told.pid}, has gone without a word; its parts end by themselves"
        return [*own, {"part": "up", "state": "wrong", "what": what, "todo": f"penstock up --site {folder}"}]
    known = {row["part"]: row for row in own}
    parts = known | {part.name: _row(part, known.get(part.name), timezone) for part in told.parts}
    return sorted(parts.values(), key=lambda row: ORDER.index(row["part"]))


def _row(part: PartRecord, own: Row | None, timezone: str) -> Row:
    """A part that is up says itself how it is, where it can."""
    past = history(part, timezone)
    if own is not None and part.state in (State.UP, State.ENDED):
        return {**own, "what": f"{own['what']}{past}"}
    state, what, todo = _state(part, timezone)
    return {"part": part.name, "state": state, "what": f"{what}{past}", "todo": todo}


def _state(part: PartRecord, timezone: str) -> tuple[str, str, str]:
    """(state, what, to do)."""
    where = ", ".join(text for text in (part.address, part.what) if text)
    match part.state:
        case State.UP:
            return "ok", where, ""
        case State.RESTING:
            again = "" if part.again_ns is None else f" at {_time(part.again_ns, timezone)}"
            return "wrong", f"{part.why}; is started again{again}", f"see {part.log}"
        case State.WAITING:
            return "idle", "waits for the parts that it needs", ""
        case State.STARTING:
            return "idle", "is starting", ""
    return "idle", part.what or part.state, ""


def history(part: PartRecord, timezone: str) -> str:
    """How often it was started again, when last and why; empty where it never was."""
    if not part.restarts or part.last_ns is None:
        return ""
    times = "1 time" if part.restarts == 1 else f"{part.restarts} times"
    return f"; restarted {times}, last at {_time(part.last_ns, timezone)} ({part.why})"


def _time(ns: int, timezone: str) -> str:
    return f"{pd.Timestamp(ns, tz='UTC').tz_convert(timezone):%Y-%m-%d %H:%M:%S%z}"
