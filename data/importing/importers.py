"""History goes in: files and tables, through the journal, like any other source.

`read` turns a source into chunks; `load` writes them to the journal under a
source name made of the content's sha256, with the line number as its offset.
So an import that was killed goes on where it was, and a second import of the
same content changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import xarray as xr

from penstock.data.durable import locked
from penstock.data.frame import Readings
from penstock.data.importing.csv_rows import CsvFile
from penstock.data.importing.gridded import is_netcdf, is_zarr, open_gridded
from penstock.data.importing.intake import Chunk, Intake, Options
from penstock.data.importing.rejects import Rejects, RejectsFile
from penstock.data.importing.sql_rows import SqlQuery, sql
from penstock.data.importing.table_rows import Table, arrow, dataset, frame_table, parquet
from penstock.data.importing.text_encoding import UTF8
from penstock.data.journal import Entry, Journal
from penstock.data.layout import Layout
from penstock.data.plant import Plant
from penstock.data.registry import Registry
from penstock.errors import SiteError, SourceError

__all__ = ["Chunk", "ImportReport", "Options", "Rejects", "Source", "SqlQuery", "load", "read", "source_name"]

Source: TypeAlias = Path | str | pd.DataFrame | pa.Table | xr.Dataset | SqlQuery
"""A CSV, Parquet or NetCDF file (by its ending), a Zarr folder, a table in memory, or a query."""

log = logging.getLogger(__name__)

BLOCK_BYTES = 8 << 20
"""CSV text per chunk: about a million readings of a wide file."""
BLOCK_CELLS = 1_000_000
"""Rows x columns of a table per chunk."""
Progress = Callable[[int, int | None, str], None]
"""Told after every chunk: done, of how many (None: not known), what."""
LOCK_S = 10.0
"""So long an import waits for another one of the same site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What one import did."""

    source: str
    """Its name in the journal."""
    rows: int
    """Rows read now, good and bad."""
    readings: int
    """Readings found in them: accepted + rejected."""
    accepted: int
    """Readings that are in the journal now."""
    rejected: int
    """Rows and cells in the rejects file."""
    already: int
    """Line or row up to which an earlier import had brought this very content in; 0: new."""
    rejects: Path | None
    """The rejects file; None where there is none."""


def read(
    source: Source,
    plant: Plant,
    registry: Registry,
    options: Options | None = None,
    *,
    after: int = 0,
    block_bytes: int = BLOCK_BYTES,
    block_cells: int = BLOCK_CELLS,
) -> Iterator[Chunk]:
    """The source's readings in chunks, rows in order; rows up to line `after` are passed over.

    Raises SourceError when the source cannot be read at all. Tags must be registered.
    """
    options = options or Options()
    _check(options)
    rows = _opened(source, options, block_bytes, block_cells)
    if isinstance(source, Path | str) and (is_netcdf(Path(source)) or is_zarr(Path(source))):
        options = replace(options, time_column=None)  # which is called `time` now
    intake = Intake(rows.names, rows.header_line, plant, registry, options)
    # Ambiguous local times are told apart by the rows before them, so those are read again too.
    start = after if _fixed(intake.clock.zone) else 0
    for block in rows.rows(start):
        chunk = intake.take(block, after)
        if chunk.rows or len(chunk.rejects):
            yield chunk


def load(
    journal: Journal,
    layout: Layout,
    registry: Registry,
    source: Source,
    plant: Plant,
    *,
    rejects: Path,
    name: str = "",
    options: Options | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a source through the journal; `rejects` is the site's folder for rejects files.

    `name` is what people call the source. Raises SourceError when the source
    cannot be read, SiteError when another import of the site runs.
    """
    options = options or Options()
    if isinstance(source, pd.DataFrame):
        source = frame_table(source)
    label = name or (Path(source).name if isinstance(source, Path | str) else "table")
    key = source_name(source, options)
    kept = RejectsFile(rejects / f"{_file_name(label)}-{key.removeprefix('import:')[:8]}.csv")
    rows = accepted = rejected = 0
    try:
        rejects.mkdir(parents=True, exist_ok=True)
        with locked(rejects / ".lock", deadline_s=LOCK_S):
            already = journal.offsets().get(key, 0)
            kept.cut(already)
            block = min(BLOCK_BYTES, journal.largest // 8)
            chunks = read(source, plant, registry, options, after=already, block_bytes=block, block_cells=block // 8)
            for chunk in chunks:
                kept.append(chunk.rejects)  # before the journal: a kill in between is cut off by the next import
                journal.append([_entry(key, chunk, layout)])
                rows, accepted = rows + chunk.rows, accepted + chunk.accepted
                rejected += len(chunk.rejects)
                if progress:
                    progress(chunk.done, chunk.total, f"import {label}")
    except TimeoutError as error:
        raise SiteError(f"another import of this site is running ({error}); wait for it") from error
    except OSError as error:
        raise SiteError(f"{rejects}: cannot be written ({error}); the import goes on where it was") from error
    return ImportReport(
        source=key,
        rows=rows,
        readings=accepted + rejected,
        accepted=accepted,
        rejected=rejected,
        already=already,
        rejects=kept.path if kept.path.exists() else None,
    )


def _entry(name: str, chunk: Chunk, layout: Layout) -> Entry:
    parts: dict[int, Readings] = {}
    for readings in chunk.readings:
        parts.update(layout.split(readings))
    return Entry(source=name, source_offset=chunk.offset, parts=parts, rejected=len(chunk.rejects))


def source_name(source: Source, options: Options | None = None) -> str:
    """``import:<sha256 of the content, 12 digits>``; options that are not the default are part of it."""
    sha = hashlib.sha256()
    if isinstance(source, Path | str):
        _hash_file(sha, Path(source))
    elif isinstance(source, xr.Dataset):
        for block in dataset(source, BLOCK_CELLS).rows(0):
            _hash_columns(sha, block.columns)
        sha.update(repr(list(source.data_vars)).encode())
    elif isinstance(source, SqlQuery):
        rows = sql(source, BLOCK_CELLS)
        for block in rows.rows(0):
            _hash_columns(sha, block.columns)
        sha.update(repr(rows.names).encode())
    elif isinstance(source, pd.DataFrame | pa.Table):
        table = frame_table(source) if isinstance(source, pd.DataFrame) else source
        for block in arrow(table, BLOCK_CELLS).rows(0):
            _hash_columns(sha, block.columns)
        sha.update(repr(table.column_names).encode())
    else:
        raise _no_source(source)
    if options not in (None, Options()):
        sha.update(repr(sorted(asdict(options or Options()).items(), key=str)).encode())
    return f"import:{sha.hexdigest()[:12]}"


def _hash_file(sha: Any, path: Path) -> None:
    if path.is_dir():
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            sha.update(str(part.relative_to(path)).encode())
            _hash_file(sha, part)
        return
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror}); give the path of a CSV, Parquet or NetCDF file"
        ) from error


