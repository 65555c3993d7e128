"""The answer of `penstock size`: words in, one plain object out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock.data.durations import parse_duration
from penstock.errors import Mistake, PlantError
from penstock.size import Need, Wish, needs_of
from penstock.size_advice import changes
from penstock.size_machine import machine_of


def sized(
    numbers: Mapping[str, int], *, tick: str, keep: str, disk: Path, probe: bool, by_rows: bool = True
) -> dict[str, Any]:
    """JSON: wish, machine, needs, changes, fits. `numbers`, and `by_rows`, are fields of a Wish.

    Raises PlantError for a text that is no duration, SiteError where `disk` is no folder.
    """
    wish = Wish(**numbers, tick_ns=_duration("--tick", tick), keep_ns=_duration("--keep", keep), by_rows=by_rows)
    machine = machine_of(disk, wish.shape, wish.frame_bytes, probe=probe)
    needs = needs_of(wish, machine)
    return {
        "wish": {**numbers, "tick": tick, "keep": keep, "by_rows": by_rows},
        "machine": asdict(machine),
        "needs": [_told(need) for need in needs],
        "changes": changes(wish, machine, needs),
        "fits": all(need.state != "no" for need in needs),
    }


def _told(need: Need) -> dict[str, Any]:
    return {**asdict(need), "parts": dict(need.parts), "share": need.share, "state": need.state}


def _duration(option: str, text: str) -> int:
    """Nanoseconds, more than none. Raises PlantError."""
    try:
        span = parse_duration(text)
    except ValueError:
        span = 0
    if span > 0:
        return span
    allowed = 'a duration longer than 0, such as "1s", "500ms", "1min" or "30d"'
    raise PlantError([Mistake(file="penstock size", key=option, found=repr(text), allowed=allowed)])
