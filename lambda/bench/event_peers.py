"""The usual way to stream: an object per reading, through streamz or Bytewax, to windows of 60.

They are given the readings ready made, in this process: no socket, no journal, no archive, no quality and no model;
what they reach is an upper bound of what they would reach in our place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from penstock.cluster import local_cluster

TAGS, WINDOW, BATCH = 1000, 60, 10_000
IN_FLIGHT = 8
Event = tuple[int, int, float, int]
"""Tag, time, value, status."""


def event_peers(told: Callable[[str], None], seconds: float) -> dict[str, float]:
    """Readings a second of those that are installed, by name."""
    told("streamz per event with a Dask task per batch")
    found: dict[str, float] = {"streamz per event, a Dask task per batch": round(streamz_per_event(events(seconds)))}
    if find_spec("bytewax") is not None:
        told("Bytewax per event")
        found["Bytewax per event"] = round(bytewax_per_event(events(seconds)))
    return found


def events(seconds: float) -> Iterator[Event]:
    """Tick after tick of TAGS readings, for so long."""
    until, tick = time.monotonic() + seconds, 0
    values = np.random.default_rng(1).normal(50, 20, TAGS).tolist()
    while time.monotonic() < until:
        for tag, value in enumerate(values):
            yield tag, tick, value, 0
        tick += 1


def streamz_per_event(source_events: Iterable[Event]) -> float:
    """Readings a second: source -> filter -> map -> partition -> a Dask task that keeps the windows."""
    from distributed import Future
    from streamz import Stream

    with local_cluster(1) as client:
        waiting: deque[Future] = deque()
        done = 0

        def submit(batch: tuple[Event, ...]) -> None:
            nonlocal done
            while len(waiting) >= IN_FLIGHT:
                done += waiting.popleft().result()
            waiting.append(client.submit(windowed, batch, pure=False))

        source = Stream()
        good = source.filter(lambda event: event[3] < 128)
        kept = good.map(lambda event: (event[0], event[1], event[2] * 1.0, event[3])).partition(BATCH).sink(submit)
        begun = time.monotonic()
        for event in source_events:
            source.emit(event)
        while waiting:
            done += waiting.popleft().result()
        del kept  # streamz holds its nodes weakly: ours kept them alive until here
        return done / (time.monotonic() - begun)


_windows: dict[int, deque[float]] = {}


def windowed(batch: tuple[Event, ...]) -> int:
    """On the worker: each tag's newest values."""
    for tag, _, value, _ in batch:
        if tag not in _windows:
            _windows[tag] = deque(maxlen=WINDOW)
        _windows[tag].append(value)
    return len(batch)


def bytewax_per_event(source_events: Iterable[Event]) -> float:
    """Readings a second: source -> filter -> keyed by tag -> stateful window -> count."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSource, run_main

    count = 0

    from bytewax.outputs import DynamicSink, StatelessSinkPartition

    class Count(StatelessSinkPartition[Any]):  # type: ignore[misc]
        def write_batch(self, items: list[Any]) -> None:
            nonlocal count
            count += len(items)

    class Counting(DynamicSink[Any]):  # type: ignore[misc]
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Count:
            return Count()

    def step(window: deque[float] | None, event: Event) -> tuple[deque[float], int]:
        window = deque(maxlen=WINDOW) if window is None else window
        window.append(event[2])
        return window, len(window)

    flow = Dataflow("windows")
    stream = op.input("in", flow, TestingSource(source_events, batch_size=1000))
    good = op.filter("good", stream, lambda event: event[3] < 128)
    keyed = op.key_on("tag", good, lambda event: str(event[0]))
    op.output("out", op.stateful_map("window", keyed, step), Counting())
    begun = time.monotonic()
    run_main(flow)
    return count / (time.monotonic() - begun)
