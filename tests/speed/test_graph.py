"""The graph on real workers: killed at will, every answer comes once, in order, equal to the in-process one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from distributed import Client

from penstock.cluster import local_cluster
from penstock.speed.graph import Answer, Graph
from penstock.speed.plan import ReadPlan
from penstock.speed.shard import Failure, Result, Step, run_step


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


def steps_of(site: Path, groups: int) -> list[Step]:
    journal, _ = small.make_site(site)
    small.append_all(journal, [small.rows(i * 3, i * 3 + 3, 5) for i in range(groups)], 0.0)
    plan = ReadPlan.of([m.spec for m in small.MEMBERS], small.resolve, small.LAYOUT, small.GRID)
    names = {s.shard: s.save(site / "speed") for s in plan.shards}
    tail = journal.tail
    return [
        Step(site=str(site), shard=s, start=at, stop=min(at + 2, tail), want=0 if at == 0 else None, plan=name)
        for at in range(0, tail, 2)
        for s, name in names.items()
    ]


def same(answer: Answer) -> bool:
    assert isinstance(answer, Result)
    expected = run_step(answer.step)
    return len(expected) == len(answer.rows) and all(
        a.closed == b.closed
        and a.closes == b.closes
        and a.block.first == b.block.first
        and np.array_equal(a.block.values, b.block.values, equal_nan=True)
        and np.array_equal(a.block.flags, b.block.flags)
        for a, b in zip(expected, answer.rows, strict=True)
    )


async def through(scheduler: str, steps: list[Step], kill_after: tuple[int, ...]) -> list[Answer]:
    """Answers of all steps; a worker is killed after so many of them."""
    answers: list[Answer] = []
    kills = list(kill_after)
    async with Client(scheduler, asynchronous=True, set_as_default=False) as client:

        def deliver(answer: Answer) -> None:
            answers.append(answer)
            if kills and len(answers) >= kills[0]:
                kills.pop(0)
                asyncio.create_task(kill(client))  # noqa: RUF006

        async def kill(client: Client) -> None:
            pids = await client.run(os.getpid, nanny=False)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

        graph = Graph(client, sorted({s.shard for s in steps}), deliver)
        shards = sorted({s.shard for s in steps})
        await asyncio.gather(*(send_all(graph, [s for s in steps if s.shard == shard]) for shard in shards))
        deadline = time.monotonic() + 60
        while len(answers) < len(steps) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        graph.close()
    return answers


async def send_all(graph: Graph, steps: list[Step]) -> None:
    for step in steps:
        await graph.send(step)


def test_killed_workers_cost_no_answer(scheduler: str, tmp_path: Path) -> None:
    steps = steps_of(tmp_path, 60)
    answers = asyncio.run(through(scheduler, steps, kill_after=(11, 25, 40)))
    assert len(answers) == len(steps)
    for shard in (0, 1):
        assert [a.step for a in answers if a.step.shard == shard] == [s for s in steps if s.shard == shard]
    assert all(map(same, answers))


def test_failures_travel_as_values(scheduler: str, tmp_path: Path) -> None:
    steps = steps_of(tmp_path, 5)
    bad = Step(site=str(tmp_path), shard=0, start=0, stop=10**6, plan=steps[0].plan)
    answers = asyncio.run(through(scheduler, [bad, steps[0]], kill_after=()))
    assert [type(a) for a in answers] == [Failure, Result]


def slow_once(step: Step) -> Answer:
    """Hangs where it runs first."""
    mark = Path(step.site) / f"seen-{step.start}"
    if not mark.exists():
        mark.touch()
        time.sleep(20)
    return Result(step=step, rows=())


def raises(step: Step) -> Answer:
    raise OSError("a disk fell out")


async def one(scheduler: str, step: Step, run: object, **more: float) -> tuple[list[Answer], int]:
    answers: list[Answer] = []
    async with Client(scheduler, asynchronous=True, set_as_default=False) as client:
        graph = Graph(client, [0], answers.append, run=run, **more)  # type: ignore[arg-type]
        await graph.send(step)
        deadline = time.monotonic() + 30
        while not answers and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        graph.close()
    return answers, graph.resubmitted


def test_a_silent_step_is_submitted_again(scheduler: str, tmp_path: Path) -> None:
    step = Step(site=str(tmp_path), shard=0, start=3, stop=4, plan="")
    begun = time.monotonic()
    answers, again = asyncio.run(one(scheduler, step, slow_once, patience_s=1.0))
    assert [type(a) for a in answers] == [Result]
    assert again >= 1
    assert time.monotonic() - begun < 15


def test_a_raising_step_becomes_a_failure(scheduler: str, tmp_path: Path) -> None:
    step = Step(site=str(tmp_path), shard=0, start=3, stop=4, plan="")
    answers, _ = asyncio.run(one(scheduler, step, raises, patience_s=1.0, tries=2))
    assert isinstance(answers[0], Failure)
    assert "a disk fell out" in answers[0].reason
