"""The benchmarks of ingest and of the whole stream, at a tiny size: what they measure is what they say."""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest

from penstock.bench.broker import mosquitto
from penstock.bench.end_to_end import Seen, Stream, Wish, streamed, timed_rows, wide_rows
from penstock.bench.event_peers import BATCH, bytewax_per_event, streamz_per_event
from penstock.bench.ingest import Wish as Ingest
from penstock.bench.ingest import run
from penstock.bench.wide_plant import LATE_TICKS, WidePlant
from penstock.data.frame import BAD, GOOD, Dense, Frame
from penstock.data.grid import PRESENT, STATUS, Cells, Grid

SECOND = 10**9


def test_what_comes_in_time_and_late_is_what_was_expected() -> None:
    """Late readings fill exactly the holes, repeated ones change nothing; a hundredth each is bad and late."""
    plant, ticks, grid = WidePlant(tags=1000, period_ns=SECOND, models=2), 40, Grid(period_ns=SECOND)
    every = np.arange(plant.tags, dtype=np.int32)
    cells, sent = Cells.empty(0, ticks, plant.tags), 0
    for tick in range(ticks):
        values, status = plant.dense(tick)
        dense = Dense(times=grid.times(tick, tick + 1), tags=every, values=values[None], quality=status[None])
        assert len(dense) == 990
        cells.put(dense, grid, every, None)
        tags, values, status = plant.behind(tick)
        cells.put(
            Frame(times=np.full(len(tags), grid.time(tick)), tags=tags, values=values, quality=status),
            grid,
            every,
            None,
        )
        sent += len(dense) + len(tags)
    values, status = plant.expected(np.arange(ticks), every)
    assert cells.values.tobytes() == values.tobytes()
    assert ((cells.quality & STATUS) == status).all()
    assert ((cells.quality & PRESENT) != 0).all()
    assert set(np.unique(status, return_counts=True)[1].tolist()) == {400, 39_600}
    assert tuple(np.unique(status).tolist()) == (GOOD, BAD)
    assert sent == plant.sent(ticks)


def test_a_tick_counts_from_when_the_frame_that_closes_it_was_due() -> None:
    """Ten frames a second from moment 100 on; tick k is said 30 ms after frame k + 1 was due, one of them 1.03 s."""
    said = [(k, 100 + (k + 1) / 10 + (1.03 if k == 150 else 0.03), 2) for k in range(200)]
    seen = Seen(begin=100.0, ticks=200, said=said, ended=121.0, killed=114.0, lost={"cells": 3, "ticks": 0})
    rows = {row.what: row for row in timed_rows(Wish(seconds=8.0, warm_s=2.0, timed_tags=100_000), seen)}
    assert rows["e2e-1e5-p50-ms"].ours == pytest.approx(30.0)
    assert rows["e2e-1e5-p99-ms"].ours == pytest.approx(30.0)
    assert rows["worker-kill-gap-s"].ours == pytest.approx(1.1)
    assert rows["worker-kill-lost"].ours == 3
    assert rows["worker-kill-lost"].why == "3 cells"
    wide = {row.what: row.ours for row in wide_rows(Wish(tags=1_000_000), seen, {})}
    assert wide["e2e-1e6-readings-per-s"] == round(199e6 / (121.0 - said[0][1]))
    assert wide["e2e-1e6-said-per-s"] == round(199e6 / (said[-1][1] - said[0][1]))


def test_a_stream_loses_nothing_though_a_worker_is_killed() -> None:
    plant = WidePlant(tags=2000, period_ns=SECOND // 10, models=2)
    wish = Wish(timed_tags=2000, models=2, seconds=3.0, warm_s=6.0, kill_s=4.0)
    told: list[str] = []

    def course(stream: Stream) -> None:
        stream.on_time(wish)

    seen = streamed(plant, told.append, course)
    assert seen.ticks > 60 + LATE_TICKS
    assert seen.lost == {"readings": 0, "cells": 0, "ticks": 0, "predictions": 0}
    assert max(answered for _, _, answered in seen.said) == 2
    assert any("kill" in text for text in told)
    assert {row.what for row in timed_rows(wish, seen)} >= {"e2e-2e3-p99-ms", "worker-kill-gap-s", "worker-kill-lost"}


def test_ingest_says_what_it_measured() -> None:
    if mosquitto() is None and os.environ.get("CI") == "true":
        pytest.fail("mosquitto is not installed: apt-get install mosquitto")
    told = run(Ingest(seconds=1.0, tags=200, ticks=192, train_tags=64, train_ticks=512))
    rows = {row["what"]: row for row in told["rows"]}
    assert {
        "mqtt-json-share",
        "mqtt-arrow-readings-per-s",
        "archive-readings-per-s",
        "archive-train-read-gb-per-s",
    } <= set(rows)
    for name, row in rows.items():
        if name.startswith("mqtt") and mosquitto() is None:
            assert row["ours"] is None
            assert "mosquitto" in row["why"]
        else:
            assert row["ours"] > 0
            assert all(figure > 0 for figure in row["peers"].values())


def test_the_usual_ways_count_what_went_all_the_way() -> None:
    made = [(k % 7, k // 7, float(k), 0) for k in range(2 * BATCH)]
    assert streamz_per_event(made) > 0
    assert streamz_per_event(made[: BATCH - 1]) == 0  # no batch is whole: nothing came through
    if find_spec("bytewax") is not None:
        assert bytewax_per_event(made[:1000]) > 0
