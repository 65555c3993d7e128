"""Rows of `penstock status` for sinks: the line, and how far it is behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.source_rows import ago


def sink_rows(told: Mapping[str, Any], now_ns: int, running: bool) -> Iterator[dict[str, str]]:
    """A row per sink of a stream's status; what is left of one that does not run is sent by the next."""
    for name, sink in told.get("sinks", {}).items():
        part = f"sink {name}"
        if not running:
            left = _behind(sink, now_ns) or "all is sent"
            yield {"part": part, "state": "idle", "what": f"no stream runs; {left}", "todo": ""}
            continue
        fine = sink["up"] and not sink["trouble"]
        todo = "" if fine else "it is tried again by itself; what is said meanwhile waits in the speed view"
        yield {"part": part, "state": "ok" if fine else "wrong", "what": _what(sink, now_ns), "todo": todo}


def _what(sink: Mapping[str, Any], now_ns: int) -> str:
    parts = [f"{'up' if sink['up'] else 'down'} for {ago(sink['since_ns'], now_ns)}", f"{sink['sent']:,} messages"]
    if behind := _behind(sink, now_ns):
        parts.append(behind)
    if sink["skipped"]:
        parts.append(f"{sink['skipped']:,} ticks skipped for newer ones")
    if sink["failures"]:
        parts.append(f"failed {sink['failures']} times")
    if sink["garbage"]:
        parts.append(f"{sink['garbage']:,} predictions not sent")
    if sink["trouble"]:
        parts.append(sink["trouble"])
    return ", ".join(parts)


def _behind(sink: Mapping[str, Any], now_ns: int) -> str:
    if not sink["behind_ticks"]:
        return ""
    since = "" if sink["behind_ns"] is None else f" for {ago(sink['behind_ns'], now_ns)}"
    return f"{sink['behind_ticks']:,} ticks behind{since}"
