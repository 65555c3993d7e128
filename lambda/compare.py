"""Methods beside each other on one span: models, persistence, ridge, only where all of them have an answer.

A row counts when the truth is good and every method has a window there; so nobody wins by having been silent on the
hard ones. The batch layer computes, this file chooses, aligns and tells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.batch.baselines import errors
from penstock.batch.history import Source
from penstock.batch.rivals import Contest, Rivals, rivals
from penstock.batch.view import compute_view
from penstock.data.models import Artifact
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelNotFound, QueryError, nearest
from penstock.serving.alone import alone
from penstock.spans import Moment

if TYPE_CHECKING:
    from penstock.site import Site

BASELINES = ("persistence", "ridge")
CHAMPION, CHALLENGER = "@champion", "@challenger"
_STORED = re.compile(r"([^@]+)(?:@(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """What came of it: n rows, O targets."""

    model: str
    targets: tuple[str, ...]
    units: tuple[str, ...]
    times: NDArray[np.datetime64]
    """[n] UTC, the time predicted for."""
    truth: NDArray[np.float32]
    """[n, O]"""
    said: dict[str, NDArray[np.float32]]
    """[n, O] by method, in the order asked for."""
    sample: dict[str, int]
    """Rows that lie in the method's own training span: on those it is no honest judge of itself."""
    table: pd.DataFrame
    """A row per target and method: n, mae, rmse, r2, bias, skill, in_sample. skill: 1 - rmse / persistence's rmse."""

    def plot(self) -> Any:
        """A holoviews layout per target: bars of RMSE and MAE, and residuals (said minus truth) over time."""
        from penstock.serving.comparison_chart import comparison_chart

        return comparison_chart(self.table, self.residuals())

    def save(self, path: Path) -> None:
        """The plot as one HTML file that needs no server."""
        from penstock.serving.comparison_chart import save_chart

        save_chart(self.plot(), path)

    def residuals(self) -> pd.DataFrame:
        """Columns time, target, method, residual (said minus truth, in the target's unit)."""
        parts = [
            pd.DataFrame({"time": self.times, "target": target, "method": name, "residual": (v - self.truth)[:, o]})
            for o, target in enumerate(self.targets)
            for name, v in self.said.items()
        ]
        return pd.concat(parts, ignore_index=True)


def compare(
    site: Site,
    name: str,
    candidates: Sequence[Artifact | str],
    start: Moment,
    end: Moment,
    *,
    snapshot: str | None = None,
) -> Comparison:
    """`Site.compare`, of the archive's `snapshot`, None: its newest state.

    Raises QueryError where the methods cannot be compared, ModelNotFound.
    """
    chosen = _chosen(site, name, candidates)
    artifacts = {label: c for label, c in chosen.items() if isinstance(c, Artifact)}
    lead = next(iter(artifacts.values())) if artifacts else _newest(site, name)
    spec = WindowSpec.from_json(lead.card["spec"])
    _alike(artifacts, spec)
    begin, stop = site.span(start, end)
    grid = site.readings.grid
    first, last = grid.tick_of(begin), grid.tick_of(stop - 1) + 1
    last = max(first, min(last, site.desk().newest() - site.plant.wait))  # behind it joined tags are not all there
    source = _source(site, snapshot)
    base = _rivals(site, source, lead, spec, (first, last), ridge="ridge" in chosen)
    said: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
    for label, one in chosen.items():
        if isinstance(one, Artifact):
            said[label] = _recomputed(site, source, one, first - spec.horizon, last)
        else:
            said[label] = (base.ticks, base.persistence if one == "persistence" else base.ridge)
    return _judged(site, name, spec, base, said, artifacts)


def _chosen(site: Site, name: str, candidates: Sequence[Artifact | str]) -> dict[str, Artifact | str]:
    """What is meant, by the label it gets; each once."""
    found: dict[str, Artifact | str] = {}
    for candidate in candidates or _default(site, name):
        if isinstance(candidate, str) and candidate not in BASELINES:
            candidate = _stored(site, name, candidate)
        found[candidate if isinstance(candidate, str) else f"{candidate.name}@{candidate.version}"] = candidate
    return found


def _default(site: Site, name: str) -> tuple[str, ...]:
    """The live, else the newest version, persistence, and a ridge where there is a training span to fit it on."""
    lead = CHAMPION if site.models.champion(name) is not None else name
    fitted = "first" in _newest(site, name).card["trained"]
    return (lead, *(b for b in BASELINES if fitted or b != "ridge"))


def _newest(site: Site, name: str) -> Artifact:
    champion = site.models.champion(name)
    return site.artifact(name, champion)


def _stored(site: Site, name: str, text: str) -> Artifact:
    if text == CHAMPION:
        champion = site.models.champion(name)
        if champion is None:
            raise ModelNotFound(f"{name}: is not live, so it has no {CHAMPION}; do: penstock deploy {name}")
        return site.artifact(name, champion)
    if text == CHALLENGER:
        challenger = site.models.challenger(name)
        if challenger is None:
            raise ModelNotFound(f"{name}: has no {CHALLENGER}; do: penstock challenge {name}")
        return site.artifact(name, challenger)
    match = _STORED.fullmatch(text)
    known = [*site.models.names(), *BASELINES, CHAMPION, CHALLENGER]
    if match is None or match[1] not in known:
        near = nearest(text, known)
        hint = f" Did you mean {near!r}?" if near else ""
        raise QueryError(
            f"compare: {text!r}; allowed: NAME, NAME@VERSION, {CHAMPION}, {CHALLENGER}, {', '.join(BASELINES)}.{hint}"
        )
    return site.artifact(match[1], int(match[2]) if match[2] else None)


