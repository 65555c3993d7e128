"""One challenger before the gate: which rows judge it, and everybody's answers on them.

The rows are the newest of the history, which a retrain keeps back, less those that challenger or champion was trained
on and those that plant.toml leaves out. What follows from the answers is arithmetic (`batch/gate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock.batch.gate import Judged, Rows, judge, too_few, unlike
from penstock.batch.history import touches
from penstock.batch.plan import judged_ticks
from penstock.compare import compare
from penstock.data.models import Artifact
from penstock.data.window_spec import WindowSpec
from penstock.errors import QueryError

if TYPE_CHECKING:
    from penstock.site import Site


def judged(site: Site, artifact: Artifact, snapshot: str) -> dict[str, Any]:
    """What stands in the card under `gate`: the verdict on `artifact`, on the archive's `snapshot`.

    Raises ModelError, ArchiveError where somebody's answers cannot be computed.
    """
    grid, retrain = site.readings.grid, site.plant.model(artifact.name).retrain
    first, last = site.readings.span(snapshot=snapshot)
    begin = last - judged_ticks(retrain, grid, first, last)
    champion = site.models.champion(artifact.name)
    found = _found(site, artifact, champion, (begin, last), snapshot)
    start, end = (str(np.datetime64(grid.time(tick), "ns")) + "Z" for tick in (begin, last))
    return found.to_json() | {"champion": champion, "start": start, "end": end, "snapshot": snapshot}


def _found(site: Site, artifact: Artifact, champion: int | None, span: tuple[int, int], snapshot: str) -> Judged:
    spec = WindowSpec.from_json(artifact.card["spec"])
    before = None if champion is None else site.models.load(artifact.name, champion)
    if before is not None and not alike(WindowSpec.from_json(before.card["spec"]), spec):
        return unlike(f"{before.name}@{before.version}")
    baselines = ["ridge", *(["persistence"] if any(f.past_target for f in spec.features) else [])]
    candidates: list[Artifact | str] = [artifact, *([] if before is None else [before]), *baselines]
    start, end = (site.readings.grid.time(tick) for tick in span)
    try:
        found = compare(site, artifact.name, candidates, start, end, snapshot=snapshot)
    except QueryError:  # no row that everybody has
        return too_few(0)
    since = found.times.astype("datetime64[ns]").astype(np.int64) - site.readings.grid.time(0)
    at = fair(spec, since // spec.period_ns - spec.horizon, [a.card for a in (artifact, before) if a is not None])
    if not at.any():
        return too_few(0)

    def said(label: str) -> NDArray[np.float32]:
        return found.said[label][at]

    rows = Rows(
        truth=found.truth[at],
        challenger=said(f"{artifact.name}@{artifact.version}"),
        champion=None if before is None else said(f"{before.name}@{before.version}"),
        baselines={name: said(name) for name in baselines},
        scale=np.array(artifact.card["target_scale"]),
        lags=-(-spec.horizon // spec.every),
    )
    return judge(rows)


def alike(a: WindowSpec, b: WindowSpec) -> bool:
    """Whether two versions predict the same."""
    return (a.targets, a.horizon, a.period_ns) == (b.targets, b.horizon, b.period_ns)


def fair(spec: WindowSpec, ticks: NDArray[np.int64], cards: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    """[n] the `ticks` that none of the versions was trained on, and that plant.toml did not leave out then."""
    found = np.ones(len(ticks), np.bool_)
    for card in cards:
        trained = card["trained"]
        if "first" in trained:
            found &= (ticks < trained["first"]) | (ticks >= trained["last"])
        found &= ~touches(spec, ticks, [(begin, end) for begin, end in trained.get("left_out", ())])
    return found
