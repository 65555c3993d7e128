"""Tables for people about batch views: what `cli_views` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table


def recomputed_table(rows: Sequence[Mapping[str, Any]], timezone: str, kept: Mapping[str, Any]) -> Table:
    """One row per model, times in the plant's zone; `kept`: what `aggregates` came to, if they were asked for."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "from", "seam", "ticks", "changed"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        times = (
            f"{pd.Timestamp(row[key], tz='UTC').tz_convert(timezone):%Y-%m-%d %H:%M:%S%z}" for key in ("from", "seam")
        )
        table.add_row(row["recomputed"], *times, f"{row['ticks']:,}", f"{row['changed']:,}")
    notes = [] if rows or kept else ["no model is live"]
    if kept:
        told = pd.Timestamp(kept["aggregates"]["told"], tz="UTC").tz_convert(timezone)
        notes.append(f"aggregates are told up to {told:%Y-%m-%d %H:%M:%S%z}")
    table.caption = "; ".join(notes) or None
    return table
