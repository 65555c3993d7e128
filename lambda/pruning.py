"""`penstock prune`: what site.toml's `[retention]` no longer keeps, told and removed; the stream does it once a day.

    models ─► what was said ─► what was recomputed ─► readings ─► old commits ─► rejects ─► pruned.json

In that order, as a model names the commits that hold its readings. Each step is a transaction or a rename, or many of
them, and looks for what is still to be done: killed anywhere, the next run finishes. Beside a stream: it takes what
locks its parts take. Old by the site's own newest tick, not by the wall clock, so that a replay of 2014 keeps its year.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from penstock import known
from penstock.data.archive.pruning import Old, limit_of, old_segments
from penstock.data.archive.retention import needed_from
from penstock.data.durable import locked, sync_folder, write_durably
from penstock.data.durations import duration_text, parse_duration
from penstock.data.keeping import versions_kept
from penstock.data.views.batch_view import BatchView
from penstock.data.views.forgetting import (
    Rows,
    compact,
    forget_recomputed,
    forget_said,
    recomputed_before,
    said_before,
)
from penstock.errors import ArchiveBusy, SiteError
from penstock.speed.cursor import BEFORE, Cursor
from penstock.speed.process import occupied

if TYPE_CHECKING:
    from penstock.site import Site

DAY_NS = 86_400_000_000_000
LOCK = "upkeep.lock"
"""Of the site: one process at a time removes what is old, or takes a backup."""
DONE = "pruned.json"
"""Of the site: when all that was old was removed last, and what that was."""
BUSY_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What goes of one part of the site."""

    part: str
    """readings | said | recomputed MODEL | models | rejects"""
    what: str
    count: int
    """Segments, rows, versions, files."""
    bytes: int
    """That come back."""
    held: int = 0
    """Bytes that come back when nobody names their commits any more."""
    held_by: tuple[str, ...] = ()
    before: str | None = None
    """UTC, ISO 8601: what is older goes; None: age does not decide."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What is to go; ticks None: nothing."""

    models: tuple[tuple[str, int, int], ...]
    """(name, version, bytes)"""
    said: int | None
    said_rows: Rows
    recomputed: Mapping[str, tuple[int, Rows]]
    """Tick and rows by model."""
    readings: int | None
    segments: tuple[Old, ...]
    rejects: tuple[Path, ...]


def plan(site: Site, now_ns: int) -> Plan:
    """What `[retention]` no longer keeps as of now; nothing is changed. Raises SiteError, ArchiveError, ModelError."""
    models = _models(site, now_ns)
    said, view = _said(site, now_ns)
    readings, segments = _readings(site, now_ns, {(name, version) for name, version, _ in models})
    return Plan(
        models=tuple(models), said=said, said_rows=view, recomputed=_recomputed(site, now_ns), readings=readings,
        segments=tuple(segments), rejects=tuple(_rejects(site, now_ns)),
    )  # fmt: skip


def rows_of(site: Site, plan: Plan) -> list[Row]:
    """A plan, as people and machines are told it; parts of which nothing goes are left out."""
    found = []
    if plan.models:
        what = ", ".join(f"{name}@{version}" for name, version, _ in plan.models)
        found.append(Row(part="models", what=what, count=len(plan.models), bytes=sum(b for *_, b in plan.models)))
    if plan.said is not None and plan.said_rows.rows:
        found.append(_row(site, "said", "ticks of the speed view", plan.said, plan.said_rows))
    for name, (tick, rows) in plan.recomputed.items():
        if rows.rows:
            found.append(_row(site, f"recomputed {name}", "rows of the batch view", tick, rows))
    if plan.readings is not None and plan.segments:
        held = [s for s in plan.segments if s.held_by]
        found.append(
            Row(
                part="readings", what=f"segments of {_segment_text(site)}", count=len(plan.segments),
                bytes=sum(s.size_bytes for s in plan.segments if not s.held_by),
                held=sum(s.size_bytes for s in held), held_by=tuple(sorted({w for s in held for w in s.held_by})),
                before=_iso(site, plan.readings),
            )
        )  # fmt: skip
    if plan.rejects:
        size = sum(path.stat().st_size for path in plan.rejects)
        found.append(Row(part="rejects", what="files of refused rows", count=len(plan.rejects), bytes=size))
    return found


