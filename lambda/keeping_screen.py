"""What `prune`, `backup` and `restore` show to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich.table import Table

from penstock.disk import size_text

if TYPE_CHECKING:
    from penstock.pruning import Row
    from penstock.site_toml import RetentionSettings


def prune_table(rows: Sequence[Row], zone: str, said: RetentionSettings) -> Table:
    """One row per part of which something goes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "older than", "number", "comes back", "stays for", "what"):
        table.add_column(column, no_wrap=column != "what")
    for row in rows:
        before = "" if row.before is None else f"{pd.Timestamp(row.before).tz_convert(zone):%Y-%m-%d %H:%M}"
        held = f"{size_text(row.held)}: {', '.join(row.held_by)}" if row.held else ""
        table.add_row(row.part, before, f"{row.count:,}", size_text(row.bytes), held, row.what)
    back = sum(row.bytes for row in rows)
    if rows:
        table.caption = f"{size_text(back)} come back; of readings within {said.snapshots} (retention.snapshots)"
    else:
        table.caption = "nothing is older than site.toml keeps"
    return table
