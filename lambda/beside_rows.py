"""Rows of `penstock status` for corrections and intervals: how well they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FEW = 100
"""Newest truths below which a coverage is not judged."""
ASTRAY = 0.05
"""How far the newest coverage may lie from the share that is asked for: what chance alone does is about half of it."""


def beside_rows(told: Mapping[str, Any], running: bool) -> Iterator[dict[str, str]]:
    """One per target that something is said beside; `told`: status.json, of an older version perhaps."""
    for model, targets in told.get("beside", {}).items():
        for target, one in targets.items():
            part = f"beside {model}" if len(targets) == 1 else f"beside {model} {target}"
            state, todo = _state(one) if running else ("idle", "")
            yield {"part": part, "state": state, "what": _what(one), "todo": todo}


def _what(one: Mapping[str, Any]) -> str:
    parts = []
    if one["correction"] is not None:
        known = f"{one['known']} truths" if one["known"] else "no truth yet"
        slope = f" and {one['slope']:+.2g} per unit" if one.get("slope") else ""
        parts.append(f"corrected by {one['correction']:+.4g}{slope} ({known} of this version)")
    if one["share"] is not None:
        parts.append(f"{one['share']:.1%} interval: " + _coverage(one))
    return "; ".join(parts) or "chance of crossing the limit"


def _coverage(one: Mapping[str, Any]) -> str:
    if not one["judged"]:
        return "no truth yet"
    whole = one["inside"] / one["judged"]
    return f"{whole:.1%} of {one['judged']:,} truths lay inside, {one['recent']:.1%} of the newest"


def _state(one: Mapping[str, Any]) -> tuple[str, str]:
    far = one["share"] is not None and one["judged"] >= FEW and abs(one["recent"] - one["share"]) > ASTRAY
    return (
        ("wrong", "the model's errors change faster than the interval follows: train it again") if far else ("ok", "")
    )