def _hash_columns(sha: Any, columns: list[Any]) -> None:
    batch = pa.record_batch(columns, names=[str(i) for i in range(len(columns))])
    sha.update(batch.schema.serialize())
    sha.update(batch.serialize())


def _file_name(label: str) -> str:
    return re.sub(r"[^\w-]+", "_", label.removesuffix(".csv"))[:80]


def _opened(source: Source, options: Options, block_bytes: int, cells: int) -> CsvFile | Table:
    match source:
        case Path() | str():
            path = Path(source)
            if path.suffix.lower() in (".parquet", ".pq"):
                return parquet(path, cells)
            if is_netcdf(path) or is_zarr(path):
                return dataset(open_gridded(path, options.time_column), cells)
            if path.is_dir():
                raise SourceError(f"{path}: a folder, and no Zarr group; give a file, or a folder that Zarr wrote")
            return _csv(path, options, block_bytes)
        case pd.DataFrame():
            return arrow(frame_table(source), cells)
        case pa.Table():
            return arrow(source, cells)
        case xr.Dataset():
            return dataset(source, cells)
        case SqlQuery():
            return sql(source, cells)
    raise _no_source(source)


def _csv(path: Path, options: Options, block_bytes: int) -> CsvFile:
    file = CsvFile(path, delimiter=options.delimiter, block_bytes=block_bytes, encoding=options.encoding)
    if file.guessed and file.encoding != UTF8:
        log.warning("%s: is not UTF-8, read as %s; if letters are wrong give encoding", path, file.encoding)
    return file


def _no_source(source: object) -> SourceError:
    return SourceError(
        f"cannot import a {type(source).__name__}; allowed: path of a CSV, Parquet or NetCDF file"
        " or a Zarr folder, DataFrame, Arrow table, Dataset, SqlQuery"
    )


def _check(options: Options) -> None:
    if options.timezone is None:
        return
    try:
        ZoneInfo(options.timezone)
    except (KeyError, ValueError, OSError):
        raise SourceError(f"unknown time zone {options.timezone!r}; allowed: such as Europe/Berlin or UTC") from None


def _fixed(zone: str) -> bool:
    return zone in ("UTC", "Etc/UTC", "GMT")
