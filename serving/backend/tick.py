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

from .group import Group
from .host import Cancelled, Host, Stopped
from .isolated import Isolated
from .streamed import KEPT, ROW, UNKNOWN, WINDOW, Streamed
from .view import View

EMPTY, WRONG_SHAPE, FAILED, WANTED = -1, -2, -3, -4
"""In place of a version: nobody in that slot; its windows have another shape; its model raised; a row came, and the
window is wanted."""

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
    streamed: Streamed | None = None,
) -> Answer:
    """Slots [M], shapes [M, 2] (T, F), rows [sum T*F] float32, and what a stream tells besides -> the answer.

    Raises ValueError when the lengths disagree, or a stream names a slot twice.
    """
    shapes = shapes.reshape(-1, 2).astype(np.int64)
    sizes = shapes.prod(axis=1)
    if not len(slots) or len(shapes) != len(slots) or (shapes < 0).any() or sizes.sum() != rows.size:
        raise ValueError(f"{len(slots)} slots, {len(shapes)} shapes, {rows.size} numbers: they do not fit together")
    known = (slots >= 0) & (slots < len(view.table))
    table = np.where(known[:, None], view.table[np.where(known, slots, 0)], [[-1, 0, EMPTY, 0, 0, 0, 0, 0]])
    fits = (table[:, 4:6] == shapes).all(axis=1)
    versions = np.where(table[:, 0] < 0, EMPTY, np.where(fits, table[:, 2], WRONG_SHAPE))
    ways = np.zeros(len(slots), np.int64) if streamed is None else streamed.ways(view, slots, shapes, table)
    versions = np.where(ways == ROW, table[:, 2], np.where(ways == UNKNOWN, WANTED, versions))
    widths = np.where(versions >= 0, table[:, 6], 0)
    begins = np.concatenate([[0], np.cumsum(sizes)])
    out_begins = np.concatenate([[0], np.cumsum(widths)])
    values = np.full(out_begins[-1] + 1, np.nan, np.float32)
    batches = []
    for number, way in np.unique(np.stack([table[:, 0], ways])[:, versions >= 0], axis=1).T.tolist():
        mine = np.flatnonzero((table[:, 0] == number) & (ways == way) & (versions >= 0))
        windows = _windows(rows, begins, mine).reshape(-1, *shapes[mine[0]])
        key = view.order[number]
        host = view.hosts[key]
        work: Callable[[Cancelled], NDArray[Any]] = partial(host.run, table[mine, 1], windows)
        if way != WINDOW and streamed is not None and isinstance(host, Group):
            work = streamed.work(key, host, way, mine, table[mine], windows)
        batches.append(_Batch(host, mine, windows, work))
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
    kept = np.full(len(slots), -1)
    if streamed is not None:
        kept = np.where(((ways == KEPT) | (ways == ROW)) & (versions >= 0), streamed.ticks, -1)
    return Answer(values, widths, versions, np.where(known, table[:, 3], 0), kept)


@dataclass(frozen=True)
class Answer:
    """Of one tick."""

    values: NDArray[np.float32]
    """The slots' values, one behind the other, and one NaN, so that it is never empty."""
    widths: Ints
    """[M] how many of them belong to each slot; 0 with a negative version."""
    versions: Ints
    """[M]"""
    members: Ints
    """[M] crc32 of the name; 0: nobody."""
    kept: Ints
    """[M] the tick of the state that is kept of a stream's entry; -1: none."""


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
    windows: NDArray[Any]
    """[n, T, F], or [n, 1, F] where only rows came."""
    work: Callable[[Cancelled], NDArray[Any]]
    """What gives the answers [n, O]."""


def _each(batches: Sequence[_Batch], cancelled: Cancelled) -> Iterator[tuple[Ints, NDArray[Any] | Exception]]:
    """(positions, answers or why there are none) per batch; isolated members work while the others do."""
    begun = [(b, _tried(partial(b.host.begin, b.windows))) for b in batches if isinstance(b.host, Isolated)]
    for batch in batches:
        if not isinstance(batch.host, Isolated):
            yield batch.at, _tried(partial(batch.work, cancelled))
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
