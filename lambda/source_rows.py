"""Rows of `penstock status` for live sources: the age of the line and that of the data, apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 3
"""Names that are no tags, as many as fit a row; the status file has them all."""


def source_rows(told: Mapping[str, Any], now_ns: int, running: bool) -> Iterator[dict[str, str]]:
    """A row per live source of a stream's status; none of a stream that does not run says how it is."""
    for name, source in told.get("sources", {}).items():
        if not running:
            yield {"part": f"source {name}", "state": "idle", "what": "not read: no stream runs", "todo": ""}
            continue
        state = "ok" if source["up"] and not source["trouble"] else "wrong"
        todo = _todo(source)
        yield {"part": f"source {name}", "state": state, "what": _what(source, now_ns), "todo": todo}


def _what(source: Mapping[str, Any], now_ns: int) -> str:
    since = ago(source["since_ns"], now_ns)
    parts = [f"{'up' if source['up'] else 'down'} for {since}"]
    if source["connects"] > 1:
        parts.append(f"connected {source['connects']} times")
    parts.append(f"heard {ago(source['heard_ns'], now_ns)} ago" if source["heard_ns"] else "nothing heard yet")
    if source["newest_ns"] is not None:
        parts.append(f"newest reading {ago(source['newest_ns'], now_ns)} old")
    if source["idle"]:
        parts.append("silent: it holds no tick")
    if source["garbage"]:
        parts.append(f"{source['garbage']:,} unreadable messages")
    if source["trouble"]:
        parts.append(source["trouble"])
    return ", ".join(parts)


def _todo(source: Mapping[str, Any]) -> str:
    if source["unmapped"]:
        most = sorted(source["unmapped"], key=source["unmapped"].__getitem__, reverse=True)
        more = f" and {len(most) - SHOWN} more" if len(most) > SHOWN else ""
        return f"no tags: {', '.join(most[:SHOWN])}{more}; add them to plant.toml, or leave them out in columns"
    return "" if source["up"] else "it is tried again by itself"


def ago(then_ns: int, now_ns: int) -> str:
    """How long that is, in words."""
    seconds = max(0, now_ns - then_ns) / 1e9
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"
