"""Blocks of readings -> CSV, Parquet or plain Zarr, chosen by the file's ending.

Wide: a time (UTC) and a column per tag, one row per tick that has a reading; Zarr keeps the whole regular axis. With
quality a column ``TAG quality`` (0 good, 64 uncertain, 128 bad) stands beside each tag. Knows no site.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from penstock.errors import SourceError

SECOND_NS = 1_000_000_000
CHUNK = (8192, 64)
"""Rows and tags of a Zarr chunk."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """What is exported."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    double: NDArray[np.bool_]
    """[m] float64 tags; the others are float32."""
    quality: bool
    """Whether the quality of each reading goes out too."""
    rows: int
    """Ticks in all blocks together."""
    period_ns: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Consecutive ticks."""

    times: NDArray[np.int64]
    """[k] ns UTC, the beginning of each tick."""
    values: NDArray[Any]
    """[k, m] NaN where not present."""
    present: NDArray[np.bool_]
    """[k, m]"""
    status: NDArray[np.uint8]
    """[k, m] status as in `data.frame`; meaningless where not present."""


class Writer(Protocol):
    """One file being written."""

    def write(self, block: Block) -> None:
        """Append a block."""


def suffixes(path: Path) -> str:
    """Which of csv, parquet, zarr `path` is to be. Raises SourceError for another ending."""
    kind = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".zarr": "zarr"}.get(path.suffix.lower())
    if kind is None:
        raise SourceError(f"{path}: cannot tell the format; let the name end with .csv, .parquet or .zarr")
    return kind


def opened(aside: Path, path: Path, columns: Columns) -> AbstractContextManager[Writer]:
    """A writer to `aside` of the format that the ending of `path` tells; whole when the block ends."""
    makers = {"csv": _csv, "parquet": _parquet, "zarr": _zarr}
    return makers[suffixes(path)](aside, columns)


class _Tables:
    """Blocks as Arrow tables, handed to `put`."""

    def __init__(self, columns: Columns, put: Any) -> None:
        self.columns, self.put = columns, put
        fields = [pa.field("time", pa.timestamp("ns", "UTC"))]
        for name, unit, double in zip(columns.names, columns.units, columns.double, strict=True):
            fields.append(pa.field(name, pa.float64() if double else pa.float32(), metadata={"unit": unit}))
            if columns.quality:
                fields.append(pa.field(f"{name} quality", pa.uint8()))
        self.schema = pa.schema(fields)

    def write(self, block: Block) -> None:
        """Rows without any reading are left out."""
        rows = np.flatnonzero(block.present.any(axis=1))
        arrays = [pa.array(block.times[rows], pa.timestamp("ns", "UTC"))]
        for column in range(len(self.columns.names)):
            missing = ~block.present[rows, column]
            kind = self.schema.field(self.columns.names[column]).type
            arrays.append(pa.array(block.values[rows, column], mask=missing).cast(kind))
            if self.columns.quality:
                arrays.append(pa.array(block.status[rows, column], mask=missing))
        self.put(pa.table(arrays, schema=self.schema))


@contextmanager
def _parquet(aside: Path, columns: Columns) -> Iterator[Writer]:
    tables = _Tables(columns, None)
    with pq.ParquetWriter(aside, tables.schema) as file:
        tables.put = file.write_table
        yield tables


@contextmanager
def _csv(aside: Path, columns: Columns) -> Iterator[Writer]:
    """Times as ISO 8601 with Z; the shortest texts that give the numbers back."""
    whole = columns.period_ns % SECOND_NS == 0
    options = pacsv.WriteOptions(include_header=False, quoting_style="none")

    def put(table: Any) -> None:
        times = table["time"].cast(pa.timestamp("s", "UTC")) if whole else table["time"]
        texts = pc.strftime(times, format="%Y-%m-%dT%H:%M:%SZ")
        pacsv.write_csv(table.set_column(0, "time", texts), file, options)

    with aside.open("wb") as file:
        tables = _Tables(columns, put)
        file.write(_header(tables.schema.names))
        yield tables


def _header(names: list[str]) -> bytes:
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


@contextmanager
def _zarr(aside: Path, columns: Columns) -> Iterator[Writer]:
    """`value` (and `quality`) over (`time`, `tag`) with CF attributes: xarray.open_zarr reads it."""
    yield _Zarr(aside, columns)
    zarr.consolidate_metadata(str(aside), zarr_format=2)


class _Zarr:
    """Format 2: every reader of Zarr knows it, and it has fixed-length texts."""

    def __init__(self, folder: Path, columns: Columns) -> None:
        self.columns, self.row = columns, 0
        self.root = zarr.open_group(str(folder), mode="w", zarr_format=2)
        self.root.attrs["Conventions"] = "CF-1.10"
        since = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
        self.time = self._array("time", (columns.rows,), "int64", ["time"], since)
        for name, texts in (("tag", columns.names), ("unit", columns.units)):
            labels = np.array(texts, dtype=f"<U{max(1, *map(len, texts))}")
            self._array(name, labels.shape, labels.dtype, ["tag"], {})[:] = labels
        kind = "float64" if columns.double.any() else "float32"
        beside = {"ancillary_variables": "quality"} if columns.quality else {}
        about = {"coordinates": "unit", **beside}
        shape = (columns.rows, len(columns.names))
        self.value = self._array("value", shape, kind, ["time", "tag"], about, fill=float("nan"))
        flags = {"flag_values": [0, 64, 128], "flag_meanings": "good uncertain bad"}
        self.quality = self._array("quality", shape, "uint8", ["time", "tag"], flags) if columns.quality else None

    def _array(
        self, name: str, shape: tuple[int, ...], kind: Any, axes: list[str], about: dict[str, Any], fill: Any = None
    ) -> Any:
        chunks = tuple(max(1, min(n, c)) for n, c in zip(shape, CHUNK, strict=False))
        array = self.root.create_array(name, shape=shape, chunks=chunks, dtype=kind, fill_value=fill)
        array.attrs.update({"_ARRAY_DIMENSIONS": axes, **about})
        return array

    def write(self, block: Block) -> None:
        """Blocks come in order and fill the axis."""
        rows = slice(self.row, self.row + len(block.times))
        self.time[rows], self.value[rows] = block.times, block.values
        if self.quality is not None:
            self.quality[rows] = np.where(block.present, block.status, 0)
        self.row = rows.stop
