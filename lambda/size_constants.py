"""What parts of a site take, measured: the constants of `penstock size`. Each says what was run.

All of 2026-11-23, on an AMD EPYC (Zen 5) with 2 cores and 23.5 GiB that other work used too; so CPU seconds
and pages are counted, never wall time, but for the start. "Plant A, B, C" are simulated plants, `penstock up --rate 1`,
a tick a second, models of 60 x 32 and 64 units, 35 s of them: A 400 tags, 40 models; B 10,000 tags, 40 models; C 400
tags, 200 models. Memory is proportional set size. "Idle" is a site that is up without a stream.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 60 * 32
"""Numbers of a window of the plants that were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one part: fixed, and per tag, per model, and per model for each WINDOW numbers of its window."""

    fixed: float
    tag: float = 0.0
    model: float = 0.0
    window: float = 0.0


IDLE_MS_PER_S = {"triton": 11.4, "stream": 0.0, "dask": 104.8, "page": 1.0, "up": 2.0}
"""CPU ms a second of parts that wait for work (idle site, 20 s); a stream always has some."""
CPU_MS = {
    "triton": Cost(fixed=10.7, window=0.015),
    "stream": Cost(fixed=28.1, tag=0.00055, window=0.135),
    "dask": Cost(fixed=6.4, tag=0.0017, window=0.067),
    "page": Cost(fixed=3.4, tag=0.00023, model=0.022),
    "up": Cost(fixed=0.2),
}
"""CPU ms of a tick, less what is idle and less the engine's own arithmetic: A; tags from B - A, models from C - A."""
MEMORY_MB = {
    "triton": Cost(fixed=605, model=1.81),
    "stream": Cost(fixed=166, tag=0.0124, window=0.131),
    "dask": Cost(fixed=251, window=0.026),
    "page": Cost(fixed=173, tag=0.001, model=0.024),
    "up": Cost(fixed=80.5),
}
"""MB (10^6 bytes): tritonserver, engine, keeper and watch (mean of A and B: 546, 669); stream; two workers and
scheduler; page; supervisor. Weights and rings are counted beside them."""
WEIGHT_COPIES = 3.2
"""Of a model's weights in the engine: 0.32 MB more for 0.1 MB of weights (2,000 tags and 200 models less A)."""
RING_CELL = 41.7
"""Bytes of a cell of the tags that models read, in the workers' rings and what they compute from them: 124 MB more
for 1,600 more tags that are read, of 1,860 ticks (plant of 2,000 tags and 200 models less C)."""
LOOK_BACK_S = 1800.0
"""How far quality looks back for a sensor that stands still, as the simulated plant has it (flat_after = "30min")."""
TRAINING_MB = 1000.0
"""More in a Dask worker that trains: TensorFlow and a sample; resident 1,094 MB after three jobs, 78 before."""
SHM_MIB = 20.0
"""/dev/shm while Triton serves 200 models: 19.3 MiB."""

JOURNAL_READING = 17.0
"""Bytes: time, tag id, value and quality of a reading that comes alone; readings of one moment share most of it (4)."""
SEGMENT = 64 << 20
"""Bytes of a file of the journal, there from its beginning (journal.segment_mb)."""
ARCHIVE_READING = 4.8
"""Bytes with all that is beside them: 244,101 readings of the gas turbine, imported, took 1.16 MB. Simulated ones take
3.0: 3,600,000 of 40 tags, a day's segment closed, 10.8 MB."""
COMMIT_EVERY_S = 10.0
"""archive.commit_every of site.toml."""
COMMIT = 40e3
"""Bytes of a commit beside its chunks: A's archive grew by 141 kB a commit, of which 103 were its open chunk."""
SPOKEN_TICK, SPOKEN_MODEL = 40.0, 22.0
"""Bytes of a tick in views/speed.sqlite, and more for each model: 1,500 ticks of 0, 40, 200, 1,000 models written."""
MODEL_FILES = 98e3
"""Bytes of a model's version in models/ and triton/ beside the two below: card, alias, whole blocks of the disk."""
MODEL_WINDOW = 256.0
"""Bytes for each number of its window: 32 golden windows, twice; a trained model's folder took 520 kB in all."""
MODEL_WEIGHT = 12.0
"""Bytes on the disk for each number of a model: network, serving arrays, the engine's slot, 4 each."""

SYNC_MS = 4.3
"""An append of 8 kB with fdatasync, median of 60, on a virtual disk."""
START_S, START_MODEL_S = 62.0, 0.2
"""Wall seconds of `up` until all is up: A; C - A, while others used most of the machine (load 6 and 10): at most."""
TRAINING_FIRST_S, TRAINING_MODEL_S = 12.1, 4.4
"""CPU seconds of a worker before its first job, and of each job: two workers took 16.5 each for one job, 25.3 for three
(`penstock train`, a simulated plant at 1 s, models of 60 x 32 and 64 units); TensorFlow's import is in it."""
TRAINING_WINDOWS, TRAINING_EPOCHS = 4000, 5
"""Of those models."""

_ROW = 60 * 64 * 4 * 64 + 64 * 4 * 32
"""Products of one more row for the same network: each of its 60 states takes a step, the row is projected once."""
_ROW_US = 44.0
"""CPU microseconds of that row: 0.47 of the window's in three of `size_kernel`'s runs (2026-11-28, others at work)."""
_LSTM = 60 * 64 * 4 * (32 + 64)
"""Products of a window of 60 x 32 through 64 units."""
_LSTM_US = 94.0
"""CPU microseconds of that window, one thread: best of `size_kernel`'s five, Zen 5 with AVX-512."""


def products(rows: int, inputs: int, units: int, layers: int) -> int:
    """Of one window of an LSTM."""
    return rows * 4 * units * (inputs + units + 2 * units * (layers - 1))


def window_us(rows: int, inputs: int, units: int, layers: int) -> float:
    """CPU microseconds of one window where none could be measured: it goes with the products."""
    return _LSTM_US * products(rows, inputs, units, layers) / _LSTM


def row_us(rows: int, inputs: int, units: int, layers: int) -> float:
    """CPU microseconds of one more row where none could be measured: it goes with the products."""
    work = rows * 4 * units * units * (2 * layers - 1) + 4 * units * inputs
    return _ROW_US * work / _ROW


def state_bytes(rows: int, units: int, layers: int) -> float:
    """Of a model that is asked by rows: two numbers per unit, layer and row of its window, 4 bytes each."""
    return 8.0 * rows * units * layers


def training_s(shape: tuple[int, int, int, int]) -> float:
    """CPU seconds to train one model: it goes with the products too."""
    return TRAINING_MODEL_S * products(*shape) / _LSTM
