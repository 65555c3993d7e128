"""A part of the graph that dies without a word, on real workers: noticed, made anew, told; and nothing is missing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_site as small
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sink_peers import outlet, sink_spec
from test_service import SEED, assert_said, setup
from test_sinks import Moody

from penstock.cluster import local_cluster
from penstock.speed.clock import SourceClock
from penstock.speed.delays import Closes
from penstock.speed.following import LOOK_S, Following
from penstock.speed.graph import STILL
from penstock.speed.metrics import StreamMetrics
from penstock.speed.service import Service
from penstock.speed.source import Delivery
from penstock.speed.sources.replay import Replay
from penstock.speed.status import Report, read_status

TICKS = 400


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


def end_the_task(following: Following) -> None:
    """`map_async` ends so where a step that it awaits is cancelled."""
    following._graph._maps[0].work_task[1].cancel()


def cancel_a_step(following: Following) -> None:
    """The task that waits for a step's answer; the one that awaits it ends too."""
    next(iter(following._graph._answering)).cancel()


def lose_the_sink(following: Following) -> None:
    following._graph._sinks[1].destroy()


def drop_an_answer(following: Following) -> None:
    """References that nobody works on any more: streamz logs what a node raises, and forgets the step."""
    following._graph._maps[0].func = _raises


async def _raises(step: object) -> object:
    raise ValueError("a step that is dropped")


def end_a_feed(following: Following) -> None:
    following._feeds[1].cancel()


DEATHS: dict[str, Callable[[Following], None]] = {
    "the task ended": end_the_task,
    "a step was cancelled": cancel_a_step,
    "the sink was lost": lose_the_sink,
    "an answer was dropped": drop_an_answer,
    "a feed ended": end_a_feed,
}


class Halved(Replay):
    """Waits in the middle until it is told to go on."""

    def __init__(self, go_on: asyncio.Event) -> None:
        super().__init__("replay", lambda: [small.rows(0, TICKS, SEED)], group=8, moments=TICKS)
        self._go_on = go_on

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        async for delivery in super().deliveries(offsets):
            if delivery.offset > TICKS // 2:
                await self._go_on.wait()
            yield delivery


@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_node_is_noticed_and_made_anew(scheduler: str, tmp_path: Path, death: str) -> None:
    async def main() -> Report:
        go_on = asyncio.Event()
        given = setup(tmp_path, scheduler, small.Means())
        service = Service(replace(given, sources=[(Halved(go_on), SourceClock())]))
        running = asyncio.create_task(service.run())
        async with asyncio.timeout(60):
            while (at := service._following) is None or at.tick < TICKS // 2 - 8:
                await asyncio.sleep(0.01)
            go_on.set()
            while not at._graph._answering:
                await asyncio.sleep(0)
            DEATHS[death](at)
            died_ns = time.time_ns()
            report = await running
        assert service.told is not None
        assert service.told.repaired_ns is not None
        print(f"{death}: {service.told.repaired}; after {(service.told.repaired_ns - died_ns) / 1e9:.2f} s")
        return report

    report = asyncio.run(main())
    assert (report.repairs, report.rereadings) == (1, 1)
    assert (report.ticks, report.ended) == (TICKS, True)
    assert_said(tmp_path, TICKS)
    status = read_status(tmp_path / "speed")
    assert status is not None
    assert "task" in status["repaired"] or "shard" in status["repaired"]


def test_a_branch_that_stands_still_counts_as_dead_within_two_ticks_of_a_second() -> None:
    assert (STILL + 1) * LOOK_S < 2.0


def test_a_tick_is_overdue_from_its_close_until_it_is_said() -> None:
    closes = Closes()
    closes.close(10, 1.0)  # what was closed before is not measured
    assert closes.overdue_s(5.0) == 0
    closes.close(12, 6.0)
    closes.close(13, 8.0)
    assert closes.overdue_s(9.0) == 3.0
    closes.say(10, 9.0)
    assert closes.overdue_s(9.5) == 3.5
    closes.say(11, 10.0)
    assert closes.overdue_s(10.0) == 2.0
    closes.say(12, 11.0)
    assert closes.overdue_s(20.0) == 0


def samples(status: Any) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(StreamMetrics(lambda: status, time.time_ns))
    text = generate_latest(registry).decode()
    return {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}


def test_metrics_tell_of_output_journal_work_and_sinks(scheduler: str, tmp_path: Path) -> None:
    moody, spec = Moody(), sink_spec("moody")
    told = outlet(moody, tmp_path, spec)
    service = Service(replace(setup(tmp_path, scheduler, small.Means(), ticks=300), outlets=[told]))
    assert samples(service.told) == {}
    asyncio.run(service.run())
    found = samples(service.told)
    report = service.report()
    assert found["penstock_ticks_total",] == 300
    assert found["penstock_predictions_total",] == report.predictions
    assert 0 <= found["penstock_output_age_seconds",] < 600
    assert found["penstock_overdue_seconds",] == 0
    assert found["penstock_journal_sequences", "archived"] == 0
    assert found["penstock_journal_bytes",] > 4 * report.readings
    assert found["penstock_readings_total", "accepted"] == report.readings == len(small.rows(0, 300, SEED))
    assert found["penstock_graph_repairs_total",] == 0
    assert found["penstock_sink_lag_ticks", "moody"] == 0
    assert found["penstock_sink_failures_total", "moody"] > 0
    assert found["penstock_sink_messages_total", "moody"] > 0
    assert json.loads((tmp_path / "speed" / "sinks" / "moody.json").read_text())["tick"] == 299
