"""Recomputing a model's answers over history, on Dask, for the batch view.

Each task reads its own block of the archive and returns rows; the windows are
those that the speed layer would have cut from the same readings. The caller
commits the rows (`data/batch_view.py`): workers never write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any

import numpy as np
from distributed import Client, as_completed

from penstock.batch.history import Source, answered
from penstock.batch.predicting import Alone, predicted
from penstock.data import windows
from penstock.data.models import Artifact
from penstock.data.views.predictions import Predictions
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import DeadlineExceeded
from penstock.room import room

BLOCK_TICKS = 20_000
"""Ticks per task; what the first windows reach back is read once more."""
DEADLINE_S = 6 * 3600.0
IN_FLIGHT = 4
"""Tasks per worker at a time: each carries the model's file."""


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
    blocks = iter(
        [
            Recompute(
                source=source, artifact=artifact, ids=tuple(ids), first=t, last=min(t + block_ticks, last), alone=alone
            )
            for t in range(first, last, block_ticks)
        ]
    )
    done: dict[int, Predictions] = {}
    place = room(client, "batch")
    running = as_completed(loop=client.loop, timeout=deadline_s)
    running.update(_submit(client, islice(blocks, IN_FLIGHT * max(1, len(client.nthreads()))), place))
    try:
        for future in running:
            begins, rows = future.result()
            done[begins] = rows
            running.update(_submit(client, islice(blocks, 1), place))
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"batch view of {artifact.name!r}: not computed within {deadline_s:g} s; add workers or ask for less"
        ) from error
    finally:
        client.cancel(list(running.futures), force=True)
    outputs = len(WindowSpec.from_json(artifact.card["spec"]).targets)
    return reduce(Predictions.then, (done[begins] for begins in sorted(done)), Predictions.nothing(outputs))


def _submit(client: Client, blocks: Iterator[Recompute], place: dict[str, int] | None) -> list[Any]:
    return [client.submit(recompute, block, pure=False, resources=place) for block in blocks]


def recompute(block: Recompute) -> tuple[int, Predictions]:
    """The rows of one block, on a worker, and the tick that it begins with."""
    card = block.artifact.card
    spec = WindowSpec.from_json(card["spec"])
    begin = block.first - spec.depth + 1
    rows = block.source.block(spec.base_tags, block.ids, spec.period_ns, begin, block.last, ahead=spec.base_ahead)
    ends = answered(spec, block.first, block.last)
    cut = windows.cut(spec, windows.prepare(spec, rows), ends)
    fine = cut.reason == Reason.OK
    values = np.full((len(ends), len(spec.targets)), np.nan, np.float32)
    values[fine] = predicted(block.artifact, cut, np.flatnonzero(fine), block.alone)
    trained = card.get("trained", {})
    return block.first, Predictions(
        ticks=ends,
        values=values,
        versions=np.where(fine, block.artifact.version, 0).astype(np.int64),
        reasons=cut.reason,
        filled=cut.filled,
        sample=(ends >= trained.get("first", 0)) & (ends < trained.get("last", 0)),
    )
