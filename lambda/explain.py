"""Where one prediction comes from: its window, its model, what closed its tick; and whether it can be computed again.

Reads the site's files; the window is cut and the model is run again in this process, without workers or Triton.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock import pipeline, promoting
from penstock.answers import Desk
from penstock.batch.checking import Check, checked, cut_again
from penstock.batch.history import Source
from penstock.data.models import Artifact
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SaidRows, SpeedView
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import ArchiveError, ModelError, QueryError
from penstock.explain_window import window_told
from penstock.merge import LIVE, RECOMPUTED
from penstock.reconcile_found import AGREE, Judged
from penstock.reconcile_looks import EVER, Block, Past, ids_of
from penstock.serving.alone import alone
from penstock.spans import Moment, moment_ns
from penstock.verdicts import LATE, TOLERANCE, rows

if TYPE_CHECKING:
    from penstock.site import Site

NEAR_TICKS = 20_000
"""Around a time without a prediction, in which the nearest ones are looked for."""
RANGES = 16
"""Late ranges that are named."""

Told = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Given:
    """The answer that stands at a tick, as a row of the speed view."""

    layer: str
    row: SaidRows
    """[1]; of a recomputed one without a hash."""
    said_at: int
    """What came with a later journal sequence it cannot have known; far ahead: not known any more."""
    live: SaidRows
    """[1], or [0] where nothing was said live."""


def explain(site: Site, name: str, time: Moment, *, made: bool = False) -> Told:
    """`Site.explain`. Raises ModelNotFound, ModelError, QueryError with the nearest predictions, ArchiveError."""
    desk, grid = site.desk(), site.readings.grid
    view = desk.speed()
    if view is None:
        site.spec(name)
        raise QueryError(f"{site.folder}: nothing was said live yet; do: penstock stream")
    with closing(view):
        if name not in view.models():
            site.spec(name)  # a wrong name is told
        pipeline.archive_all(desk, site.layout)
        at = moment_ns(time, timezone=site.plant.timezone, newest_ns=grid.time(desk.newest()))
        past = Past.of(site, view, -EVER)
        given = _given(site, desk, past, name, grid.tick_of(at), made)
        return _explained(site, past, name, given)


def _given(site: Site, desk: Desk, past: Past, name: str, tick: int, made: bool) -> _Given:
    """The answer for (or made at) the tick. Raises QueryError, ModelError."""
    specs = {v: WindowSpec.from_json(site.models.card(name, v)["spec"]) for v in reversed(site.models.versions(name))}
    for ahead in [0] if made else dict.fromkeys(spec.horizon for spec in specs.values()):
        found = _answer(desk, past.view, name, tick - ahead)
        version = None if found is None else int(found.row.versions[0])
        if found is None or version is None:
            continue
        if version not in specs:
            raise ModelError(f"{name}@{version}: said this, and is no longer stored: it cannot be explained")
        if made or specs[version].horizon == ahead:
            return found
    raise QueryError(_missing(desk, past, name, tick, specs, made))


def _answer(desk: Desk, view: SpeedView, name: str, tick: int) -> _Given | None:
    """As the merged query has it: recomputed below the seam, said live elsewhere."""
    live = view.read(name, tick, tick + 1)
    batch = desk.batch(name)
    told = None if batch is None or tick >= batch.seam else batch.read(tick, tick + 1)
    if batch is not None and told is not None and len(told.ticks):
        row = _row(told, int(batch.attributes["version"]))
        return _Given(layer=RECOMPUTED, row=row, said_at=_seen(desk, str(batch.attributes["snapshot"])), live=live)
    if not len(live.ticks):
        return None
    _, closed_at = view.positions(tick, tick + 1)
    return _Given(layer=LIVE, row=live, said_at=int(closed_at[0]), live=live)


def _row(told: Predictions, version: int) -> SaidRows:
    """A row of the batch view, whose version is 0 where it was withheld."""
    versions = np.where(told.versions == 0, version, told.versions).astype(np.int32)
    return SaidRows(
        ticks=told.ticks, values=told.values, versions=versions, reasons=told.reasons, filled=told.filled,
        hashes=np.zeros(len(told.ticks), np.uint64),
    )  # fmt: skip


def _seen(desk: Desk, snapshot: str) -> int:
    """The newest journal sequence that a state of the archive holds."""
    with suppress(ArchiveError):
        return desk.archive.commit(snapshot).position - 1
    return -1  # expired since: whatever came late may have come behind it


def _missing(desk: Desk, past: Past, name: str, tick: int, specs: Mapping[int, WindowSpec], made: bool) -> str:
    """What to say where there is none."""
    ahead = 0 if made or not specs else next(iter(specs.values())).horizon
    begin, end = tick - ahead - NEAR_TICKS, tick - ahead + NEAR_TICKS
    around, batch = past.view.read(name, begin, end).ticks, desk.batch(name)
    if batch is not None:
        around = np.union1d(around, batch.read(begin, end).ticks)
    around = around + ahead
    nearest = [*around[around < tick][-1:].tolist(), *around[around > tick][:1].tolist()]
    told = " and ".join(past.time(at) for at in nearest)
    hint = f"the nearest ones are {told}" if told else "none is near; `penstock query` shows where there are some"
    return f"{name}: no prediction {'was made at' if made else 'for'} {past.time(tick)}; {hint}"


# Computed again


def _explained(site: Site, past: Past, name: str, given: _Given) -> Told:
    row, version = given.row, int(given.row.versions[0])
    artifact = site.models.load(name, version)
    spec, card = WindowSpec.from_json(artifact.card["spec"]), artifact.card
    source = Source(folder=site.readings.folder, snapshot=past.snapshot)
    check = Check(source=source, artifact=artifact, ids=ids_of(site, artifact), ticks=row.ticks, alone=alone)
    again, made = checked(check), int(row.ticks[0])
    first = made - spec.depth + 1
    block = source.block(spec.base_tags, check.ids, spec.period_ns, first, made + 1, ahead=spec.base_ahead)
    judged = _judged(past, given, spec, artifact, again)
    late = judged.explained(slice(0, 1)) if judged.verdicts[0] == LATE else []
    o = len(spec.targets)
    return {
        "model": name,
        "version": version,
        "time": past.time(made + spec.horizon),
        "made": past.time(made),
        "layer": given.layer,
        "prediction": dict(zip(spec.targets, row.values[0, :o].tolist(), strict=True)),
        "units": dict(zip(spec.targets, spec.target_units, strict=True)),
        "reason": Reason(int(row.reasons[0])).name,
        "filled": bool(row.filled[0]),
        "hash": f"{int(row.hashes[0]):016x}" if row.hashes[0] else None,
        "beside": _beside(spec, given.live),
        "said_live": _live(spec, given) if given.layer == RECOMPUTED else None,
        "closed_by": _closing(site, past, made),
        "window": window_told(spec, block, cut_again(check, spec), past.time),
        "model_made": _lineage(site, card, made),
        "moves": [move for move in promoting.audit(site, name) if move["to"] == version or move["from"] == version],
        "again": {
            "prediction": dict(zip(spec.targets, again.values[0].tolist(), strict=True)),
            "reason": Reason(int(again.reasons[0])).name,
            "filled": bool(again.filled[0]),
            "hash": f"{int(again.hashes[0]):016x}" if again.hashes[0] else None,
            "apart": _apart(again, row, artifact),
        },
        "equal": str(judged.verdicts[0]) in AGREE,
        "verdict": str(judged.verdicts[0]),
        "differs": judged.what(0),
        "ranges": len(late),
        "late": [past.named(r) for r in late[:RANGES]],
    }


def _judged(past: Past, given: _Given, spec: WindowSpec, artifact: Artifact, again: SaidRows) -> Judged:
    """Of a recomputed answer no hash is known: its value, reason and filling are held against the new ones."""
    row = rows(given.row, slice(0, 1))
    o, hashes = len(spec.targets), again.hashes if given.layer == RECOMPUTED else row.hashes
    live = SaidRows(
        ticks=row.ticks, values=np.ascontiguousarray(row.values[:, :o]), versions=row.versions, reasons=row.reasons,
        filled=row.filled, hashes=hashes,
    )  # fmt: skip
    scale, said_at = artifact.golden.scale, np.array([given.said_at])
    if given.layer == RECOMPUTED and _apart_any(again, live, scale):
        live = SaidRows(
            ticks=live.ticks, values=live.values, versions=live.versions, reasons=live.reasons, filled=live.filled,
            hashes=~again.hashes,
        )  # fmt: skip
    block = Block(name=artifact.name, spec=spec, scale=scale, live=live, said_at=said_at)
    return Judged.of(block, again, past)


def _apart_any(again: SaidRows, row: SaidRows, scale: NDArray[np.float32]) -> bool:
    """Whether a value is another one: its window then was, as the same model said it."""
    apart = np.abs(again.values - row.values) > TOLERANCE * scale
    return bool(apart.any() or (np.isnan(again.values) != np.isnan(row.values)).any())


def _apart(again: SaidRows, row: SaidRows, artifact: Artifact) -> float | None:
    """The largest difference, in units of the target's scale; None where one of the two is withheld."""
    o = again.values.shape[1]
    apart = float(np.max(np.abs(again.values - row.values[:, :o]) / artifact.golden.scale))
    return apart if np.isfinite(apart) else None


