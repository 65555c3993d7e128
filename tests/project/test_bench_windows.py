"""`bench windows`: every peer does the work that is said of it, and the answer has its rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock.bench.window_peers import GRID_PEERS, WINDOW_PEERS, GridPeer, NotInstalled, WindowPeer
from penstock.bench.windows import LATE, PERIOD_NS, TWICE, Size, long_frames, run
from penstock.data.frame import Frame
from penstock.data.grid import Cells, Grid

ROWS = np.random.default_rng(2).normal(5, 2, (12, 3)).astype(np.float32)


def measured(peer: Callable[[], Any]) -> Any:
    try:
        return peer()
    except NotInstalled as error:
        return pytest.fail(str(error)) if os.environ.get("CI") == "true" else pytest.skip(str(error))


@pytest.mark.parametrize("peer", WINDOW_PEERS, ids=lambda peer: peer.name)
def test_a_peer_slides_over_the_same_rows(peer: WindowPeer) -> None:
    told, seconds = measured(lambda: peer.slide(ROWS, 4))
    wanted = {"mean": ROWS[-4:].mean(0), "low": ROWS[-4:].min(0), "high": ROWS[-4:].max(0), "std": ROWS[-4:].std(0)}
    assert set(told) == ({"mean", "std"} if "(mean, std)" in peer.name else set(wanted))
    for name, values in told.items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-5)
    assert seconds > 0


@pytest.mark.parametrize("peer", GRID_PEERS, ids=lambda peer: peer.name)
def test_a_peer_keeps_the_last_reading_of_each_cell(peer: GridPeer) -> None:
    frame = Frame(
        times=np.array([5, 12, 3, 18, 3], np.int64), tags=np.array([0, 1, 0, 1, 2], np.int32),
        values=np.array([1, 2, 3, 4, 5], np.float32), quality=np.zeros(5, np.uint8),
    )  # fmt: skip
    placed, seconds = measured(lambda: peer.pivot(frame, 10))
    assert sorted(zip(*(a.tolist() for a in placed), strict=True)) == [(0, 0, 1.0), (0, 2, 5.0), (1, 1, 4.0)]
    assert seconds > 0


def test_long_frames_are_what_is_said_of_them() -> None:
    size = Size(tags=2000, frames=4)
    frames = long_frames(size)
    whole = 2000 * 5
    assert [len(f) for f in frames] == [int(whole * (1 + TWICE))] * 4
    ticks = [f.times // PERIOD_NS for f in frames]
    late = np.mean([np.mean(t < number * 5) for number, t in enumerate(ticks) if number])
    assert LATE * 0.7 < late < LATE * 1.3
    assert (np.diff(ticks[1]) < 0).mean() > 0.3, "in random order"
    cells = Cells.empty(0, 20, 2000)
    for frame in frames:
        cells.put(frame, Grid(period_ns=PERIOD_NS), np.arange(2000, dtype=np.int32), None)
    assert np.count_nonzero(cells.quality) > 0.9 * cells.quality.size


def test_the_answer_has_its_rows() -> None:
    told = run(Size(tags=50, frames=2, peer_readings=2400, compiled=False), lambda text: None)
    rows = {row["what"]: row for row in told["rows"] if not row["what"].startswith("peer ")}
    assert list(rows) == [
        "windows-readings-per-s", "windows-row-by-row-readings-per-s", "windows-vs-pandas",
        "windows-numpy-readings-per-s", "grid-readings-per-s",
    ]  # fmt: skip
    assert all(row["ours"] > 0 for row in rows.values())
    assert "pandas rolling" in rows["windows-readings-per-s"]["peers"]
