"""What a benchmark says: its rows, on which machine, with which versions, and what else used the machine meanwhile."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

LIBRARIES = (
    "penstock", "dask", "distributed", "numpy", "numba", "pandas", "panel", "bokeh", "tensorflow", "tritonclient",
    "streamz", "polars", "duckdb", "bottleneck", "numbagg", "bytewax", "onnxruntime", "openvino",
)  # fmt: skip
MATRIX = 1024
"""Rows of the matrices whose product measures the processor: 4 MB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    what: str
    unit: str
    ours: float | None
    """None: it could not be measured; `why` says the reason."""
    peers: Mapping[str, float] = field(default_factory=dict)
    goal: float | None = None
    better: Literal["higher", "lower"] = "lower"
    why: str | None = None
    """Of a figure that is there: what could not be measured beside it."""

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None where there is none."""
        if self.ours is None or self.goal is None:
            return None
        return self.ours >= self.goal if self.better == "higher" else self.ours <= self.goal

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        told = asdict(self) | {"met": self.met}
        return told if self.why is not None else {key: value for key, value in told.items() if key != "why"}


class Load:
    """CPU time from here on: the machine's, and that of this process and those it started."""

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.monotonic(), _busy_s(), _own_s()

    def others(self) -> float:
        """Share of all cores that other processes used since; 0 to 1. Processes of ours that ended count as others."""
        wall = max(time.monotonic() - self._wall, 1e-3) * _cores()
        return round(max(_busy_s() - self._busy - (_own_s() - self._own), 0.0) / wall, 3)


def answer(bench: str, rows: Sequence[Row], others_cpu: float) -> dict[str, Any]:
    """The JSON of a benchmark."""
    return {
        "bench": bench,
        "machine": machine(others_cpu),
        "versions": versions(LIBRARIES),
        "rows": [row.told() for row in rows],
    }


def machine(others_cpu: float) -> dict[str, Any]:
    """What it ran on."""
    return {
        "cpu": _cpu_name(),
        "cores": _cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "fma_gflops": fma_gflops(),
        "others_cpu": others_cpu,
    }


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fma_gflops(seconds: float = 0.5) -> float:
    """10^9 float32 operations a second in a matrix product on all cores: best of what fits into `seconds`."""
    a = np.random.default_rng(0).random((MATRIX, MATRIX), np.float32)
    until, best = time.monotonic() + seconds, np.inf
    while time.monotonic() < until:
        begun = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begun)
    return round(2 * MATRIX**3 / best / 1e9, 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


def _own_s() -> float:
    """CPU seconds of this process, its children that live, and those that they have waited for."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total
