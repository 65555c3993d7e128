"""What the batch layer makes of ticks that were said live: their windows out of the archive, and what the version
that spoke says to them. On Dask, a block of ticks a task; workers only return rows.

The speed layer's code has no part in it but for the functions that both layers cut and judge with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from penstock.batch.history import Source
from penstock.batch.predicting import Alone, predicted
from penstock.batch.spreading import DEADLINE_S, spread
from penstock.data import windows
from penstock.data.models import Artifact
from penstock.data.views.speed_view import SaidRows
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason, Windows, window_hash

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Check:
    """Ticks of one version; a value that any worker which sees the archive can work on."""

    source: Source
    artifact: Artifact
    ids: tuple[int, ...]
    """Registry ids of the spec's `base_tags`, in order."""
    ticks: NDArray[np.int64]
    """[n] ascending, n >= 1, so near to each other that all between them may be read."""
    alone: Alone | None = None
    """Runs the kinds that are no Keras models."""


def checked(check: Check) -> SaidRows:
    """[n] what should have been said at each tick, by all that the archive holds now.

    Hashes are 0 where there is no window, as the speed view has them. Raises ModelError, ArchiveError.
    """
    spec = WindowSpec.from_json(check.artifact.card["spec"])
    cut = cut_again(check, spec)
    n, fine = len(check.ticks), cut.reason == Reason.OK
    values, hashes = np.full((n, len(spec.targets)), np.nan, np.float32), np.zeros(n, np.uint64)
    if fine.any():
        values[fine] = predicted(check.artifact, cut, np.flatnonzero(fine), check.alone)
        hashes[fine] = window_hash(cut.take(fine))
    versions = np.full(n, check.artifact.version, np.int32)
    return SaidRows(
        ticks=check.ticks, values=values, versions=versions, reasons=cut.reason, filled=cut.filled, hashes=hashes
    )  # fmt: skip


def cut_again(check: Check, spec: WindowSpec) -> Windows:
    """The windows of its ticks, out of the archive."""
    first, last = int(check.ticks[0]) - spec.depth + 1, int(check.ticks[-1]) + 1
    rows = check.source.block(spec.base_tags, check.ids, spec.period_ns, first, last, ahead=spec.base_ahead)
    return windows.cut(spec, windows.prepare(spec, rows), check.ticks)


def check_all(
    client: Client, checks: Iterable[tuple[T, Check]], *, deadline_s: float = DEADLINE_S
) -> Iterator[tuple[T, SaidRows]]:
    """`checked` of each, beside what it was given with, in the order in which they are done.

    Raises what `checked` raises, DeadlineExceeded.
    """
    return spread(client, checked, checks, what="reconcile", deadline_s=deadline_s)
