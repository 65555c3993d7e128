"""The streamz graph on Dask: one branch per shard, steps in, answers out in order.

Thin on purpose: it moves references and holds no arithmetic. A branch is

    source -> map_async(submit to a worker) -> sink(deliver)

with a bound on the references in flight. Steps and sinks never raise: an
exception in streamz ends a branch without a word, so failures travel as values.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import EllipsisType

from distributed import Client, Future
from streamz import Stream

from penstock.room import offered
from penstock.speed.shard import Failure, Result, Step, attempt

log = logging.getLogger(__name__)

Answer = Result | Failure
FIRST = asyncio.FIRST_COMPLETED
STILL = 4
"""So many looks in a row find a branch that stands still before it counts as broken: between two tasks it seems so."""
PAUSE_S = 0.2
"""Before a step that failed inside Dask is submitted again."""


class Graph:
    """Branches for `shards`; lives in the event loop that made it."""

    def __init__(
        self,
        client: Client,
        shards: Sequence[int],
        deliver: Callable[[Answer], None],
        *,
        run: Callable[[Step], Answer] = attempt,
        permits: int = 2,
        patience_s: float = 5.0,
        tries: int = 4,
    ) -> None:
        """`client`: asynchronous. `permits`: references in flight per shard.

        A step unanswered after `patience_s` is submitted again, at most `tries` times with doubled
        patience; the first answer wins, since all are equal.
        """
        self._client, self._run, self._deliver = client, run, deliver
        self._patience_s, self._tries = patience_s, tries
        self._permits = {s: asyncio.Semaphore(permits) for s in shards}
        # streamz keeps only weak references downstream: nodes nobody holds are collected.
        self._sources = {s: Stream(asynchronous=True) for s in shards}
        # The queue is never full: map_async would spin while it waits for room.
        self._maps = [s.map_async(self._answer, parallelism=permits + 2) for s in self._sources.values()]
        self._sinks = [node.sink(self._out) for node in self._maps]
        self._answering: dict[asyncio.Task[Answer], int] = {}
        self._waiting = dict.fromkeys(shards, 0)
        """References without an answer."""
        self._still = dict.fromkeys(shards, 0)
        """Looks in a row that found references waiting and no step at work."""
        self._room: dict[str, int] | EllipsisType | None = ...
        self.resubmitted = 0
        """Steps submitted again because no answer came in time."""

    async def send(self, step: Step) -> None:
        """Hand a step to its branch once a permit is free; answers of one shard come in order of sending."""
        await self._permits[step.shard].acquire()
        self._waiting[step.shard] += 1
        await self._sources[step.shard].emit(step)

    def broken(self) -> str | None:
        """What has ended without a word, of what moves references; None while all of it lives. Asked now and then.

        A branch that is only slow is not broken: each of its steps has a task, and that task a deadline.
        """
        busy = set(self._answering.values())
        for (shard, source), node in zip(self._sources.items(), self._maps, strict=True):
            work = node.work_task
            if work is not None and work[1].done():
                return f"shard {shard}: the task that hands on its answers has ended ({_end_of(work[1])})"
            if not source.downstreams or not node.downstreams:
                return f"shard {shard}: a node of its branch is gone"
            self._still[shard] = self._still[shard] + 1 if self._waiting[shard] and shard not in busy else 0
            if self._still[shard] >= STILL:
                return f"shard {shard}: {self._waiting[shard]} references wait, and nobody works on them"
        return None

    def close(self) -> None:
        """End the branches; answers still under way are dropped."""
        for node in self._maps:
            if node.work_task is not None:
                stop, task = node.work_task
                stop.set()
                task.cancel()
                node.work_task = None
        for answering in list(self._answering):
            answering.cancel()

    def _out(self, answer: Answer) -> None:
        self._permits[answer.step.shard].release()
        self._waiting[answer.step.shard] -= 1
        try:
            self._deliver(answer)
        except Exception:
            log.exception("an answer of shard %d was not taken", answer.step.shard)

    async def _answer(self, step: Step) -> Answer:
        """Never raises but when cancelled: map_async would drop the step."""
        me: asyncio.Task[Answer] | None = asyncio.current_task()
        if me is not None:
            self._answering[me] = step.shard
            me.add_done_callback(self._answering.pop)
        futures: list[Future] = []
        waiting: set[asyncio.Task[Answer | str]] = set()
        reason = "no worker answered"
        try:
            for trial in range(self._tries):
                self.resubmitted += trial > 0
                futures.append(self._submit(step, await self._place()))
                waiting.add(asyncio.create_task(_result(futures[-1])))
                patience_s = self._patience_s * 2**trial
                while waiting:
                    done, waiting = await asyncio.wait(waiting, timeout=patience_s, return_when=FIRST)
                    if not done:
                        break
                    for answer in (task.result() for task in done):
                        if not isinstance(answer, str):
                            return answer
                        reason = answer
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        finally:
            for task in waiting:
                task.cancel()
            for future in futures:
                future.release()
        return Failure(step=step, reason=f"shard {step.shard}, sequences {step.start}..{step.stop}: {reason}")

    async def _place(self) -> dict[str, int] | None:
        """The resource that steps ask for, where the workers are shared with others. Looked up once."""
        if self._room is ...:
            told = await self._client.scheduler.identity(n_workers=-1)
            if not told["workers"]:
                return None
            self._room = offered(told, "step")
        return self._room

    def _submit(self, step: Step, place: dict[str, int] | None) -> Future:
        # Of equal priorities Dask runs the last submitted first; the oldest sequence must win.
        return self._client.submit(self._run, step, pure=False, retries=3, priority=-step.start, resources=place)


def _end_of(task: asyncio.Task[None]) -> str:
    return "it was cancelled" if task.cancelled() else repr(task.exception())


async def _result(future: Future) -> Answer | str:
    """The worker's answer, or the reason why there is none: Dask's own failures as text."""
    try:
        answer: Answer = await future
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return "Dask cancelled the step"
    except Exception as error:
        await asyncio.sleep(PAUSE_S)
        return f"{type(error).__name__}: {error}"
    return answer
