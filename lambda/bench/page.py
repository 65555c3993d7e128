"""`penstock bench page`: does an open page cost the stream its time, and does it keep what it uses?

A scratch site with many models is streamed at one tick a second, all parts real:
journal, Dask workers, Triton, speed view. First without a page; then with
`penstock page` and several sessions, each on another model, one of which stops
reading its socket. Told: the page's memory and CPU, and how long after it was
due each tick was said, with and without the page. Its memory is what it holds for itself: the pages of the journal
that it has mapped rise with every tick and fall with every trim, cost nothing while the system caches the file
anyway, and stand in a row of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from penstock import live
from penstock.bench.beat import Beat
from penstock.bench.plant_site import make_site, store_models
from penstock.bench.results import Load, Row, answer
from penstock.bench.sessions import SEEN, await_ready
from penstock.errors import SiteError
from penstock.page_process import PageProcess
from penstock.serving.feed import ROWS
from penstock.site import Site
from penstock.speed.clock import SourceClock

SETTLE_S = 20.0
"""After the replay has begun to keep time: what was read at full speed is worked off."""
START_S = 300.0
"""Longest wait for the first tick in time: 200 models are deployed before."""
SAMPLE_S = 5.0
WARM_UP = 0.2
"""Share of the time with the page in which its memory may still rise: caches, the arenas of the allocator."""
GROWTH_MB = 5.0
"""Goal: what the page may grow by in ten minutes."""
CPU_PERCENT = 15.0
"""Goal: what the page may use of a core."""
DELAY_MS = 100.0
"""Goal: what the slowest ticks may lose by the page; a tenth of a tick."""
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be measured."""

    minutes: float = 10.0
    """With the page open."""
    models: int = 200
    sessions: int = 5
    """The first of them stalls."""

    @property
    def alone_s(self) -> float:
        """Without a page: a fifth of that, at least 20 s."""
        return max(12 * self.minutes, 20.0)

    @property
    def ticks(self) -> int:
        """More than are needed: the source is told when it is over."""
        return ROWS + int(START_S + SETTLE_S + self.alone_s + 60 * self.minutes + 600)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the watch saw; moments are seconds of the monotonic clock."""

    alone: tuple[float, float] = (0.0, 0.0)
    shown: tuple[float, float] = (0.0, 0.0)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(moment, MB that the page's process holds for itself)"""
    mapped_mb: float = 0.0
    cpu_s: float = 0.0
    """What the page's process used while it was shown."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    others: float = 0.0


def run(wish: Wish, told: Told = lambda text: None) -> dict[str, Any]:
    """The benchmark's JSON; `told` hears what it does. Raises what a site raises, SiteError where a session fails."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        told(f"a scratch site with {wish.models} models")
        with make_site(Path(scratch), wish.models) as site:
            site.parts.begin_triton()
            store_models(site, site.parts.client())
            told("deploy on Triton")
            beat, seen = _streamed(site, wish, told)
    return answer("page", list(_rows(wish, beat, seen)), seen.others)


def _streamed(site: Site, wish: Wish, told: Told) -> tuple[Beat, Seen]:
    """Stream, and watch from a thread: the stream wants the main one for its signals."""
    source = site.plant.name.replace(",", f":0s..{wish.ticks}s,", 1)
    replay = live.replay(site, source, {}, 1.0, None, ROWS)
    beat, seen, stop = Beat(replay, site.readings.grid, skip=ROWS), Seen(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(_watch, site.folder, wish, beat, seen, stop, told)
        try:
            live.run(site, [(beat, SourceClock())], beat.said)
        finally:
            stop.set()
        watching.result()
    return beat, seen


def _watch(folder: Path, wish: Wish, beat: Beat, seen: Seen, stop: threading.Event, told: Told) -> None:
    """Without, with, and the end; `stop`: the stream has ended, for whatever reason."""
    try:
        until = time.monotonic() + START_S
        while beat.begin is None:
            if stop.wait(0.2) or time.monotonic() > until:
                raise SiteError(f"the stream did not keep time within {START_S:g} s")
        stop.wait(SETTLE_S)
        told(f"{wish.alone_s:g} s without a page")
        load, begun = Load(), time.monotonic()
        stop.wait(wish.alone_s)
        seen.alone = begun, time.monotonic()
        told(f"{wish.minutes:g} minutes with a page and {wish.sessions} sessions, one of which stalls")
        with PageProcess(folder) as page:
            _show(page, wish, seen, stop, told)
            seen.others = load.others()
    finally:
        beat.over.set()


def _show(page: PageProcess, wish: Wish, seen: Seen, stop: threading.Event, told: Told) -> None:
    """The page's time."""
    words = [sys.executable, "-m", "penstock.bench.sessions", page.address, str(wish.sessions), "1"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sessions:
        await_ready(sessions)
        process = psutil.Process(page.pid)
        begun, used = time.monotonic(), sum(process.cpu_times()[:2])
        while (now := time.monotonic()) < begun + 60 * wish.minutes and not stop.wait(SAMPLE_S):
            if sessions.poll() is not None:
                raise SiteError("a session of the page has ended; its reason is on standard error")
            memory = process.memory_info()
            seen.memory.append((now, (memory.rss - memory.shared) / 1e6))
            seen.mapped_mb = memory.shared / 1e6
            told(f"{now - begun:.0f} s: page {seen.memory[-1][1]:.0f} MB")
        seen.shown, seen.cpu_s = (begun, time.monotonic()), sum(process.cpu_times()[:2]) - used
        said, _ = sessions.communicate(timeout=30)
    seen.sessions = [json.loads(line) for line in said.splitlines()]


def _rows(wish: Wish, beat: Beat, seen: Seen) -> list[Row]:
    shown_s = seen.shown[1] - seen.shown[0]
    alone, shown = beat.delays_ms(*seen.alone), beat.delays_ms(*seen.shown)
    ends = [round(float(np.percentile(delays, 99)), 1) for delays in (alone, shown)]
    middles = [round(float(np.median(delays)), 1) for delays in (alone, shown)]
    moments, sizes = np.array([m for m in seen.memory if m[0] >= seen.shown[0] + WARM_UP * shown_s]).T
    growth = float(np.polyfit(moments - moments[0], sizes, 1)[0]) * 600
    reading = [(s["patches"] - SEEN) / shown_s for s in seen.sessions if not s["stalled"]]
    held = [s for s in seen.sessions if s["stalled"]]
    return [
        Row(what="page memory growth after the warm-up", unit="MB/10 min", ours=round(growth, 2), goal=GROWTH_MB),
        Row(what="page memory at the end", unit="MB", ours=round(float(sizes[-1]), 1)),
        Row(what="files that the page maps, at the end", unit="MB", ours=round(seen.mapped_mb, 1)),
        Row(what="page CPU", unit="% of a core", ours=round(100 * seen.cpu_s / shown_s, 1), goal=CPU_PERCENT),
        Row(what="tick delay p50, page open", unit="ms", ours=middles[1], peers={"without a page": middles[0]}),
        Row(
            what="tick delay p99, page open", unit="ms", ours=ends[1], peers={"without a page": ends[0]},
            goal=round(ends[0] + DELAY_MS, 1),
        ),
        Row(
            what="ticks said of those due, page open", unit="%", ours=round(100 * len(shown) / shown_s, 1),
            goal=99.0, better="higher",
        ),
        Row(
            what="updates that the slowest reading session got", unit="1/s", ours=round(min(reading), 2),
            goal=1.0, better="higher",
        ),
        Row(what="sessions that stalled", unit="sessions", ours=len(held), goal=1, better="higher"),
    ]  # fmt: skip
