"""How far an archive is complete, and what came behind the seam of a batch view since it was made.

Late readings stand in the journal's ledger, whoever brought them. Before any clock has closed a tick nothing is late:
then the journal itself tells what came, and where it was trimmed nobody knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.batch.due import touched
from penstock.data.archive import Head
from penstock.data.frame import Frame
from penstock.data.journal.ledger import LATE, REVISED, late_list
from penstock.data.views.changes import Ranges, joined
from penstock.data.views.made import Made
from penstock.data.views.spans import both, covered
from penstock.data.window_spec import WindowSpec
from penstock.errors import JournalError

if TYPE_CHECKING:
    from penstock.site import Site

EVERYTHING: Ranges = ((-(2**62), 2**62),)


def complete_until(head: Head, spec: WindowSpec) -> int:
    """One past the newest tick of which `head` has all that was in time: closed by the clock, where there is one."""
    known = head.newest if head.closed is None else min(head.newest, head.closed)
    return known - spec.wait


def changed(site: Site, name: str, made: Made, head: Head) -> Ranges:
    """Ticks of the view `made` of a model that cells which came since may change, each by the windows of its version.

    Those of versions that are stored no more are left out: nobody can say them again.
    """
    found: list[tuple[int, int]] = []
    for version in {version for _, _, version in made.spans} & set(site.models.versions(name)):
        spec = WindowSpec.from_json(site.models.card(name, version)["spec"])
        found += both(changed_since(site, made, head, spec), covered(made.spans, version))
    return joined(found)


def changed_since(site: Site, made: Made, head: Head, spec: WindowSpec) -> Ranges:
    """Ticks whose answer some cell that came between `made` and `head` may change; more than those, never less."""
    if made.position >= head.position:
        return ()
    if made.closed is None:  # nobody said then what is late
        cells = _in_journal(site, made.position, head.position, spec)
        return EVERYTHING if cells is None else touched(spec, cells)
    ids = site.registry.lookup()
    shards = {int(site.layout().shard_of()[ids[tag.name]]) for tag in spec.base_tags}
    cells = [
        (late.t0, late.t1)
        for table in (LATE, REVISED)
        for late in late_list(site.journal.folder, table=table)
        if made.position <= late.sequence < head.position and late.shard in shards
    ]
    open_ticks = (made.closed - spec.wait, EVERYTHING[0][1])  # computed while they were open: somebody asked for it
    return joined([*touched(spec, cells), open_ticks])


def _in_journal(site: Site, start: int, stop: int, spec: WindowSpec) -> list[tuple[int, int]] | None:
    """Ticks of the readings of the model's tags in these sequences; None where the journal no longer has them."""
    ids = np.array([site.registry.lookup()[tag.name] for tag in spec.base_tags], np.int32)
    found: list[tuple[int, int]] = []
    try:
        for record in site.journal.read(start, stop):
            readings = record.readings
            if readings is None or not np.isin(readings.tags, ids).any():
                continue
            times = readings.times[np.isin(readings.tags, ids)] if isinstance(readings, Frame) else readings.times
            ticks = np.unique(site.readings.grid.tick(times))
            runs = np.split(ticks, np.flatnonzero(np.diff(ticks) != 1) + 1)
            found += [(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
    except JournalError:
        return None
    return found
