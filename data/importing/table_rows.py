"""Parquet files, Arrow tables, pandas DataFrames and xarray Datasets as blocks of columns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from penstock.data.frame import BAD, GOOD, UNCERTAIN
from penstock.data.grid import STATUS
from penstock.data.importing.csv_rows import Rows
from penstock.data.importing.rejects import Rejects
from penstock.errors import SourceError

Batches = Callable[[int], Iterator[list[Any]]]
"""Columns of consecutive rows, at most so many rows at a time."""


class Table:
    """Something with columns: their names, and its rows in blocks. Line numbers are row numbers from 1."""

    header_line = 0

    def __init__(self, names: tuple[str, ...], total: int | None, batches: Batches, *, cells: int) -> None:
        """`cells` bounds rows x columns of a block; `total` is None where the number of rows is not known."""
        self.names = names
        self.total = total
        self._batches = batches
        self._rows = max(1, cells // max(1, len(names)))

    def rows(self, after: int) -> Iterator[Rows]:
        """The rows in order; blocks that end at row `after` or before are passed over."""
        end = 0
        try:
            for columns in self._batches(self._rows):
                start, end = end, end + len(columns[0])
                if end > after:
                    yield Rows(
                        columns=columns,
                        lines=np.arange(start + 1, end + 1, dtype=np.int64),
                        malformed=Rejects.joined([]),
                        end=end,
                        done=end,
                        total=self.total,
                    )
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"cannot be read behind row {end} ({error}); what came before is imported") from error


def parquet(path: Path, cells: int) -> Table:
    """A Parquet file. Raises SourceError when it cannot be read."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: cannot be read as Parquet ({error})") from error

    def batches(rows: int) -> Iterator[list[Any]]:
        for batch in file.iter_batches(batch_size=rows):
            yield [plain(column) for column in batch.columns]

    return Table(tuple(file.schema_arrow.names), file.metadata.num_rows, batches, cells=cells)


def arrow(table: Any, cells: int) -> Table:
    """A pyarrow Table."""

    def batches(rows: int) -> Iterator[list[Any]]:
        for start in range(0, table.num_rows, rows):
            part = table.slice(start, rows)
            yield [plain(_one(column)) for column in part.columns]

    return Table(tuple(table.column_names), table.num_rows, batches, cells=cells)


def _one(column: Any) -> Any:
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def plain(column: Any) -> Any:
    """Text as `string`, whatever its Arrow encoding."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return pa.nulls(len(column), pa.string()) if pa.types.is_null(kind) else column


def frame_table(frame: pd.DataFrame) -> Any:
    """A DataFrame as a pyarrow Table; a DatetimeIndex, or an index with a name, becomes a column."""
    if isinstance(frame.index, pd.DatetimeIndex) or frame.index.names != [None]:
        index = frame.index.rename("time") if frame.index.name is None else frame.index
        frame = frame.set_axis(index, axis=0).reset_index()
    columns = [_series(frame.iloc[:, i]) for i in range(frame.shape[1])]
    return pa.table(columns, names=[str(name) for name in frame.columns])


def _series(series: pd.Series[Any]) -> Any:
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):  # a column of mixed types: texts tell the bad cells
        return pa.array([None if v is None or v is pd.NaT else str(v) for v in series], pa.string())


def dataset(source: xr.Dataset, cells: int) -> Table:
    """A Dataset: variables over `time` (a tag each) or over (`time`, one more dimension whose labels are tags).

    Times are UTC, as xarray has no time zones. Lazy variables are computed
    block by block. What others name as `ancillary_variables` is no tag; a quality among them that knows
    "bad" becomes a column ``TAG quality``. Raises SourceError when a variable has other dimensions.
    """
    if "time" not in source.coords:
        raise SourceError("Dataset: no coordinate `time`; rename the time coordinate to it")
    names, readers = _variables(source)

    def batches(rows: int) -> Iterator[list[Any]]:
        for start in range(0, source.sizes["time"], rows):
            part = source.isel(time=slice(start, start + rows)).load()
            times = pa.array(part["time"].values.astype("datetime64[ns]"), pa.timestamp("ns")).cast(
                pa.timestamp("ns", "UTC")
            )
            yield [times, *(pa.array(read(part)) for read in readers)]

    return Table(("time", *names), source.sizes["time"], batches, cells=cells)


Reader = Callable[[xr.Dataset], Any]


def _variables(source: xr.Dataset) -> tuple[list[str], list[Reader]]:
    names: list[str] = []
    readers: list[Reader] = []
    beside = _ancillary(source)
    for key in map(str, source.data_vars):
        if key in beside:
            continue
        status = _status_of(source, key)
        for name, at in _columns(source, key):
            names.append(name)
            readers.append(partial(_values, key=key, at=at))
            if status is not None:
                names.append(f"{name} quality")
                readers.append(partial(_statuses, key=status, at=at))
    return names, readers


def _columns(source: xr.Dataset, key: str) -> list[tuple[str, dict[Hashable, int]]]:
    """(tag, where it stands) of one variable."""
    variable = source[key]
    if variable.dims == ("time",):
        return [(key, {})]
    if len(variable.dims) == 2 and "time" in variable.dims:
        other = next(dim for dim in variable.dims if dim != "time")
        return [(str(label), {other: at}) for at, label in enumerate(source[other].values)]
    raise SourceError(
        f"Dataset: variable {key!r} has dimensions {variable.dims}; allowed: (time) or (time, tag); drop the others"
    )


def _values(part: xr.Dataset, *, key: str, at: dict[Hashable, int]) -> Any:
    return part[key].isel(at).values


def _statuses(part: xr.Dataset, *, key: str, at: dict[Hashable, int]) -> Any:
    """Status as in `data.frame`; what stands between two is the better one."""
    raw = part[key].isel(at).values & STATUS
    return np.select([raw >= BAD, raw >= UNCERTAIN], [np.uint8(BAD), np.uint8(UNCERTAIN)], np.uint8(GOOD))


def _ancillary(source: xr.Dataset) -> set[str]:
    """Variables that only say something about others (CF): quality and offset of an archive are no tags."""
    return {name for one in source.data_vars.values() for name in str(one.attrs.get("ancillary_variables", "")).split()}


def _status_of(source: xr.Dataset, key: str) -> str | None:
    """The quality beside a variable, where its flags know "bad" and it has the same dimensions."""
    for name in str(source[key].attrs.get("ancillary_variables", "")).split():
        same = name in source and source[name].dims == source[key].dims
        if same and "bad" in str(source[name].attrs.get("flag_meanings", "")).split():
            return name
    return None
