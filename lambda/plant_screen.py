"""Tables for people about plants and their changes: what `cli_apply` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

FEW = 3
"""Changes of one plant that are told one by one."""


def changes_table(changes: Sequence[Mapping[str, Any]]) -> Table:
    """One row per change: what from, what to, what it means or why it is refused."""
    table = _table("change", "what", "from", "to", "effect")
    for change in changes:
        refused = change["refused"]
        effect = Text(change["effect"]) if refused is None else Text(f"REFUSED: {refused}", style="bold")
        table.add_row(change["kind"], Text(change["what"]), Text(change["before"]), Text(change["after"]), effect)
    return table


def plants_table(plants: Sequence[Mapping[str, Any]], timezone: str) -> Table:
    """One row per plant, times in the plant's zone."""
    table = _table("plant", "time", "who", "changes", "why")
    for one in plants:
        when = f"{pd.Timestamp(one['at']).tz_convert(timezone):%Y-%m-%d %H:%M:%S}"
        table.add_row(str(one["number"]), when, Text(one["who"]), Text(_changes(one["changes"])), Text(one["why"]))
    table.caption = None if plants else "no plant was ever applied here"
    return table


def _changes(changes: Sequence[Mapping[str, Any]]) -> str:
    if len(changes) <= FEW:
        return ", ".join(f"{c['kind']} {c['what']}".strip() for c in changes)
    return ", ".join(f"{count} x {kind}" for kind, count in Counter(c["kind"] for c in changes).items())


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"change", "time"})
    return table
