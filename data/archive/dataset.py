"""The archive as an xarray Dataset, read when it is used.

One lazy array per variable over the whole span, segments concatenated. Neither xarray's `concat`
(it loads) nor Dask (the light client has none) would do; with Dask installed, `.chunk()` the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from penstock.data.archive.repository import ARRAYS
from penstock.data.frame import BAD, UNCERTAIN
from penstock.data.grid import LATE, PRESENT, Grid
from penstock.data.plant import Tag

if TYPE_CHECKING:
    from penstock.data.archive import Archive

QUALITY = {
    "long_name": "quality",
    "flag_masks": np.array([0xC0, 0xC0, 0xC0, PRESENT, LATE], np.uint16),
    "flag_values": np.array([0, UNCERTAIN, BAD, PRESENT, LATE], np.uint16),
    "flag_meanings": "good uncertain bad present late",
}
OFFSET = {"long_name": "position of the reading inside its cell", "units": "period / 2**32"}


class StoredArray(BackendArray):
    """One of "value", "quality", "offset" over ticks and tags of one snapshot, for xarray to index."""

    def __init__(
        self, archive: Archive, snapshot: str, which: str, ids: NDArray[np.int32], span: tuple[int, int]
    ) -> None:
        self.archive, self.snapshot, self.which, self.ids, self.span = archive, snapshot, which, ids, span
        self.shape = (span[1] - span[0], len(ids))
        double = archive.dtypes(snapshot=snapshot)
        value = "float64" if bool(double[ids[ids < len(double)]].any()) else "float32"
        self.dtype = np.dtype({"value": value, "quality": "uint16", "offset": "uint32"}[which])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> NDArray[Any]:
        rows, columns = key
        ticks = np.arange(*self.span)[rows]
        flat = np.atleast_1d(ticks)
        tags = self.ids[columns]
        first, last = (int(flat.min()), int(flat.max()) + 1) if len(flat) else (0, 0)
        out = np.full((last - first, np.size(tags)), ARRAYS[self.which], self.dtype)
        self.archive.read_into(out, self.which, np.atleast_1d(tags), first, self.archive.view(self.snapshot))
        got: NDArray[Any] = out[ticks - first]
        return np.asarray(got[..., 0] if np.ndim(tags) == 0 else got)


def _first_tick(grid: Grid, time_ns: int) -> int:
    """The first tick at or after a time."""
    return grid.tick_of(time_ns + grid.period_ns - 1)


def _pruned(grid: Grid, tick: int | None) -> dict[str, str]:
    """Readings before that time were removed."""
    return {} if tick is None else {"pruned": str(np.datetime64(grid.time(tick), "ns"))}


def lazy_dataset(
    archive: Archive,
    tags: Sequence[Tag],
    ids: NDArray[np.int32],
    *,
    start: int | None,
    end: int | None,
    snapshot: str | None,
) -> xr.Dataset:
    """`Archive.dataset`."""
    head = archive.head() if snapshot is None else archive.commit(snapshot)
    first = head.span[0] if start is None else _first_tick(archive.grid, start)
    last = head.span[1] if end is None else _first_tick(archive.grid, end)
    span = (first, max(last, first))

    def variable(which: str, attrs: dict[str, Any]) -> xr.Variable:
        lazy = indexing.LazilyIndexedArray(StoredArray(archive, head.snapshot, which, ids, span))
        return xr.Variable(("time", "tag"), lazy, attrs)

    times = pd.DatetimeIndex(archive.grid.times(*span).view("datetime64[ns]"))
    return xr.Dataset(
        {
            "value": variable("value", {"long_name": "value", "ancillary_variables": "quality offset"}),
            "quality": variable("quality", QUALITY),
            "offset": variable("offset", OFFSET),
        },
        coords={
            "time": ("time", times),
            "tag": ("tag", np.array([t.name for t in tags], dtype=object)),
            "unit": ("tag", np.array([t.unit for t in tags], dtype=object)),
        },
        attrs={"snapshot": head.snapshot, "position": head.position, **_pruned(archive.grid, head.pruned)},
    )
