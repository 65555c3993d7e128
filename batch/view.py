"""Recomputing a model's answers over history, on Dask, for the batch view.

Each task reads its own block of the archive and returns rows; the windows are
those that the speed layer would have cut from the same readings. The caller
commits the rows (`data/batch_view.py`): workers never write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from penstock.batch.history import Source, answered
from penstock.batch.predicting import Alone, predicted
from penstock.batch.spreading import DEADLINE_S, spread
from penstock.data import windows
from penstock.data.models import Artifact
from penstock.data.views.predictions import Predictions
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason, Windows

BLOCK_TICKS = 20_000
"""Ticks per task; what the first windows reach back is read once more."""
Served = Callable[[Artifact], AbstractContextManager[Callable[[NDArray[np.float32]], NDArray[np.float32] | None]]]
"""Asks servers on which the version may be live; None of whatever they do not answer: it is not, or they are away."""
ASKED = 512
"""Windows of one question to a server: live ticks wait behind it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recompute:
    """One block of one model's view; a value that any worker which sees the archive can run."""

    source: Source
    artifact: Artifact
    ids: tuple[int, ...]
    """Registry ids of the spec's `base_tags`, in order."""
    first: int
    last: int
    """Ticks first..last-1."""
    alone: Alone | None = None
    served: Served | None = None
    """Where the live version is asked, so that both layers have the same arithmetic; None: Keras says it."""


def compute_view(
    client: Client,
    artifact: Artifact,
    source: Source,
    ids: Sequence[int],
    first: int,
    last: int,
    *,
    alone: Alone | None = None,
    block_ticks: int = BLOCK_TICKS,
    deadline_s: float = DEADLINE_S,
) -> Predictions:
    """What `artifact` says at every tick of first..last-1 at which it answers.

    `ids` are the registry ids of its spec's `base_tags`; `alone` runs the kinds that are no Keras
    models. Raises ModelError when the artifact cannot be run, ArchiveError when the archive cannot be read,
    DeadlineExceeded.
    """
    whole = Recompute(source=source, artifact=artifact, ids=tuple(ids), first=first, last=last, alone=alone)
    (rows,) = compute_spans(client, [whole], block_ticks=block_ticks, deadline_s=deadline_s)
    return rows


def compute_spans(
    client: Client,
    spans: Sequence[Recompute],
    *,
    block_ticks: int = BLOCK_TICKS,
    deadline_s: float = DEADLINE_S,
) -> list[Predictions]:
    """The rows of each of some spans of one model, of any of its versions, all at once. Raises as `compute_view`."""
    blocks = (
        ((k, t), replace(span, first=t, last=min(t + block_ticks, span.last)))
        for k, span in enumerate(spans)
        for t in range(span.first, span.last, block_ticks)
    )
    what = f"batch view of {spans[0].artifact.name!r}"
    done = dict(spread(client, recompute, blocks, what=what, deadline_s=deadline_s))
    found = [[Predictions.nothing(_outputs(span))] for span in spans]
    for k, first in sorted(done):
        found[k].append(done[k, first])
    return [Predictions.of(parts) for parts in found]


def _outputs(span: Recompute) -> int:
    return len(WindowSpec.from_json(span.artifact.card["spec"]).targets)


def recompute(block: Recompute) -> Predictions:
    """The rows of one block, on a worker."""
    card = block.artifact.card
    spec = WindowSpec.from_json(card["spec"])
    begin = block.first - spec.depth + 1
    rows = block.source.block(spec.base_tags, block.ids, spec.period_ns, begin, block.last, ahead=spec.base_ahead)
    ends = answered(spec, block.first, block.last)
    cut = windows.cut(spec, windows.prepare(spec, rows), ends)
    fine = cut.reason == Reason.OK
    values = np.full((len(ends), len(spec.targets)), np.nan, np.float32)
    values[fine] = _said(block, cut, np.flatnonzero(fine))
    trained = card.get("trained", {})
    return Predictions(
        ticks=ends,
        values=values,
        versions=np.where(fine, block.artifact.version, 0).astype(np.int64),
        reasons=cut.reason,
        filled=cut.filled,
        sample=(ends >= trained.get("first", 0)) & (ends < trained.get("last", 0)),
    )


def _said(block: Recompute, cut: Windows, at: NDArray[np.intp]) -> NDArray[np.float32]:
    """[len(at), O] by the server where the version is live, else by the model itself."""
    live = _live(block, cut, at) if len(at) else None
    return predicted(block.artifact, cut, at, block.alone) if live is None else live


def _live(block: Recompute, cut: Windows, at: NDArray[np.intp]) -> NDArray[np.float32] | None:
    """What the server says; None where it does not say all of it: a block has one arithmetic."""
    artifact = block.artifact
    if block.served is None or artifact.kind != "lstm" or artifact.card.get("isolate"):
        return None  # the engine's own LSTMs alone: a process of a model has half a second for a call
    said = []
    with block.served(artifact) as ask:
        for begin in range(0, len(at), ASKED):
            values = ask(cut.take(at[begin : begin + ASKED]))
            if values is None:
                return None
            said.append(values)
    return np.concatenate(said)
