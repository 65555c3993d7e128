"""`penstock tags --live`: looks at tags again and again, as a table that is drawn over, or as lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.live import Live
from rich.table import Table

from penstock.live_tags import LiveTags
from penstock.screen import OUT, live_tags_table, show
from penstock.site import Site

ROOM = 4
"""Lines of the screen that are not the table's rows."""


def watch(site: Site, pattern: str, *, every_s: float, once: bool, as_json: bool) -> None:
    """Until Ctrl-C, or once. Raises QueryError where no tag is like `pattern`."""
    tags = LiveTags(site, pattern)
    try:
        if as_json or once or not OUT.is_terminal:
            _print(tags, every_s, once=once, as_json=as_json)
        else:
            _draw(tags, every_s)
    except KeyboardInterrupt:  # that is how it ends
        return


def _print(tags: LiveTags, every_s: float, *, once: bool, as_json: bool) -> None:
    while True:
        rows = tags.look(time.time_ns())
        show({"tags": rows}, as_json, _table(rows))
        if once:
            return
        time.sleep(every_s)


def _draw(tags: LiveTags, every_s: float) -> None:
    with Live(console=OUT, auto_refresh=False, transient=False) as screen:
        while True:
            screen.update(_table(tags.look(time.time_ns())), refresh=True)
            time.sleep(every_s)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    most = max(1, OUT.height - ROOM) if OUT.is_terminal else len(rows)
    return live_tags_table(rows, most)
