"""What a replay found: each tick judged against what was said live, in rows, figures and named differences.

Arithmetic over what `replay` gives; truth comes from the site's files. A tick in the journal's own order has nothing
that would explain a difference; one from the archive has the late readings that its window touches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.answers import truth_at
from penstock.batch.baselines import errors
from penstock.data.journal.ledger import LATE as LATE_LIST
from penstock.data.journal.ledger import REVISED, LateRange, late_list
from penstock.data.past import Order
from penstock.data.views.speed_view import SaidRows
from penstock.data.windows import Reason
from penstock.errors import QueryError
from penstock.replay import Said
from penstock.replay_pieces import Piece
from penstock.verdicts import DIFFERENT, LATE, UNEXPLAINED, VERDICTS, Reach, beside, judged, near, touched, touching

if TYPE_CHECKING:
    from penstock.site import Site

Column = NDArray[np.float32]
WRITERS = {".csv": "to_csv", ".parquet": "to_parquet"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """A replay's outcome."""

    rows: pd.DataFrame
    """A row per model, tick and target: time (predicted for), made, model, version, target, unit, prediction, reason,
    filled, live, live_version, live_reason, truth, order, verdict. Times are UTC."""
    ticks: int
    order: Mapping[str, int]
    """Ticks by the order in which they were laid out: journal, archive, as stored."""
    models: Sequence[Mapping[str, Any]]
    """Per model: `ticks`, the count of each verdict, `apart` (largest difference in scales), and figures by target."""
    differences: Sequence[Mapping[str, Any]]
    """Runs of ticks that differ: model, from, to, ticks, verdict, and the late ranges that explain it."""

    @property
    def unexplained(self) -> int:
        """Answers that differ without a reason."""
        return sum(int(m[UNEXPLAINED]) for m in self.models)

    def summary(self) -> dict[str, Any]:
        """All but the rows, as plain values."""
        return {
            "ticks": self.ticks,
            "order": dict(self.order),
            "models": [dict(m) for m in self.models],
            "unexplained": self.unexplained,
            "differences": [dict(d) for d in self.differences],
        }

    def write(self, path: Path) -> None:
        """The rows as .csv or .parquet, whole or not at all. Raises QueryError for another ending or a file there."""
        checked(path)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            getattr(self.rows, WRITERS[path.suffix])(aside, index=False)
            aside.rename(path)
        except OSError as error:
            raise QueryError(f"{path}: cannot be written: {error}; check disk and rights") from error
        finally:
            aside.unlink(missing_ok=True)


def checked(path: Path) -> Path:
    """A file that can be written to. Raises QueryError."""
    if path.suffix not in WRITERS:
        raise QueryError(f"{path}: allowed endings are {', '.join(WRITERS)}")
    if path.exists():
        raise QueryError(f"{path}: is there already; name another file")
    return path


def report(site: Site, pieces: Sequence[Piece], said: Iterable[Said]) -> Replayed:
    """Judge what was said again, model by model. Raises what `said` raises."""
    late, parts = [r for table in (LATE_LIST, REVISED) for r in late_list(site.folder / "journal", table=table)], []
    order = dict.fromkeys((o.value for o in Order), 0)
    seen: set[int] = set()
    for one in said:
        parts.append(_Judged.of(site, one, late))
        if one.piece.first not in seen:
            seen.add(one.piece.first)
            for name, ticks in _orders(one):
                order[name] += ticks
    names = list(dict.fromkeys(part.said.name for part in parts))
    return Replayed(
        rows=pd.concat([part.rows(site) for part in parts], ignore_index=True),
        ticks=sum(p.last - p.first for p in pieces),
        order=order,
        models=[_figures(name, [p for p in parts if p.said.name == name]) for name in names],
        differences=[found for part in parts for found in part.differences(site)],
    )


