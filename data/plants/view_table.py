"""The table `view` of a model: how much of its past is kept recomputed, and when that is brought up."""

from __future__ import annotations

from penstock.data.plant import ViewSpec
from penstock.data.plants.cron_text import parse_cron
from penstock.data.plants.tables import Table

VIEW_KEYS = ("history", "cron")


def read_view(table: Table) -> ViewSpec:
    """Mistakes are noted and their keys left at the default."""
    table.close(VIEW_KEYS)
    cron = table.text("cron") or None
    try:
        parse_cron(cron or "* * * * *")
    except ValueError as error:
        table.wrong("cron", str(error))
        cron = None
    history_ns = table.duration("history")
    if history_ns == 0:
        table.wrong("history", 'a duration longer than 0, such as "30d"')
        history_ns = None
    return ViewSpec(history_ns=history_ns, cron=cron)
