"""`penstock bench end-to-end`: a source process -> socket -> journal -> rings -> LSTMs on Triton -> speed view.

All parts real, on a scratch site. First a very wide plant, flat out: how many readings a second are said and archived.
Then a plant that comes ten times a second, on time: how long after a tick's last frame was due it is said, what the
kill of a Dask worker costs, and what the processes keep. At the end a thousand tags over all ticks are compared with
what the generator says they are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil

from penstock import live
from penstock.bench.event_peers import event_peers
from penstock.bench.results import Load, Row, answer
from penstock.bench.wide_plant import LENGTH, WidePlant
from penstock.bench.wide_site import Line, make_site
from penstock.data.durations import SECOND_NS
from penstock.data.grid import PRESENT, STATUS
from penstock.data.views.speed_view import Spoken
from penstock.data.windows import Reason
from penstock.errors import SiteError
from penstock.site import Site
from penstock.speed.clock import SourceClock

PER_S = 10
"""Frames a second of the plant that keeps time."""
CHECKED = 1000
"""Tags compared at the end."""
START_S = 300.0
END_S = 600.0
SAMPLE_S = 5.0
GOAL_PER_S, GOAL_P99_MS, GOAL_GAP_S, GOAL_GROWTH_MB = 2e7, 100.0, 1.0, 50.0
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be measured."""

    tags: int = 1_000_000
    """Of the plant that comes flat out."""
    timed_tags: int = 100_000
    """Of the plant that keeps time."""
    models: int = 100
    seconds: float = 60.0
    """Of each of the two."""
    minutes: float = 0.0
    """That the second one goes on for its memory; 0: not measured."""
    peers: bool = True
    warm_s: float = 10.0
    """Of the second one, before anything is measured: names are looked up, code is compiled, windows fill."""
    kill_s: float = 15.0
    """How long it goes on after a worker was killed."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """One stream, as it went; moments are seconds of the monotonic clock."""

    begin: float = 0.0
    """When the source's first frame was due."""
    ticks: int = 0
    """Sent."""
    said: list[tuple[int, float, int]] = field(default_factory=list)
    """(tick since the first, moment, models that answered)"""
    ended: float = 0.0
    """All was said and archived."""
    killed: float | None = None
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(moment, MB that the stream's processes hold for themselves)"""
    others: float = 0.0
    lost: dict[str, int] = field(default_factory=dict)


def run(wish: Wish, told: Told = lambda text: None) -> dict[str, Any]:
    """The benchmark's JSON; `told` hears what it does. Raises what a site raises."""
    peers = event_peers(told, wish.seconds / 4) if wish.peers else {}
    wide = WidePlant(tags=wish.tags, period_ns=SECOND_NS, models=wish.models)
    flat_out = streamed(wide, told, lambda stream: stream.flat_out(wish.seconds))
    timed = WidePlant(tags=wish.timed_tags, period_ns=SECOND_NS // PER_S, models=wish.models)
    kept = streamed(timed, told, lambda stream: stream.on_time(wish))
    rows = [*wide_rows(wish, flat_out, peers), *timed_rows(wish, kept)]
    return answer("end-to-end", rows, max(flat_out.others, kept.others))


def streamed(plant: WidePlant, told: Told, course: Callable[[Stream], None]) -> Seen:
    """On a site of its own, while `course` directs from a thread: the stream wants the main one for its signals."""
    told(f"a scratch site with {plant.tags} tags and {plant.models} models")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, make_site(Path(folder), plant) as site:
        site.parts.begin_triton()
        pids = list(site.parts.client().run(os.getpid).values())
        told("deploy on Triton")
        stream, seen = Stream(site, plant, pids, told), Seen()
        stream.seen = seen
        with ThreadPoolExecutor(1) as pool:
            directing = pool.submit(stream.direct, course)
            try:
                report = live.run(site, [(stream.line, SourceClock())], stream.tell)
            finally:
                stream.stopped.set()
            seen.ended = time.monotonic()
            directing.result()
        told("compare with the generator")
        seen.lost = _lost(site, plant, stream.first, seen, report)
    return seen


class Stream:
    """A running stream and its source process."""

    seen: Seen

    def __init__(self, site: Site, plant: WidePlant, pids: list[int], told: Told) -> None:
        self.line, self.stopped = Line(site), threading.Event()
        self._plant, self._pids, self._told = plant, pids, told
        # At the begin of a segment of the archive: none is closed within the run.
        long = site.readings.segment_ticks
        self.first = (site.readings.grid.tick_of(time.time_ns()) // long - 1) * long

    def tell(self, spoken: Spoken) -> None:
        """A tick stands in the speed view."""
        answered = int(np.count_nonzero(spoken.reasons == Reason.OK))
        self.seen.said.append((spoken.tick - self.first, time.monotonic(), answered))

    def direct(self, course: Callable[[Stream], None]) -> None:
        """From the source's start to its end; whatever happens, the stream ends."""
        try:
            self._await(lambda: self.line.address is not None, "the stream did not listen")
            course(self)
        finally:
            self.line.over = True

    def flat_out(self, seconds: float) -> None:
        """Frames as fast as they are taken."""
        with self._source(0) as end:
            self._told(f"{seconds:g} s flat out")
            load = Load()
            self._wait(seconds)
            self.seen.others = load.others()
            end()

    def on_time(self, wish: Wish) -> None:
        """Frames at their time: the delays; the memory; a killed worker."""
        with self._source(PER_S) as end:
            self._told(f"{wish.seconds:g} s at {PER_S * self._plant.tags:g} readings/s")
            self._wait(wish.warm_s)
            load = Load()
            self._wait(wish.seconds)
            self.seen.others = load.others()
            self._sample(60 * wish.minutes)
            self._told("kill -9 of a Dask worker")
            self.seen.killed = time.monotonic()
            os.kill(self._pids[0], signal.SIGKILL)
            self._wait(wish.kill_s)
            end()

    def _sample(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and not self.stopped.is_set():
            self.seen.memory.append((now, _held_mb()))
            self._told(f"{until - now:.0f} s left; {self.seen.memory[-1][1]:.0f} MB")
            self._wait(SAMPLE_S)

    def _wait(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise SiteError("the stream ended before its source")

    def _await(self, there: Callable[[], bool], else_: str) -> None:
        until = time.monotonic() + START_S
        while not there():
            if self.stopped.wait(0.1) or time.monotonic() > until:
                raise SiteError(f"{else_} within {START_S:g} s")

    def _source(self, per_s: float) -> _Source:
        address = self.line.address
        assert address is not None
        return _Source(
            self, [*map(str, address), *map(str, (self._plant.tags, self._plant.period_ns, self.first, per_s))]
        )


class _Source:
    """The source's process; in a `with` block, which gives the function that ends it in order."""

    def __init__(self, stream: Stream, words: list[str]) -> None:
        self._stream, self._words = stream, words

    def __enter__(self) -> Callable[[], None]:
        command = [sys.executable, "-m", "penstock.bench.feeder", *self._words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines = self._process.stdout
        self._stream.seen.begin = _said(self._lines, START_S)["begin"]
        return self._end

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _end(self) -> None:
        """It says its last, which is durable then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._stream.seen.ticks = _said(self._lines, END_S)["ticks"]


def _said(lines: IO[str] | None, deadline_s: float) -> Mapping[str, Any]:
    """The next line of the source's process. Raises SiteError where none comes."""
    assert lines is not None
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(lines.readline()), daemon=True)
    reader.start()
    reader.join(deadline_s)
    if not found or not found[0]:
        raise SiteError(f"the source's process said nothing within {deadline_s:g} s, or has ended")
    said: Mapping[str, Any] = json.loads(found[0])
    return said


def _held_mb() -> float:
    """What this process and those below it hold for themselves, without the source's."""
    total, own = 0.0, psutil.Process()
    for process in (own, *own.children(recursive=True)):
        try:
            if "penstock.bench.feeder" not in process.cmdline():
                memory = process.memory_info()
                total += (memory.rss - memory.shared) / 1e6
        except psutil.NoSuchProcess:
            continue
    return total


def _lost(site: Site, plant: WidePlant, first: int, seen: Seen, report: Mapping[str, Any]) -> dict[str, int]:
    """Readings not accepted, cells that differ from the generator's, ticks not said, and predictions not made."""
    tags = np.sort(np.random.default_rng(9).choice(plant.tags, min(CHECKED, plant.tags), replace=False)).astype(
        np.int32
    )
    ids = site.registry.ids([f"T{i:07d}" for i in tags])
    cells = site.readings.read(ids, first, first + seen.ticks)
    values, status = plant.expected(np.arange(seen.ticks, dtype=np.int64), tags)
    same = (cells.values == values) & ((cells.quality & STATUS) == status) & ((cells.quality & PRESENT) != 0)
    full = [answered for tick, _, answered in seen.said if tick >= 2 * LENGTH]
    return {
        "readings": plant.sent(seen.ticks) - int(report["readings"]),
        "cells": int(np.count_nonzero(~same)),
        "ticks": len(set(range(seen.ticks)) - {tick for tick, _, _ in seen.said}),
        "predictions": sum(plant.models - answered for answered in full),
    }


def _short(tags: int) -> str:
    """1000000 -> 1e6"""
    return f"{tags:.0e}".replace("e+0", "e").replace("e+", "e")


def _why(lost: Mapping[str, int]) -> str | None:
    return ", ".join(f"{n} {what}" for what, n in lost.items() if n) or None


def wide_rows(wish: Wish, seen: Seen, peers: Mapping[str, float]) -> list[Row]:
    """Counted from the first tick said: until then names are looked up."""
    begin, end = (seen.said[0][1], seen.said[-1][1]) if seen.said else (seen.begin, seen.ended)
    readings, name = wish.tags * (len(seen.said) - 1), _short(wish.tags)
    per_s, said_per_s = readings / (seen.ended - begin), readings / max(end - begin, 1e-9)
    return [
        Row(
            what=f"e2e-{name}-readings-per-s", unit="readings/s", ours=round(per_s), peers=peers, goal=GOAL_PER_S,
            better="higher",
        ),
        Row(
            what=f"e2e-{name}-said-per-s", unit="readings/s", ours=round(said_per_s), better="higher",
        ),
        Row(
            what="e2e-lost", unit="readings, cells, ticks, predictions", ours=float(sum(seen.lost.values())), goal=0.0,
            why=_why(seen.lost),
        ),
    ]  # fmt: skip


def timed_rows(wish: Wish, seen: Seen) -> list[Row]:
    """A tick is closed by the next one's frame: its delay counts from when that one was due."""
    name = _short(wish.timed_tags)
    ends = (seen.begin + wish.warm_s, seen.begin + wish.warm_s + wish.seconds)
    due = [(seen.begin + (tick + 1) / PER_S, moment) for tick, moment, _ in seen.said]
    ms = np.array([1000 * (moment - at) for at, moment in due if ends[0] <= at < ends[1]] or [np.nan])
    moments = np.array([moment for _, moment, _ in seen.said])
    after = moments[moments >= (seen.killed or 0.0) - 1]
    rows = [
        Row(what=f"e2e-{name}-p50-ms", unit="ms", ours=round(float(np.median(ms)), 1)),
        Row(what=f"e2e-{name}-p99-ms", unit="ms", ours=round(float(np.quantile(ms, 0.99)), 1), goal=GOAL_P99_MS),
        Row(
            what="worker-kill-gap-s", unit="s", ours=round(float(np.diff(after).max(initial=0.0)), 2), goal=GOAL_GAP_S,
        ),
        Row(
            what="worker-kill-lost", unit="readings, cells, ticks, predictions", ours=float(sum(seen.lost.values())),
            goal=0.0, why=_why(seen.lost),
        ),
    ]  # fmt: skip
    return [*rows, *_memory_rows(seen)]


def _memory_rows(seen: Seen) -> list[Row]:
    if len(seen.memory) < 4:
        return []
    moments, held = np.array(seen.memory).T
    growth = float(np.polyfit(moments - moments[0], held, 1)[0]) * 600
    return [
        Row(what="stream-memory-growth", unit="MB/10 min", ours=round(growth, 1), goal=GOAL_GROWTH_MB),
        Row(what="stream-memory-end", unit="MB", ours=round(float(held[-1]), 1)),
    ]
