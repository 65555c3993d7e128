"""From anything that holds readings to the archive, by way of the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from penstock import inputs, pipeline
from penstock.aggregates import wanted_by
from penstock.data.importing import importers
from penstock.errors import SourceError, nearest
from penstock.import_options import joined

if TYPE_CHECKING:
    from penstock.site import Site

Progress = Callable[[int, int | None, str], None]

ARCHIVED_S = 60.0
"""How long an import waits for the process that runs the site to archive it."""


def load(site: Site, source: Any, progress: Progress | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """`Site.load`."""
    wanted = reading_options(joined(site.folder / "plant.toml", source, options))
    reports = [
        importers.load(
            site.journal, site.layout(), site.registry, part, site.plant,
            name=name, options=wanted, rejects=site.folder / "rejects", progress=progress,
        )
        for name, part in inputs.parts(source, site.plant.name)
    ]  # fmt: skip
    tail = site.journal.tail
    kept = wanted_by(site)
    if not pipeline.archive_all(site.desk(), site.layout, progress, None if kept is None else kept()):
        pipeline.wait_archived(site.desk(), tail, _pauses(ARCHIVED_S))
    pipeline.expire(site.desk(), site.retention(), time.time_ns())
    return _summed(reports)


def reading_options(wanted: Mapping[str, Any]) -> importers.Options:
    """How a source is to be read. None leaves the default. Raises SourceError for an option that there is not."""
    known = [field.name for field in fields(importers.Options)]
    for name in wanted:
        if name not in known:
            near = nearest(name, known)
            hint = f" Did you mean {near!r}?" if near else ""
            raise SourceError(f"unknown option {name!r}; allowed: {', '.join(known)}.{hint}")
    return importers.Options(**{name: value for name, value in wanted.items() if value is not None})


def _summed(reports: Sequence[importers.ImportReport]) -> dict[str, Any]:
    rows = [asdict(report) for report in reports]
    return {key: sum(row[key] for row in rows) if isinstance(rows[0][key], int) else rows[-1][key] for key in rows[0]}


def _pauses(limit_s: float) -> Iterator[None]:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        yield
        time.sleep(0.1)
