"""Readings out of a site, into plain files that need no penstock: Zarr, Parquet, CSV.

Block by block from one snapshot of the archive, so that memory stays bounded and a running stream disturbs nothing;
written aside and renamed, so that the file is whole or not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock import pipeline
from penstock.data.durable import sync_folder
from penstock.data.exporting import Block, Columns, opened, suffixes
from penstock.data.frame import BAD
from penstock.data.grid import PRESENT, STATUS
from penstock.errors import QueryError, SiteError
from penstock.spans import Moment

if TYPE_CHECKING:
    from penstock.site import Site

BLOCK_CELLS = 4_000_000
LEAST_ROWS, MOST_ROWS = 64, 8192
"""Rows of a block: the archive's closed chunks have 8,192 ticks, and reading less of one decodes it again."""
Progress = Callable[[int, int | None, str], None]


def export(
    site: Site,
    path: Path,
    *,
    start: Moment,
    end: Moment,
    pattern: str,
    quality: bool,
    retired: bool,
    overwrite: bool,
    progress: Progress | None,
    block_cells: int = BLOCK_CELLS,
) -> dict[str, Any]:
    """`Site.export`. Raises SiteError for the file, QueryError where no tag or no time is meant."""
    if path.exists() and not overwrite:
        raise SiteError(f"{path}: is there already; choose another name, or let it be overwritten (--overwrite)")
    suffixes(path)  # a wrong ending is told before anything is read
    pipeline.archive_all(site.desk(), site.layout, progress)
    like = set(site.registry.like(pattern))
    tags = [tag for tag in site.stored_tags(retired=retired) if tag.name in like]
    if not tags:
        raise QueryError(f"no tag is like {pattern!r}; see: penstock tags --site {site.folder}{_hint(site, pattern)}")
    begin, stop = site.span(start, end)
    grid = site.readings.grid
    first, last = (-(-(moment - grid.origin_ns) // grid.period_ns) for moment in (begin, stop))
    columns = Columns(
        names=tuple(tag.name for tag in tags),
        units=tuple(tag.unit for tag in tags),
        double=np.array([tag.dtype == "float64" for tag in tags], bool),
        quality=quality,
        rows=last - first,
        period_ns=grid.period_ns,
    )
    count = _written(path, columns, _blocks(site, columns, (first, last), block_cells, progress))
    times = {
        "start": str(pd.Timestamp(grid.time(first), tz="UTC")),
        "end": str(pd.Timestamp(grid.time(last), tz="UTC")),
    }
    return {"exported": str(path), "tags": len(tags), "readings": count, **times, "bytes": _size(path)}


def _hint(site: Site, pattern: str) -> str:
    """Where only retired tags are meant."""
    return "; one that is retired is exported with --retired" if site.registry.like(pattern) else ""


def _blocks(
    site: Site, columns: Columns, span: tuple[int, int], cells: int, progress: Progress | None
) -> Iterator[Block]:
    first, last = span
    archive, grid = site.readings, site.readings.grid
    ids = site.registry.ids(columns.names)
    view = archive.view(archive.head().snapshot)
    rows = min(max(cells // len(ids), LEAST_ROWS), MOST_ROWS)
    for begin in range(first, last, rows):
        stop = min(begin + rows, last)
        values = np.full((stop - begin, len(ids)), np.nan, np.float64 if columns.double.any() else np.float32)
        flags = np.zeros(values.shape, np.uint16)
        archive.read_into(values, "value", ids, begin, view)
        archive.read_into(flags, "quality", ids, begin, view)
        yield _block(grid.times(begin, stop), values, flags, columns.quality)
        if progress:
            progress(stop - first, last - first, "export")


def _block(times: NDArray[np.int64], values: NDArray[Any], flags: NDArray[np.uint16], quality: bool) -> Block:
    present = (flags & PRESENT) != 0
    status = (flags & STATUS).astype(np.uint8)
    if not quality:  # nothing would tell a bad value from a good one
        present &= status < BAD
    values[~present] = np.nan
    return Block(times=times, values=values, present=present, status=status)


def _written(path: Path, columns: Columns, blocks: Iterator[Block]) -> int:
    """Readings written; `path` is whole afterwards, or as it was."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(aside, path, columns) as writer:
            for block in blocks:
                writer.write(block)
                count += int(np.count_nonzero(block.present))
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        raise SiteError(f"{path}: cannot be written ({error}); choose another place") from error
    finally:
        _removed(aside)
    return count


def _removed(aside: Path) -> None:
    if aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
