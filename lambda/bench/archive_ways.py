"""Readings into the archive, durably, and one model's tags out of it; the same with plain Zarr, and with DuckDB."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from penstock.bench.wide_plant import INPUTS, WidePlant
from penstock.data.archive import Archive
from penstock.data.archive.archiver import drain
from penstock.data.archive.repository import sync_filesystem
from penstock.data.durations import SECOND_NS
from penstock.data.frame import Dense
from penstock.data.grid import Grid
from penstock.data.journal import ClockDecision, Entry, Journal
from penstock.data.layout import Layout

Told = Callable[[str], None]
Rates = dict[str, float]
BLOCK = 64
"""Ticks that the peers write at a time."""
CHUNK = (64, 1024)
ZARR, DUCKDB = "plain zarr append", "DuckDB"
DUCKDB_TICKS = 32
"""So many are measured: it is slower by far."""
READS = 5
"""Different models read; the best counts, for all."""


def written(folder: Path, tags: int, ticks: int, told: Told) -> tuple[float, Rates]:
    """Readings a second: (ours, peers)."""
    plant = WidePlant(tags=tags, period_ns=SECOND_NS)
    told(f"{ticks} ticks of {tags} tags into the journal")
    journal, archive, layout = _filled(folder, plant, ticks, 0)
    told("into the archive")
    begun = time.monotonic()
    ours = drain(journal, archive, layout).readings / (time.monotonic() - begun)
    journal.close()
    told(ZARR)
    peers: Rates = {ZARR: round(_zarr_written(folder / "plain.zarr", plant, ticks))}
    if find_spec("duckdb") is not None:
        told(DUCKDB)
        peers[DUCKDB] = round(_duckdb_written(folder / "duck.db", plant, min(ticks, DUCKDB_TICKS)))
    return ours, peers


def read(folder: Path, tags: int, told: Told, ticks: int | None = None) -> tuple[float, Rates]:
    """10^9 bytes a second of arrays, of a segment that is closed: (ours, peers)."""
    plant = WidePlant(tags=tags, period_ns=SECOND_NS)
    long = Archive.create(folder / "shape", Grid(period_ns=SECOND_NS)).segment_ticks
    told(f"a segment of {long} ticks of {tags} tags, closed")
    count = min(ticks or long, long)
    journal, archive, layout = _filled(folder, plant, count, long)
    drain(journal, archive, layout)
    journal.close()
    first = archive.span()[0]

    def ours(at: NDArray[np.int32]) -> int:
        cells = Archive.open(archive.folder).read(at, first, first + count)
        return int(cells.values.nbytes + cells.quality.nbytes + cells.offset.nbytes)

    told(ZARR)
    _zarr_written(folder / "plain.zarr", plant, count)
    peers = {ZARR: _best(_zarr_reader(folder / "plain.zarr"), plant)}
    if find_spec("duckdb") is not None:
        told(DUCKDB)
        few = min(count, 4096)
        _duckdb_written(folder / "duck.db", plant, few)
        peers[DUCKDB] = _best(_duckdb_reader(folder / "duck.db"), plant)
    return _best(ours, plant), peers


def _best(work: Callable[[NDArray[np.int32]], int], plant: WidePlant) -> float:
    """GB a second of the best of READS reads, each of another model's tags."""
    best = 0.0
    for k in range(READS):
        at = (np.arange(INPUTS + 1, dtype=np.int32) + k * (INPUTS + 1)) % plant.tags
        begun = time.perf_counter()
        size = work(np.sort(at).astype(np.int32))
        best = max(best, size / (time.perf_counter() - begun) / 1e9)
    return float(f"{best:.3g}")  # a small one is not 0


def _filled(folder: Path, plant: WidePlant, ticks: int, closed: int) -> tuple[Journal, Archive, Layout]:
    """A journal of `ticks` from a segment's begin on, and what it goes to; `closed`: so far the clock has come."""
    journal, grid = Journal.open(folder / "journal"), Grid(period_ns=SECOND_NS)
    archive, layout = Archive.create(folder / "archive", grid), Layout(["float32"] * plant.tags, 2)
    first = 20_000 * archive.segment_ticks
    tags = np.arange(plant.tags, dtype=np.int32)
    rows = max(1, (1 << 19) // plant.tags)
    for begin in range(0, ticks, rows):
        every = range(begin, min(begin + rows, ticks))
        dense = Dense(
            times=grid.times(first + every.start, first + every.stop), tags=tags,
            values=np.stack([plant.values(tick) for tick in every]),
            quality=np.stack([plant.status(tick) for tick in every]),
        )  # fmt: skip
        journal.append([Entry(source="bench", source_offset=every.stop, parts=layout.split(dense))])
    decision = ClockDecision(closed=first + max(closed, ticks), reason="watermark")
    journal.append([Entry(source="bench", source_offset=ticks, clock=decision)])
    return journal, archive, layout


def _zarr_written(path: Path, plant: WidePlant, ticks: int) -> float:
    """Blocks appended to two plain arrays, and made durable: readings a second."""
    begun = time.monotonic()
    root = zarr.create_group(str(path))
    shape = {"value": "float32", "quality": "uint8"}
    arrays = [
        root.create_array(name, shape=(0, plant.tags), chunks=CHUNK, dtype=dtype) for name, dtype in shape.items()
    ]
    for begin in range(0, ticks, BLOCK):
        every = range(begin, min(begin + BLOCK, ticks))
        blocks = (np.stack([plant.values(t) for t in every]), np.stack([plant.status(t) for t in every]))
        for array, block in zip(arrays, blocks, strict=True):
            array.append(block)  # type: ignore[arg-type]
        sync_filesystem(path)
    return ticks * plant.tags / (time.monotonic() - begun)


def _zarr_reader(path: Path) -> Callable[[NDArray[np.int32]], int]:
    def read_it(at: NDArray[np.int32]) -> int:
        root: Any = zarr.open_group(str(path), mode="r")
        got = [root[name].oindex[:, at] for name in ("value", "quality")]
        return sum(each.nbytes for each in got)

    return read_it


def _duckdb_written(path: Path, plant: WidePlant, ticks: int) -> float:
    """Rows of (time, tag, value, quality), a transaction per tick, durable: readings a second."""
    import duckdb

    begun = time.monotonic()
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE TABLE r (time BIGINT, tag INTEGER, value FLOAT, quality UTINYINT)")
        tag = np.arange(plant.tags, dtype=np.int32)
        for tick in range(ticks):
            columns: dict[str, NDArray[Any]] = {
                "time": np.full(plant.tags, tick, np.int64), "tag": tag, "value": plant.values(tick),
                "quality": plant.status(tick),
            }  # fmt: skip
            database.register("frame", _table(columns))
            database.execute("INSERT INTO r SELECT * FROM frame")
            database.unregister("frame")
        database.execute("CHECKPOINT")
    os.sync()
    return ticks * plant.tags / (time.monotonic() - begun)


def _duckdb_reader(path: Path) -> Callable[[NDArray[np.int32]], int]:
    import duckdb

    def read_it(at: NDArray[np.int32]) -> int:
        with duckdb.connect(str(path), read_only=True) as database:
            chosen = ",".join(map(str, at.tolist()))
            got = database.execute(
                f"SELECT value, quality FROM r WHERE tag IN ({chosen}) ORDER BY tag, time"
            ).fetchnumpy()
        return sum(np.asarray(each).nbytes for each in got.values())

    return read_it


def _table(columns: dict[str, NDArray[Any]]) -> Any:
    import pyarrow as pa

    return pa.table(columns)
