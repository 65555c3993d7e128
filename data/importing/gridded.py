"""NetCDF files and Zarr folders, opened as xarray Datasets for `table_rows.dataset`.

Files come as others made them: the time axis may have another name, and variables without a time
(stations, projections) are no readings and are left out. Nothing here converts a value.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import xarray as xr

from penstock.errors import SourceError

NETCDF = (".nc", ".nc4", ".netcdf", ".cdf")
"""Endings of NetCDF files."""
_ZARR = ("zarr.json", ".zgroup", ".zmetadata")
_CLASSIC = b"CDF"


def is_netcdf(path: Path) -> bool:
    """By its ending."""
    return path.suffix.lower() in NETCDF


def is_zarr(path: Path) -> bool:
    """A folder with the metadata of a Zarr group, of format 2 or 3."""
    return path.is_dir() and any((path / name).exists() for name in _ZARR)


def open_gridded(path: Path, time_column: str | None = None) -> xr.Dataset:
    """The file's or folder's variables over `time`, read when they are used; times are UTC.

    `time_column` names the time coordinate; None: `time`, else the only one that holds times.
    Raises SourceError when it cannot be read or has no such coordinate.
    """
    engine = "zarr" if is_zarr(path) else _engine(path)
    # Consolidated metadata may be older than the arrays beside them, and only save requests over a network.
    how = {"consolidated": False} if engine == "zarr" else {}
    try:
        opened = xr.open_dataset(path, engine=engine, backend_kwargs=how, cache=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise SourceError(f"{path}: cannot be read as {engine} ({error}); is it whole?") from error
    return _over_time(opened, path, time_column)


def _engine(path: Path) -> str:
    try:
        with path.open("rb") as file:
            classic = file.read(3) == _CLASSIC
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); give the path of a NetCDF file") from error
    if classic and find_spec("scipy") is None:
        raise SourceError(
            f"{path}: classic NetCDF, which needs scipy: pip install scipy, or convert it: nccopy -k nc4 IN OUT"
        )
    if not classic and find_spec("h5netcdf") is None:
        raise SourceError(f"{path}: reading NetCDF 4 needs h5netcdf: pip install 'penstock[netcdf]'")
    return "scipy" if classic else "h5netcdf"


def _over_time(opened: xr.Dataset, path: Path, time_column: str | None) -> xr.Dataset:
    axes = [str(name) for name, at in opened.coords.items() if at.ndim == 1 and at.dtype.kind == "M"]
    wanted = time_column or ("time" if "time" in axes else axes[0] if len(axes) == 1 else None)
    if wanted is None or wanted not in axes:
        raise SourceError(
            f"{path}: no time coordinate {wanted or ''}; it has {', '.join(axes) or 'none that holds times'};"
            " name it with time_column"
        )
    dimension = opened[wanted].dims[0]
    kept = opened[[str(name) for name, at in opened.data_vars.items() if dimension in at.dims]]
    if dimension != "time":
        kept = kept.swap_dims({dimension: wanted}) if wanted != dimension else kept
    return kept if wanted == "time" else kept.rename({wanted: "time"})