def prune(
    site: Site, *, now_ns: int, dry_run: bool = False, at_once: bool = False, go_on: Callable[[], bool] = lambda: True,
    patience_s: float = BUSY_S,
) -> list[Row]:  # fmt: skip
    """Remove what `[retention]` no longer keeps; what that is, also where `dry_run` leaves it all.

    `at_once`: old commits of the archive go too, those that nobody names, whatever their age. `go_on` is asked now and
    then; what is left when it says no is left to the next call. Raises SiteError where another process is at it,
    ArchiveBusy.
    """
    if dry_run:
        return rows_of(site, plan(site, now_ns))
    with alone(site.folder, patience_s):
        wanted = plan(site, now_ns)
        rows = rows_of(site, wanted)
        for name, version, _ in wanted.models:
            site.models.remove(name, version)
        _forget(site, wanted, now_ns, go_on)
        if wanted.segments or at_once:
            _remove_readings(site, wanted.readings, now_ns, at_once, patience_s)
        for path in wanted.rejects:
            path.unlink(missing_ok=True)
        if go_on():
            _note(site.folder, now_ns, rows)
    return rows


def due(folder: Path, now_ns: int) -> bool:
    """Whether a day has passed since all that was old was removed."""
    try:
        last = int(json.loads((folder / DONE).read_bytes())["at_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return not 0 <= now_ns - last < DAY_NS


@contextmanager
def alone(folder: Path, patience_s: float) -> Iterator[None]:
    """One process at a time removes or copies. Raises SiteError where another one does for longer."""
    try:
        with locked(folder / LOCK, deadline_s=patience_s):
            yield
    except TimeoutError:
        raise SiteError(f"{folder}: is being pruned or backed up by another process; wait for it") from None


def notes(site: Site) -> list[str]:
    """Where plant.toml wants more history than `keep` leaves."""
    keep = site.settings.retention.keep
    if keep is None:
        return []
    spans = {name: model.retrain.span_ns for name, model in site.plant.models.items()}
    return [
        f"{name} is trained on {duration_text(span)} (retrain.span), of which retention.keep = {keep} leaves less"
        for name, span in spans.items()
        if span is not None and span > parse_duration(keep)
    ]


def _ticks(site: Site, text: str) -> int:
    return max(1, parse_duration(text) // site.plant.period_ns)


def _models(site: Site, now_ns: int) -> list[tuple[str, int, int]]:
    said = site.settings.retention
    if said.keep_models is None:
        return []
    since = None
    if said.keep_said is not None:
        since = datetime.fromtimestamp(now_ns / 1e9, UTC) - timedelta(seconds=parse_duration(said.keep_said) / 1e9)
    found = []
    for name in site.models.names():
        stored = site.models.versions(name)
        shown = _shown(site, name)
        kept = versions_kept(stored, site.models.history(name), said.keep_models, said_since=since, shown=shown)
        for version in set(stored) - kept:
            files = (site.models.folder / name / str(version)).glob("*")
            found.append((name, version, sum(f.stat().st_size for f in files)))
    return sorted(found)


def _shown(site: Site, name: str) -> set[int]:
    """The challenger, and versions whose answers stand in the batch view."""
    challenger = site.models.challenger(name)
    beside = set() if challenger is None else {challenger}
    view = BatchView.open(site.folder / "views" / "batch" / name)
    if view is None:
        return beside
    return beside | {int(v) for v in np.unique(view.read(-(2**62), 2**62).versions) if v > 0}


def _said(site: Site, now_ns: int) -> tuple[int | None, Rows]:
    keep, nothing = site.settings.retention.keep_said, Rows(rows=0, size_bytes=0)
    view = site.desk().speed()
    if keep is None or view is None:
        return None, nothing
    newest = view.last_tick()
    view.close()
    if newest is None:
        return None, nothing
    tick = min(newest, site.readings.grid.tick_of(now_ns)) - _ticks(site, keep)
    tick = min([tick, *(cursor + 1 for cursor in _unsent(site))])
    return tick, said_before(site.folder / "views" / "speed.sqlite", tick)


def _unsent(site: Site) -> list[int]:
    """How far each sink of predictions is: what it has not sent stays."""
    names = [name for name, sink in site.plant.sinks.items() if not sink.aggregates]
    ticks = [Cursor(site.folder / "speed" / "sinks", name).tick for name in names]
    return [tick for tick in ticks if tick is not None and tick > BEFORE]


def _recomputed(site: Site, now_ns: int) -> dict[str, tuple[int, Rows]]:
    keep, home = site.settings.retention.keep_views, site.folder / "views" / "batch"
    if keep is None or not home.is_dir():
        return {}
    tick = _newest(site, now_ns) - _ticks(site, keep)
    names = sorted(p.name for p in home.iterdir() if p.is_dir())
    return {name: (tick, recomputed_before(home / name, tick)) for name in names}


def _readings(site: Site, now_ns: int, going: set[tuple[str, int]]) -> tuple[int | None, list[Old]]:
    keep, archive = site.settings.retention.keep, site.readings
    head = archive.head()
    if keep is None or head.span[0] == head.span[1]:
        return None, []
    tick = limit_of(
        _ticks(site, keep), head.newest, head.closed, archive.grid.tick_of(now_ns), _needed(site), archive.segment_ticks
    )
    return tick, old_segments(archive, tick, _named(site, going))


def _needed(site: Site) -> int:
    """Ticks from here on the stream may read once more: its next tick, and what its windows reach back."""
    view, clock = site.desk().speed(), site.journal.clock()
    said = None
    if view is not None:
        said = view.last_tick()
        view.close()
    begin = said if said is not None else site.readings.head().newest if clock is None else clock.closed
    specs = [known.spec(site.plant, site.models, name) for name in site.model_names()]
    return begin - max((spec.depth + spec.reach + spec.wait for spec in specs), default=0)


def _named(site: Site, going: set[tuple[str, int]]) -> dict[str, list[str]]:
    """Who names which commit, but for versions that go themselves."""
    found: dict[str, list[str]] = {}
    for name in site.models.names():
        for version in site.models.versions(name):
            snapshot = site.models.card(name, version).get("trained", {}).get("snapshot")
            if snapshot is not None and (name, version) not in going:
                found.setdefault(str(snapshot), []).append(f"{name}@{version}")
    for snapshot in site.runs.snapshots():
        found.setdefault(snapshot, []).append("a training that is under way")
    return found


def _rejects(site: Site, now_ns: int) -> list[Path]:
    keep, home = site.settings.retention.keep_rejects, site.folder / "rejects"
    if keep is None or not home.is_dir():
        return []
    old_ns = now_ns - parse_duration(keep)
    return sorted(path for path in home.iterdir() if path.is_file() and path.stat().st_mtime_ns < old_ns)


def _newest(site: Site, now_ns: int) -> int:
    return min(site.desk().newest(), site.readings.grid.tick_of(now_ns))


def _forget(site: Site, wanted: Plan, now_ns: int, go_on: Callable[[], bool]) -> None:
    path = site.folder / "views" / "speed.sqlite"
    if wanted.said is not None:
        forget_said(path, wanted.said, go_on=go_on)
        if wanted.said_rows.rows and not occupied(site.folder / "speed"):
            compact(path)
    older_ns = now_ns - site.settings.retention.snapshots_ns
    for name, (tick, rows) in wanted.recomputed.items():
        if rows.rows and go_on():
            forget_recomputed(site.folder / "views" / "batch" / name, tick, older_than_ns=older_ns)


def _remove_readings(site: Site, tick: int | None, now_ns: int, at_once: bool, patience_s: float) -> None:
    """In one commit; then the old commits that nobody needs, so that what only they hold comes back."""
    until = time.monotonic() + patience_s
    while True:
        try:
            with site.readings.committer() as committer:
                if tick is not None:
                    committer.prune(tick)
                older_ns = now_ns if at_once else now_ns - site.settings.retention.snapshots_ns
                committer.expire(set(site.retention().named()), _expirable(site), older_than_ns=older_ns)
            return
        except ArchiveBusy:
            if time.monotonic() > until:
                raise
        time.sleep(POLL_S)


def _expirable(site: Site) -> int:
    """Journal position from which a stream's shards still find their commits."""
    view = site.desk().speed()
    if view is None:
        return needed_from(site.journal, None)
    try:
        return needed_from(site.journal, view.last_position())
    finally:
        view.close()


def _note(folder: Path, now_ns: int, rows: list[Row]) -> None:
    aside = folder / f"{DONE}.new"
    write_durably(aside, json.dumps({"at_ns": now_ns, "rows": [asdict(row) for row in rows]}).encode())
    aside.replace(folder / DONE)
    sync_folder(folder)


def _row(site: Site, part: str, what: str, tick: int, rows: Rows) -> Row:
    return Row(part=part, what=what, count=rows.rows, bytes=rows.size_bytes, before=_iso(site, tick))


def _iso(site: Site, tick: int) -> str:
    return pd.Timestamp(site.readings.grid.time(tick), tz="UTC").isoformat()


def _segment_text(site: Site) -> str:
    return duration_text(site.readings.segment_ticks * site.plant.period_ns)


def told(rows: list[Row]) -> list[dict[str, Any]]:
    """As `--json` and `Site.prune` give them."""
    return [asdict(row) for row in rows]
