"""What this machine has, for `penstock size`: looked up, and in some seconds measured.

Everything that is measured has a constant beside it (`size_constants.py`), for `--no-probe` and for where it fails.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock import size_constants as known
from penstock.errors import SiteError

SHM = Path("/dev/shm")
KERNEL_S = 20.0
"""Longest wait for the engine's arithmetic: numba compiles for 8 s the first time, later it takes a second."""
SYNCS = 40
SYNCS_S = 3.0
"""Longest time for measuring the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is."""

    cores: int
    """That this process may use."""
    memory: float
    """Bytes free for programs."""
    disk: float
    """Bytes free where the site is to be."""
    shm: float
    """Bytes free in /dev/shm."""
    window_us: float
    """CPU microseconds of one window through one model, one thread."""
    row_us: float
    """The same of one more row, for a model whose states are kept."""
    sync_ms: float
    """Milliseconds of one durable append, of a tick's readings."""
    measured: tuple[str, ...] = ()
    """Which of the last three were measured here; the others are constants."""


def machine_of(disk: Path, shape: tuple[int, int, int, int], frame_bytes: int, *, probe: bool = True) -> Machine:
    """This machine; shape: rows, inputs, units, layers of the models; frame_bytes: a tick's readings in the journal.

    Raises SiteError where `disk` is no folder.
    """
    if not disk.is_dir():
        raise SiteError(f"{disk}: no such folder; name one on the disk where the site is to be")
    window, row = (_kernel_us(shape) if probe else None) or (None, None)
    sync = _sync_ms(disk, frame_bytes) if probe else None
    found = {"window": window, "row": row, "sync": sync}
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory=psutil.virtual_memory().available,
        disk=shutil.disk_usage(disk).free,
        shm=shutil.disk_usage(SHM).free if SHM.is_dir() else 0.0,
        window_us=known.window_us(*shape) if window is None else window,
        row_us=known.row_us(*shape) if row is None else row,
        sync_ms=known.SYNC_MS if sync is None else sync,
        measured=tuple(name for name, value in found.items() if value is not None),
    )


def _kernel_us(shape: tuple[int, int, int, int]) -> tuple[float, float] | None:
    """Of a window and of a row. None: no numba here, or no answer in time; the constant then holds."""
    cache = Path(os.environ.get("PENSTOCK_CACHE", Path.home() / ".cache" / "penstock")) / "kernels"
    words = [sys.executable, "-m", "penstock.size_kernel", *(str(number) for number in shape)]
    try:
        said = subprocess.run(
            words, env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, timeout=KERNEL_S,
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        window, row = map(float, said.stdout.split())
        return window, row
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _sync_ms(folder: Path, size: int) -> float | None:
    """Median append of `size` bytes with fdatasync, as the journal makes them; None where nothing can be written."""
    taken: list[float] = []
    content, until = os.urandom(max(size, 1)), time.monotonic() + SYNCS_S
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            while len(taken) < SYNCS and (time.monotonic() < until or not taken):
                begun = time.perf_counter()
                file.write(content)
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter() - begun)
    except OSError:
        return None
    return 1000 * statistics.median(taken)