# Its surroundings


def _beside(spec: WindowSpec, live: SaidRows) -> Told | None:
    """Correction, interval and chance of each target, as they were said; None where nothing was."""
    if live.adjusted is None or not len(live.ticks):
        return None
    said = live.adjusted
    return {
        target: {
            "correction": float(said.corrections[0, o]),
            "corrected": float(live.values[0, o] + said.corrections[0, o]),
            "low": float(said.lows[0, o]),
            "high": float(said.highs[0, o]),
            "chance": float(said.chances[0, o]),
        }
        for o, target in enumerate(spec.targets)
    }


def _live(spec: WindowSpec, given: _Given) -> Told | None:
    """What had been said live where the answer is a recomputed one."""
    if not len(given.live.ticks):
        return None
    return {
        "version": int(given.live.versions[0]),
        "prediction": dict(zip(spec.targets, given.live.values[0, : len(spec.targets)].tolist(), strict=False)),
        "reason": Reason(int(given.live.reasons[0])).name,
    }


def _closing(site: Site, past: Past, made: int) -> Told | None:
    """The clock's decision behind a tick that was said live; its reason is known while the journal holds it."""
    _, closed_at = past.view.positions(made, made + 1)
    if not len(closed_at):
        return None
    at, journal = int(closed_at[0]), site.journal
    told: Told = {"position": at, "reason": None, "until": None}
    if journal.first <= at < journal.tail:
        for record in journal.read(at, at + 1, -1):
            if record.clock is not None:
                told |= {"reason": record.clock.reason, "until": past.time(record.clock.closed)}
    return told


def _lineage(site: Site, card: Mapping[str, Any], made: int) -> Told:
    """On what the version was trained, by which run and which code."""
    trained = card.get("trained", {})
    snapshot, kept = trained.get("snapshot"), False
    with suppress(ArchiveError):
        kept = snapshot is not None and bool(site.readings.commit(str(snapshot)).snapshot)
    first, last = trained.get("first"), trained.get("last")
    return {
        "kind": card.get("kind"),
        "created": card.get("created"),
        "run": card.get("run"),
        "start": trained.get("start"),
        "end": trained.get("end"),
        "windows": trained.get("n_train"),
        "in_sample": first is not None and first <= made < last,
        "snapshot": snapshot,
        "snapshot_kept": kept,
        "penstock": card.get("code_version"),
        "libraries": dict(card.get("libraries", {})),
        "gate": (card.get("gate") or {}).get("verdict"),
    }
