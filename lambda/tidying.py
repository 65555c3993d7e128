"""What a stream does for a site's disk beside its ticks: prunes once a day, and writes down how large everything is.

Briefly each time: what is left is done after the next commit. Whatever fails is logged, and costs the stream nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.disk import note_usage
from penstock.errors import ArchiveBusy, PenstockError
from penstock.pruning import due, prune

if TYPE_CHECKING:
    from penstock.site import Site

log = logging.getLogger(__name__)

BRIEFLY_S = 3.0
"""Of a round: the archive is not written meanwhile."""
LOOK_S = 60.0
"""Between two looks whether something is due."""
AGAIN_S = 600.0
"""After a failure."""
USAGE_S = 3600.0
"""Between two samples of what is used."""


def tidying(site: Site) -> Callable[[], None]:
    """To be called often, from one thread at a time."""
    due_s = usage_due_s = time.monotonic()

    def tidy() -> None:
        nonlocal due_s, usage_due_s
        now_s = time.monotonic()
        try:
            if now_s >= usage_due_s:
                usage_due_s = now_s + USAGE_S
                note_usage(site.folder, time.time_ns())
            if now_s >= due_s and site.settings.retention.limited:
                due_s = now_s + (0.0 if _pruned(site, now_s + BRIEFLY_S) else LOOK_S)
        except (PenstockError, OSError) as error:
            due_s = now_s + AGAIN_S
            log.warning("what is old stays for now: %s", error)

    return tidy


def _pruned(site: Site, until_s: float) -> bool:
    """Whether something is left to be removed at once."""
    now_ns = time.time_ns()
    if not due(site.folder, now_ns):
        return False
    try:
        rows = prune(site, now_ns=now_ns, go_on=lambda: time.monotonic() < until_s, patience_s=0.0)
    except ArchiveBusy:
        return False
    if rows:
        log.info("pruned: %s", "; ".join(f"{row.part} {row.count}" for row in rows))
    return due(site.folder, now_ns)