def _alike(artifacts: dict[str, Artifact], spec: WindowSpec) -> None:
    for label, artifact in artifacts.items():
        own = WindowSpec.from_json(artifact.card["spec"])
        if (own.targets, own.horizon, own.period_ns) != (spec.targets, spec.horizon, spec.period_ns):
            raise QueryError(
                f"compare: {label} predicts {', '.join(own.targets)} {own.horizon} ticks ahead, the first candidate"
                f" {', '.join(spec.targets)} {spec.horizon} ahead; compare models of one target and horizon"
            )


def _source(site: Site, snapshot: str | None) -> Source:
    readings = site.readings
    return Source(folder=readings.folder, snapshot=snapshot or readings.head().snapshot, hatch=site.parts.hatch())


def _rivals(
    site: Site, source: Source, lead: Artifact, spec: WindowSpec, span: tuple[int, int], *, ridge: bool
) -> Rivals:
    """Predicted times lie in the span, so the first window ends `horizon` before it."""
    trained = lead.card["trained"]
    if ridge and "first" not in trained:
        raise QueryError(
            f"compare: {lead.name}@{lead.version} has no training span, so there is no ridge; leave it out"
        )
    ids = site.registry.lookup()
    contest = Contest(
        source=source,
        spec=spec,
        ids=tuple(ids[tag.name] for tag in spec.stored),
        first=span[0] - spec.horizon,
        last=span[1],
        fitted=(trained["first"], trained["last"]) if ridge else None,
        left_out=tuple((begin, end) for begin, end in trained.get("left_out", ())),
    )
    return rivals(site.parts.client(), contest)


def _recomputed(
    site: Site, source: Source, artifact: Artifact, first: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    spec, ids = WindowSpec.from_json(artifact.card["spec"]), site.registry.lookup()
    tags = [ids[tag.name] for tag in spec.base_tags]
    view = compute_view(site.parts.client(), artifact, source, tags, first, last, alone=alone)
    return view.ticks, view.values


def _judged(
    site: Site,
    name: str,
    spec: WindowSpec,
    base: Rivals,
    said: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]],
    artifacts: dict[str, Artifact],
) -> Comparison:
    """Rows that all methods have, and the figures on them."""
    truth = pd.DataFrame(base.truth, index=base.ticks)
    frames = {label: pd.DataFrame(values, index=ticks) for label, (ticks, values) in said.items()}
    common = pd.concat([truth, *frames.values()], axis=1, join="inner").dropna().index
    if not len(common):
        counts = ", ".join(f"{label} {len(frame.dropna())}" for label, frame in frames.items())
        raise QueryError(f"compare: no row has a good truth ({len(truth.dropna())}) and every method ({counts})")
    persistence = pd.DataFrame(base.persistence, index=base.ticks).loc[common].to_numpy()
    aligned = {label: frame.loc[common].to_numpy() for label, frame in frames.items()}
    ticks = common.to_numpy()
    y = truth.loc[common].to_numpy()
    sample = {label: _seen(artifacts[label], ticks) if label in artifacts else 0 for label in said}
    return Comparison(
        model=name,
        targets=spec.targets,
        units=spec.target_units,
        times=(site.readings.grid.time(0) + (ticks + spec.horizon) * spec.period_ns).astype("datetime64[ns]"),
        truth=y,
        said=aligned,
        sample=sample,
        table=table(spec.targets, y, aligned, persistence, sample),
    )


def _seen(artifact: Artifact, ticks: NDArray[np.int64]) -> int:
    trained = artifact.card.get("trained", {})
    return int(np.count_nonzero((ticks >= trained.get("first", 0)) & (ticks < trained.get("last", 0))))


def table(
    targets: Sequence[str],
    truth: NDArray[np.float32],
    said: dict[str, NDArray[np.float32]],
    persistence: NDArray[np.float32],
    sample: dict[str, int],
) -> pd.DataFrame:
    """Figures of [n, O] arrays, a row per target and method; skill NaN where persistence is not known on every row."""
    rows = []
    for o, target in enumerate(targets):
        newest = persistence[:, o]
        bar = errors(truth[:, o], newest)["rmse"] if np.isfinite(newest).all() else np.nan
        for label, values in said.items():
            found = errors(truth[:, o], values[:, o])
            rows.append(
                {"target": target, "method": label, "n": len(truth), **found}
                | {"skill": 1 - found["rmse"] / bar if bar > 0 else np.nan, "in_sample": sample.get(label, 0)}
            )
    columns = ["target", "method", "n", "mae", "rmse", "r2", "bias", "skill", "in_sample"]
    return pd.DataFrame(rows, columns=columns)
