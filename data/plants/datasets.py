"""Built-in plants: their plant.toml, and their recorded data found or downloaded.

Data are looked for in ``$PENSTOCK_DATASETS``, then in ``shared/data`` beside
the checkout, then in the user's cache, and at last downloaded from the
publisher; what was downloaded is checked against its published sha256.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from penstock.data.plant import HOUR_NS
from penstock.data.simulator_station import NAME as SIMULATED
from penstock.errors import SourceError, nearest

GAS_TURBINE_URL = "https://archive.ics.uci.edu/static/public/551/gas+turbine+co+and+nox+emission+data+set.zip"
GAS_TURBINE_SHA256 = {
    "gt_2011.csv": "d87ceef9aa59533cc7d924d10de241b1b06ecd11f9b26bab59191ea0f8a76b9a",
    "gt_2012.csv": "be54b9d0e1a7de40c55d32fa489e75de892b000c066b5a09f09a19124ee29100",
    "gt_2013.csv": "13c437bb440ec2045bd12057e6654c41dd4107a661eac16ba2e878e897a08f9e",
    "gt_2014.csv": "c2a03c92c9c3207aad0c6be7de8d9b5b4bfa4720ad0efb2c1f21b6cec4d3f3fa",
    "gt_2015.csv": "9b08f35fde0d4b138232a605db4093c2b8bf9d6757e6f1fbd9534ad616c13591",
}
DOWNLOAD_S = 120.0
"""Deadline of each wait during a download."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Year:
    """One year of the gas turbine."""

    year: int
    times: NDArray[np.int64]
    """[k] ns UTC: hourly from the year's first hour. Assumed: the data carry no times."""
    tags: tuple[str, ...]
    """[m] column names, in the file's order."""
    values: NDArray[np.float64]
    """[k, m] in the tags' units."""

    def table(self) -> pa.Table:
        """The same as an Arrow table: `time` (timestamp[ns, UTC]) and a float64 column per tag."""
        times = pa.array(self.times, pa.timestamp("ns", "UTC"))
        columns = [pa.array(np.ascontiguousarray(self.values[:, i])) for i in range(len(self.tags))]
        return pa.table([times, *columns], names=["time", *self.tags])


def builtin_plants() -> list[str]:
    """Names of the plants that come with penstock."""
    return sorted([*(path.stem for path in _plants().glob("*.toml")), SIMULATED])


def plant_path(name: str) -> Path:
    """plant.toml of a built-in plant with recorded data. Raises SourceError with the nearest known name."""
    if name.endswith(".toml") or Path(name).name != name:
        raise SourceError(
            f"{name}: no such file; give the path of a plant.toml, or a built-in plant: {', '.join(builtin_plants())}"
        )
    path = _plants() / f"{name}.toml"
    if name == SIMULATED or name not in builtin_plants():
        near = nearest(name, builtin_plants())
        hint = f" Did you mean {near!r}?" if near else ""
        raise SourceError(f"no built-in plant {name!r}; there are: {', '.join(builtin_plants())}.{hint}")
    return path


def _plants() -> Path:
    return Path(__file__).parent


def gas_turbine(years: Sequence[int] | None = None, folder: Path | None = None) -> Iterator[Year]:
    """The gas turbine's years in order; None: all that are there.

    `folder` holds the files; None: found or downloaded. Raises SourceError
    when the data, or a year asked for, cannot be had.
    """
    folder = folder or gas_turbine_folder()
    present = {int(path.stem[3:]): path for path in sorted(folder.glob("gt_[0-9][0-9][0-9][0-9].csv"))}
    for year in sorted(present if years is None else set(years)):
        if year not in present:
            have = ", ".join(map(str, present)) or "none"
            raise SourceError(f"{folder}: no gt_{year}.csv; years here: {have}. Name another year or add the file")
        yield _read(present[year], year)


def _read(path: Path, year: int) -> Year:
    try:
        table = pacsv.read_csv(path)
        values = np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float64)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path}: not the published file ({error}); remove it to have it again") from error
    start_ns = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
    times = start_ns + np.arange(len(values), dtype=np.int64) * HOUR_NS
    return Year(year=year, times=times, tags=tuple(table.column_names), values=values)


def gas_turbine_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder with gt_*.csv: found, else downloaded into the cache.

    Raises SourceError that says where was looked and what to do.
    """
    places = places_of("gas_turbine", environ)
    for place in places:
        if any(place.glob("gt_*.csv")):
            return place
    cache = places[-1]
    try:
        _download(cache)
    except (URLError, OSError, zipfile.BadZipFile) as error:
        looked = ", ".join(str(place) for place in places)
        raise SourceError(
            f"gas-turbine data: not in {looked}, and {GAS_TURBINE_URL} cannot be read ({error});"
            " put gt_2011.csv ... gt_2015.csv into gas_turbine/ and set PENSTOCK_DATASETS to its parent"
        ) from error
    return cache


def places_of(folder: str, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where a data set's `folder` may lie, in order; the user's cache is the last."""
    roots = [Path(environ["PENSTOCK_DATASETS"])] if environ.get("PENSTOCK_DATASETS") else []
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        roots += [up / "shared" / "data" for up in (start, *start.parents)]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
    return [root / folder for root in dict.fromkeys((*roots, cache))]


def _download(folder: Path) -> None:
    """Fetch, check and unpack; the folder appears whole or not at all."""
    with urllib.request.urlopen(GAS_TURBINE_URL, timeout=DOWNLOAD_S) as answer:
        archive = answer.read()
    unpack(archive, folder)


def unpack(archive: bytes, folder: Path, sha256s: Mapping[str, str] = GAS_TURBINE_SHA256) -> None:
    """The published zip -> the files of `sha256s` in `folder`, whole or not at all.

    Raises SourceError when a file is missing or its sha256 is not the published one.
    """
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as content:
            inside = {Path(name).name: name for name in content.namelist()}
            for file, sha256 in sha256s.items():
                body = content.read(inside[file]) if file in inside else b""
                if hashlib.sha256(body).hexdigest() != sha256:
                    raise SourceError(f"gas-turbine data: {file} is not the published file; download it by hand")
                (aside / file).write_bytes(body)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