def _orders(said: Said) -> Iterator[tuple[str, int]]:
    piece = said.piece
    if piece.closes is None:
        yield Order.STORED.value, piece.last - piece.first
    else:
        yield Order.ARCHIVE.value, said.exact - piece.first
        yield Order.JOURNAL.value, piece.last - said.exact


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judged:
    """One model in one piece; n ticks."""

    said: Said
    live: SaidRows
    """[n] what was live at the same ticks; version 0 where it said nothing."""
    truth: NDArray[np.float32]
    """[n, targets]"""
    verdicts: NDArray[np.str_]
    """[n]"""
    late: Sequence[LateRange]
    """Those that any of its windows touches."""

    @classmethod
    def of(cls, site: Site, said: Said, late: Sequence[LateRange]) -> _Judged:
        live, reach = beside(said.again, said.live), Reach.of(said.spec)
        ids = site.registry.lookup()
        shards = {int(site.layout().shard_of()[ids[t.name]]) for t in said.spec.base_tags if t.name in ids}
        close_by = near(late, shards, said.piece.first, said.piece.last, reach)
        return cls(
            said=said, live=live, late=close_by, truth=truth_at(site.desk(), said.spec, said.again.ticks),
            verdicts=judged(said.again, live, said.scale, _touched(said, close_by, reach)),
        )  # fmt: skip

    def rows(self, site: Site) -> pd.DataFrame:
        """Long form: a row per tick and target."""
        again, spec, o = self.said.again, self.said.spec, len(self.said.spec.targets)
        made = site.readings.grid.origin_ns + again.ticks * site.readings.grid.period_ns
        times = [pd.to_datetime(np.repeat(at, o), utc=True) for at in (made + spec.horizon * spec.period_ns, made)]
        order = np.where(again.ticks < self.said.exact, Order.ARCHIVE.value, Order.JOURNAL.value)
        if self.said.piece.closes is None:
            order = np.full(len(again.ticks), Order.STORED.value)
        each = {
            "version": again.versions, "reason": _reasons(again.reasons), "filled": again.filled,
            "live_version": self.live.versions, "live_reason": _live_reasons(self.live), "order": order,
            "verdict": self.verdicts,
        }  # fmt: skip
        table = {
            "time": times[0], "made": times[1], "model": self.said.name,
            "target": np.tile(np.array(spec.targets, object), len(again.ticks)),
            "unit": np.tile(np.array(spec.target_units, object), len(again.ticks)),
            "prediction": again.values.reshape(-1), "live": self.live.values.reshape(-1),
            "truth": self.truth.reshape(-1), **{key: np.repeat(column, o) for key, column in each.items()},
        }  # fmt: skip
        return pd.DataFrame(table)

    def target(self, o: int) -> tuple[Column, Column, Column]:
        """[n] truth, what was said again and what was live, of one target."""
        return self.truth[:, o], self.said.again.values[:, o], self.live.values[:, o]

    def differences(self, site: Site) -> Iterator[dict[str, Any]]:
        """Runs of ticks one behind the other with one verdict that is a difference."""
        ticks = self.said.again.ticks
        at = np.flatnonzero(np.isin(self.verdicts, DIFFERENT))
        cuts = np.flatnonzero((np.diff(at) != 1) | (self.verdicts[at][1:] != self.verdicts[at][:-1])) + 1
        for run in np.split(at, cuts) if len(at) else []:
            first, last, verdict = int(ticks[run[0]]), int(ticks[run[-1]]), str(self.verdicts[run[0]])
            found = self._named(site, first, last) if verdict == LATE else []
            yield {
                "model": self.said.name, "from": _time(site, first), "to": _time(site, last + 1), "ticks": len(run),
                "verdict": verdict, "late": found,
            }  # fmt: skip

    def _named(self, site: Site, first: int, last: int) -> list[dict[str, Any]]:
        return [
            {"source": r.source, "from": _time(site, r.t0), "to": _time(site, r.t1), "readings": r.count}
            for r in touching(self.late, np.arange(first, last + 1), Reach.of(self.said.spec))
        ]


def _touched(said: Said, late: Sequence[LateRange], reach: Reach) -> NDArray[np.bool_]:
    """[n] ticks that are not in the journal's own order and whose windows late readings, or revisions, touch."""
    return touched(late, said.again.ticks, reach) & (said.again.ticks < said.exact)


def _figures(name: str, parts: Sequence[_Judged]) -> dict[str, Any]:
    verdicts = np.concatenate([p.verdicts for p in parts])
    versions = sorted({p.said.version for p in parts})
    apart = [np.abs(p.said.again.values - p.live.values) / p.said.scale for p in parts]
    figures = {
        target: _figure(*(np.concatenate(columns) for columns in zip(*(p.target(o) for p in parts), strict=True)))
        for o, target in enumerate(parts[0].said.spec.targets)
    }
    known = np.concatenate([a.reshape(-1) for a in apart])
    return {
        "model": name,
        "versions": versions,
        "ticks": len(verdicts),
        "predictions": int(sum((p.said.again.reasons == Reason.OK).sum() for p in parts)),
        **{verdict: int((verdicts == verdict).sum()) for verdict in VERDICTS},
        "apart": float(np.nanmax(known)) if np.isfinite(known).any() else None,
        "targets": figures,
    }


def _figure(truth: Column, again: Column, live: Column) -> dict[str, Any]:
    """Errors against truth, on rows where both said something; on those of the replay alone where nothing was live."""
    both = np.isfinite(truth) & np.isfinite(again) & np.isfinite(live)
    rows = both if both.any() else np.isfinite(truth) & np.isfinite(again)
    found: dict[str, Any] = {"n": int(rows.sum()), "mae": None, "rmse": None, "live_mae": None, "live_rmse": None}
    if rows.any():
        own = errors(truth[rows], again[rows])
        found |= {"mae": own["mae"], "rmse": own["rmse"]}
    if both.any():
        other = errors(truth[both], live[both])
        found |= {"live_mae": other["mae"], "live_rmse": other["rmse"]}
    return found


def _reasons(reasons: NDArray[np.uint8]) -> NDArray[np.str_]:
    return np.array([Reason(int(r)).name for r in reasons], "<U12")


def _live_reasons(live: SaidRows) -> NDArray[np.str_]:
    return np.where(live.versions == 0, "", _reasons(live.reasons))


def _time(site: Site, tick: int) -> str:
    at = pd.Timestamp(site.readings.grid.time(tick), tz="UTC").tz_convert(site.plant.timezone)
    return str(at.isoformat())
