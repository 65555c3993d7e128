"""Tables for people about champions and runs: what `cli_gate` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text


def audit_table(rows: Sequence[Mapping[str, Any]], timezone: str) -> Table:
    """One row per move of a champion, times in the plant's zone."""
    table = _table("time", "who", "model", "from", "to", "what", "snapshot", "why")
    for row in rows:
        table.add_row(
            _when(row["at"], timezone),
            Text(row["who"]),
            row["model"],
            *("" if row[key] is None else str(row[key]) for key in ("from", "to")),
            row["action"],
            row["snapshot"] or "",
            Text(row["why"]),
        )
    table.caption = None if rows else "no model was ever live here"
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"model", "time"})
    return table


def _when(text: str, timezone: str) -> str:
    """ISO text in UTC, to the second, in the plant's zone."""
    return f"{pd.Timestamp(text).tz_convert(timezone):%Y-%m-%d %H:%M:%S%z}"
