"""`penstock bench windows`: sliding statistics of all tags, and long frames onto the grid, beside peers.

    windows   mean, min, max, std over the last 60 rows of each tag, at every row
    grid      long frames in random order, 5 % of the readings late, 2 % twice, into cells

All of it runs on this process' threads; no server, no disk. Peers do the same work on fewer tags where they would
take minutes, as readings a second; each one's answer is compared with ours before its time counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.bench.results import Load, Row, answer
from penstock.bench.window_peers import GRID_PEERS, WINDOW_PEERS, NotInstalled, Stats
from penstock.data.frame import Frame
from penstock.data.grid import Cells, Grid
from penstock.data.sliding import Slid, Sliding
from penstock.errors import PenstockError

WINDOW = 60
BLOCK = 60
"""Rows that are pushed together; `windows-row-by-row-readings-per-s` pushes one."""
REPEATS = 5
PERIOD_NS = 1_000_000_000
FRAME_TICKS = 5
"""Ticks that a long frame spans, late readings apart."""
LATE, TWICE = 0.05, 0.02
CLOSE = 1e-5
"""Peers' answers may be so far from ours, in units of the readings' spread: some keep running sums."""
PEER_ROWS = 20 * WINDOW
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    tags: int = 100_000
    frames: int = 20
    """Long frames of FRAME_TICKS readings per tag."""
    peer_readings: int = 1_000_000
    """What a peer is given at most; those that take an event at a time get a hundredth."""
    compiled: bool | None = None
    """Ours by machine code; None: where there is any."""


class WrongAnswer(PenstockError):
    """A peer and penstock disagree."""


def run(size: Size, tell: Tell) -> dict[str, Any]:
    """Measure; the answer in the form that all benchmarks have. Raises WrongAnswer."""
    load = Load()
    rows = [*_windows(size, tell), *_grid(size, tell)]
    return answer("windows", rows, load.others())


# Windows


def _windows(size: Size, tell: Tell) -> list[Row]:
    threads = len(os.sched_getaffinity(0))
    tell("windows: the compiler")
    blocks, single = _slid_per_s(size, BLOCK, threads, tell), _slid_per_s(size, 1, threads, tell)
    peers, missing = _peers(WINDOW_PEERS, lambda peer: _window_peer(peer, size, tell))
    pandas = peers.get("pandas rolling")
    why = None if pandas else "pandas is not installed"
    return [
        Row(what="windows-readings-per-s", unit="1/s", ours=blocks, peers=peers, goal=2e8, better="higher"),
        Row(what="windows-row-by-row-readings-per-s", unit="1/s", ours=single, better="higher"),
        Row(
            what="windows-vs-pandas", unit="times", ours=round(blocks / pandas, 1) if pandas else None,
            goal=20.0, better="higher", why=why,
        ),
        Row(what="windows-numpy-readings-per-s", unit="1/s", ours=_numpy_per_s(size), better="higher"),
        *missing,
    ]  # fmt: skip


def _slid_per_s(size: Size, block: int, threads: int, tell: Tell) -> float:
    """Readings a second: the best of some turns of a whole window, in which each block's extremes are due once."""
    tell(f"windows: {size.tags:,} tags, {block} rows at a time, {threads} threads")
    rows = _readings(block, size.tags)
    sliding = Sliding(WINDOW, size.tags, dtype="float32", compiled=size.compiled, threads=threads)
    slid: Slid | None = sliding.push(rows)
    turns = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(WINDOW // block):
            slid = sliding.push(rows, into=slid)
        turns.append(time.perf_counter() - begun)
    return _round(WINDOW // block * rows.size / min(turns))


def _numpy_per_s(size: Size) -> float:
    rows = _readings(BLOCK, max(1, min(size.tags, size.peer_readings // BLOCK)))
    sliding = Sliding(WINDOW, rows.shape[1], dtype="float32", compiled=False)
    sliding.push(rows)
    begun = time.perf_counter()
    sliding.push(rows)
    return _round(rows.size / (time.perf_counter() - begun))


def _window_peer(peer: Any, size: Size, tell: Tell) -> float:
    most = size.peer_readings // (100 if peer.each_event else 1)
    tags = max(1, most // PEER_ROWS)
    tell(f"windows: {peer.name}, {tags:,} tags")
    rows = _readings(PEER_ROWS, tags)
    told, seconds = peer.slide(rows, WINDOW)
    _check(peer.name, rows, told)
    return _round(rows.size / seconds)


def _check(name: str, rows: NDArray[np.float32], told: Stats) -> None:
    """The peer's last answers are ours."""
    ours = Sliding(WINDOW, rows.shape[1], compiled=False).push(rows)
    for which, mine in (("mean", ours.mean), ("low", ours.low), ("high", ours.high), ("std", ours.std)):
        his = told.get(which)
        if his is not None and not np.allclose(his, mine[-1], rtol=0, atol=CLOSE):
            raise WrongAnswer(f"{name}: its {which} of the last rows is not ours; nothing was measured")


def _readings(rows: int, tags: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(10, 1, (rows, tags)).astype(np.float32)


# Grid


def _grid(size: Size, tell: Tell) -> list[Row]:
    frames, grid = long_frames(size), Grid(period_ns=PERIOD_NS)
    column_of = np.arange(size.tags, dtype=np.int32)
    tell(f"grid: {size.frames} frames of {len(frames[0]):,} readings")

    def laid() -> float:
        cells = Cells.empty(0, size.frames * FRAME_TICKS, size.tags)
        cells.put(frames[0], grid, column_of, None)
        begun = time.perf_counter()
        for number, frame in enumerate(frames):
            cells.put(frame, grid, column_of, number * FRAME_TICKS)
        return time.perf_counter() - begun

    laid()
    ours = _round(sum(map(len, frames)) / min(laid() for _ in range(3)))

    def peer_per_s(peer: Any) -> float:
        tell(f"grid: {peer.name}")
        frame = frames[-1].rows(slice(0, size.peer_readings))
        cells = Cells.empty(0, size.frames * FRAME_TICKS, size.tags)
        cells.put(frame, grid, column_of, None)
        (ticks, tags, values), seconds = peer.pivot(frame, PERIOD_NS)
        if not np.array_equal(np.sort(cells.values[ticks, tags]), np.sort(values)):
            raise WrongAnswer(f"{peer.name}: its cells are not ours; nothing was measured")
        return _round(len(frame) / seconds)

    peers, missing = _peers(GRID_PEERS, peer_per_s)
    row = Row(what="grid-readings-per-s", unit="1/s", ours=ours, peers=peers, goal=1e7, better="higher")
    return [row, *missing]


def long_frames(size: Size) -> list[Frame]:
    """Each reads all tags at each of its ticks; some readings are of ticks before it, some come twice."""
    random = np.random.default_rng(1)
    return [_frame(random, size.tags, number) for number in range(size.frames)]


def _frame(random: np.random.Generator, tags: int, number: int) -> Frame:
    n = tags * FRAME_TICKS
    ticks = np.repeat(np.arange(FRAME_TICKS), tags) + number * FRAME_TICKS
    late = random.random(n) < LATE
    ticks[late] = random.integers(0, number * FRAME_TICKS + 1, int(late.sum()))
    at = np.concatenate([np.arange(n), random.integers(0, n, int(TWICE * n))])
    random.shuffle(at)
    times = ticks * PERIOD_NS + random.integers(0, PERIOD_NS, n)
    ids, values = np.tile(np.arange(tags, dtype=np.int32), FRAME_TICKS), random.normal(10, 1, n).astype(np.float32)
    return Frame(times=times[at], tags=ids[at], values=values[at], quality=np.zeros(len(at), np.uint8))


def _peers(peers: Any, measure: Callable[[Any], float]) -> tuple[dict[str, float], list[Row]]:
    """Readings a second by name, and a row for each that is not installed."""
    found, missing = {}, []
    for peer in peers:
        try:
            found[peer.name] = measure(peer)
        except NotInstalled as error:
            missing.append(Row(what=f"peer {peer.name}", unit="1/s", ours=None, why=str(error)))
    return found, missing


def _round(number: float) -> float:
    """Three digits."""
    return float(f"{number:.3g}")
