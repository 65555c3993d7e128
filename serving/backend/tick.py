"""One request for all models: which windows go to which host, and the answers back in order.

Vectorised over slots: python loops only over hosts. Isolated members are asked first and listened to last, so that they
work beside the others. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .host import Cancelled, Host, Stopped
from .isolated import Isolated
from .view import View

EMPTY, WRONG_SHAPE, FAILED = -1, -2, -3
"""In place of a version: nobody in that slot; its windows have another shape; its model raised."""

SAY_AGAIN_S = 60.0
"""A model that fails at every tick is logged so often."""
SAID_KEPT = 1000
"""Different failures that are remembered for it."""

Ints = NDArray[np.int64]

log = logging.getLogger("engine")
_said: dict[str, float] = {}


def answer_tick(
    view: View,
    slots: NDArray[Any],
    shapes: NDArray[Any],
    rows: NDArray[Any],
    cancelled: Cancelled,
) -> dict[str, NDArray[Any]]:
    """Slots [M], shapes [M, 2] (T, F), rows [sum T*F] float32 -> the tick's outputs.

    ``widths`` [M] int32 says how many of ``values`` belong to each slot; 0 with
    a negative version. ``values`` has one NaN at its end, so that it is never empty.
    Raises ValueError when the lengths disagree.
    """
    shapes = shapes.reshape(-1, 2).astype(np.int64)
    sizes = shapes.prod(axis=1)
    if not len(slots) or len(shapes) != len(slots) or (shapes < 0).any() or sizes.sum() != rows.size:
        raise ValueError(f"{len(slots)} slots, {len(shapes)} shapes, {rows.size} numbers: they do not fit together")
    known = (slots >= 0) & (slots < len(view.table))
    table = np.where(known[:, None], view.table[np.where(known, slots, 0)], [[-1, 0, EMPTY, 0, 0, 0, 0]])
    fits = (table[:, 4:6] == shapes).all(axis=1)
    versions = np.where(table[:, 0] < 0, EMPTY, np.where(fits, table[:, 2], WRONG_SHAPE))
    widths = np.where(versions >= 0, table[:, 6], 0)
    begins = np.concatenate([[0], np.cumsum(sizes)])
    out_begins = np.concatenate([[0], np.cumsum(widths)])
    values = np.full(out_begins[-1] + 1, np.nan, np.float32)
    batches = []
    for number in np.unique(table[versions >= 0, 0]):
        mine = np.flatnonzero((table[:, 0] == number) & (versions >= 0))
        windows = _windows(rows, begins, mine).reshape(-1, *shapes[mine[0]])
        batches.append(_Batch(view.hosts[view.order[int(number)]], mine, table[mine, 1], windows))
    for mine, answers in _each(batches, cancelled):
        if isinstance(answers, Exception):  # one model's failure is its own slots' answer, not the tick's
            versions[mine] = FAILED
            _report(view, slots[mine], answers)
        else:
            values[out_begins[mine, None] + np.arange(widths[mine[0]])] = answers
    failed = versions == FAILED
    if failed.any():
        values = np.append(values[:-1][np.repeat(~failed, widths)], np.float32(np.nan))
        widths = np.where(failed, 0, widths)
    return {
        "values": values,
        "widths": widths.astype(np.int32),
        "versions": versions.astype(np.int64),
        "members": np.where(known, table[:, 3], 0),
        "generation": np.array([view.generation], np.int64),
    }


def _windows(rows: NDArray[Any], begins: Ints, mine: Ints) -> NDArray[Any]:
    """The numbers of the windows at positions `mine`, all of one size; not copied where they stand side by side."""
    if mine[-1] - mine[0] == len(mine) - 1:
        return rows[begins[mine[0]] : begins[mine[-1] + 1]]
    return rows[begins[mine, None] + np.arange(begins[mine[0] + 1] - begins[mine[0]])]


@dataclass(frozen=True)
class _Batch:
    """What one host is asked."""

    host: Host
    at: Ints
    """[n] positions in the request."""
    rows: Ints
    """[n] the members' rows in the host."""
    windows: NDArray[Any]
    """[n, T, F]"""


def _each(batches: Sequence[_Batch], cancelled: Cancelled) -> Iterator[tuple[Ints, NDArray[Any] | Exception]]:
    """(positions, answers or why there are none) per batch; isolated members work while the others do."""
    begun = [(b, _tried(partial(b.host.begin, b.windows))) for b in batches if isinstance(b.host, Isolated)]
    for batch in batches:
        if not isinstance(batch.host, Isolated):
            yield batch.at, _tried(partial(batch.host.run, batch.rows, batch.windows, cancelled))
    for batch, asked in begun:
        answers = asked if isinstance(asked, Exception) else _tried(partial(asked.collect, cancelled))
        yield batch.at, answers


def _tried(work: Callable[[], Any]) -> Any:
    """What it gives, or what it raised; a caller that has gone ends the whole tick."""
    try:
        return work()
    except Stopped:
        raise
    except Exception as failure:
        return failure


def _report(view: View, slots: NDArray[Any], failure: Exception) -> None:
    """Into Triton's log: who failed, and why."""
    names = ", ".join(f"{r.name}@{r.version}" for slot in np.unique(slots) if (r := view.residents.get(int(slot))))
    why = f"{names}: {type(failure).__name__}: {failure}"
    now = time.monotonic()
    if now - _said.get(why, -SAY_AGAIN_S) < SAY_AGAIN_S:
        return
    if len(_said) >= SAID_KEPT:
        _said.clear()
    _said[why] = now
    log.error("no prediction of %s", why, exc_info=failure)
