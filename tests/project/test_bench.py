"""What a benchmark says to machines and to people; and how a tick's delay is counted."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from rich.console import Console

from penstock.bench.beat import Beat
from penstock.bench.results import Load, Row, answer
from penstock.data.frame import Dense
from penstock.data.grid import Grid
from penstock.data.views.speed_view import Spoken
from penstock.screen import bench_table
from penstock.speed.sources.replay import Replay

SECOND = 10**9


@pytest.mark.parametrize(
    ("ours", "goal", "better", "met"),
    [
        (5.0, 5.0, "lower", True),
        (5.1, 5.0, "lower", False),
        (5.0, 5.0, "higher", True),
        (4.9, 5.0, "higher", False),
        (5.0, None, "lower", None),
        (None, 5.0, "lower", None),
    ],
)
def test_a_goal_is_met_or_not_or_there_is_none(ours: float | None, goal: float | None, better: str, met: bool) -> None:
    assert Row(what="w", unit="ms", ours=ours, goal=goal, better=better).met is met  # type: ignore[arg-type]


def test_the_json_has_the_published_keys() -> None:
    told = answer("page", [Row(what="a", unit="ms", ours=1.0), Row(what="b", unit="", ours=None, why="no GPU")], 0.02)
    assert list(told) == ["bench", "machine", "versions", "rows"]
    assert list(told["machine"]) == ["cpu", "cores", "memory_gib", "fma_gflops", "others_cpu"]
    assert set(told["rows"][0]) == {"what", "unit", "ours", "peers", "goal", "better", "met"}
    assert told["rows"][1]["why"] == "no GPU"
    assert told["machine"]["fma_gflops"] > 0
    assert {"python", "penstock", "numpy"} <= set(told["versions"])


def test_people_see_what_was_not_met() -> None:
    rows = [Row(what="delay", unit="ms", ours=7.0, goal=5.0, peers={"alone": 3.0}), Row(what="x", unit="", ours=1.0)]
    out = io.StringIO()
    Console(file=out, width=200).print(bench_table(answer("page", rows, 0.25)))
    said = " ".join(out.getvalue().split())
    assert "delay ms 7 alone 3 at most 5 NO" in said
    assert "other processes used 25 %" in said


def test_a_peer_that_is_not_there_is_told_beside_the_figure() -> None:
    rows = [
        Row(what="rate", unit="", ours=7.0, peers={"other": 3.0}, why="no OpenVINO"),
        Row(what="x", unit="", ours=None, why="no GPU"),
    ]
    out = io.StringIO()
    Console(file=out, width=200).print(bench_table(answer("fleet", rows, 0.0)))
    said = " ".join(out.getvalue().split())
    assert "rate 7 other 3; no OpenVINO" in said
    assert "x no GPU" in said


def test_what_this_process_uses_is_not_others() -> None:
    load, until = Load(), time.monotonic() + 1.0
    while time.monotonic() < until:
        pass
    assert 0 <= load.others() <= 1


def test_a_tick_is_due_when_the_next_one_begins() -> None:
    """Ticks 0..9 of a second each, the first 7 flat out; tick 8 is closed by reading 9, two seconds after reading 7."""
    grid = Grid(period_ns=SECOND)
    times = np.arange(10, dtype=np.int64) * SECOND
    block = Dense(times=times, tags=np.zeros(1, np.int32), values=np.zeros((10, 1), np.float32),
                  quality=np.zeros((10, 1), np.uint8))  # fmt: skip
    beat = Beat(Replay("r", lambda: [block], rate=10.0, brisk=7), grid, skip=7)
    beat.said(spoken(3))
    assert beat.begin is None
    anext_all(beat.deliveries({}))
    assert beat.begin is not None
    tick, begun = beat.begin
    assert tick == 7
    beat.said(spoken(6))
    before = time.monotonic()
    beat.said(spoken(8))
    after = time.monotonic()
    assert len(beat.delays_ms(begun - 1, begun + 10)) == 1
    assert before - 1e-6 <= begun + 2 + beat.delays_ms(begun + 1.9, begun + 2.1)[0] / 1000 <= after + 1e-6
    assert len(beat.delays_ms(begun, begun + 1.9)) == 0
    beat.over.set()
    assert anext_all(beat.deliveries({})) == 0


def anext_all(deliveries: AsyncIterator[object]) -> int:
    async def count() -> int:
        return len([each async for each in deliveries])

    return asyncio.run(count())


def spoken(tick: int) -> Spoken:
    return Spoken(
        tick=tick, members=(), values=np.zeros(0, np.float32), versions=np.zeros(0, np.int32),
        reasons=np.zeros(0, np.uint8), filled=np.zeros(0, bool), hashes=np.zeros(0, np.uint64), position=0,
    )  # fmt: skip
