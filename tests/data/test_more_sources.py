"""NetCDF, Zarr and SQL come in like any other file; what cannot be read says what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from penstock.data.importing.importers import Options, SqlQuery, read, source_name
from penstock.data.plant import HOUR_NS, Plant, Tag
from penstock.data.registry import Registry
from penstock.errors import SourceError

PLANT = Plant(name="p", period_ns=HOUR_NS, tags={n: Tag(name=n) for n in ("T", "P")}, models={})
TIMES = pd.date_range("2024-01-01", periods=5, freq="h", unit="ns")
T = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
P = np.array([9.0, 8.0, 7.0, 6.0, 5.0])


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    opened = Registry.open(tmp_path / "tags.sqlite")
    opened.register(list(PLANT.tags.values()))
    return opened


def readings(source: object, registry: Registry, **options: str) -> pd.DataFrame:
    """What came in, wide, times as index."""
    parts = []
    for chunk in read(source, PLANT, registry, Options(**options), block_cells=6):  # type: ignore[arg-type]
        for part in chunk.readings:
            parts.append(pd.DataFrame(part.values, index=pd.to_datetime(part.times), columns=list(part.tags)))  # type: ignore[union-attr]
    found = pd.concat(parts).sort_index()
    return found.rename(columns=dict(enumerate(registry.names()))).dropna(how="all")


def expected() -> pd.DataFrame:
    return pd.DataFrame({"T": T, "P": P}, index=TIMES).astype("float32")


def gridded(time: str = "time") -> xr.Dataset:
    """Two tags over time, and a variable without a time, as projections are."""
    return xr.Dataset({"T": (time, T), "P": (time, P), "crs": ((), 1)}, coords={time: TIMES})


def same(found: pd.DataFrame) -> None:
    wanted = expected()
    pd.testing.assert_frame_equal(
        found[["T", "P"]], wanted, check_freq=False, check_names=False, check_index_type=False
    )


def test_a_netcdf_file_comes_in(registry: Registry, tmp_path: Path) -> None:
    gridded().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    same(readings(tmp_path / "a.nc", registry))


def test_the_only_time_axis_needs_no_name_and_may_be_named(registry: Registry, tmp_path: Path) -> None:
    gridded("when").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    same(readings(tmp_path / "a.nc", registry))
    same(readings(tmp_path / "a.nc", registry, time_column="when"))
    with pytest.raises(SourceError, match=r"no time coordinate at; it has when; name it"):
        readings(tmp_path / "a.nc", registry, time_column="at")


@pytest.mark.parametrize("consolidated", [True, False])
def test_a_zarr_folder_comes_in(registry: Registry, tmp_path: Path, consolidated: bool) -> None:
    gridded().to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=consolidated)
    same(readings(tmp_path / "a.zarr", registry))


def test_a_value_keeps_the_quality_that_stands_beside_it(registry: Registry, tmp_path: Path) -> None:
    quality = {"flag_meanings": "good uncertain bad"}
    status = np.array([[0, 0], [0, 128], [0, 0], [64, 0], [0, 0]], np.uint8)
    xr.Dataset(
        {
            "value": (("time", "tag"), np.column_stack([T, P]), {"ancillary_variables": "quality"}),
            "quality": (("time", "tag"), status, quality),
        },
        coords={"time": TIMES, "tag": np.array(["T", "P"])},
    ).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    parts = [part for chunk in read(tmp_path / "a.zarr", PLANT, registry) for part in chunk.readings]
    found = pd.concat(pd.DataFrame(part.quality, columns=list(part.tags)) for part in parts)  # type: ignore[union-attr]
    assert found[[0, 1]].to_numpy().tolist() == status.tolist()
    assert len(readings(tmp_path / "a.zarr", registry)) == 5


def test_a_file_that_is_none_is_told(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "bad.nc").write_bytes(b"\x89HDF\r\n\x1a\nnothing more")
    with pytest.raises(SourceError, match=r"bad\.nc: cannot be read as h5netcdf"):
        readings(tmp_path / "bad.nc", registry)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="a folder, and no Zarr group"):
        readings(tmp_path / "folder", registry)
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w", zarr_format=2)
    with pytest.raises(SourceError, match="no time coordinate"):
        readings(tmp_path / "empty.zarr", registry)


def test_the_content_of_a_zarr_folder_is_its_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        gridded().to_zarr(tmp_path / f"{name}.zarr", zarr_format=2)
    assert source_name(tmp_path / "a.zarr") == source_name(tmp_path / "b.zarr")
    (gridded() + 1).to_zarr(tmp_path / "b.zarr", mode="w", zarr_format=2)
    assert source_name(tmp_path / "a.zarr") != source_name(tmp_path / "b.zarr")


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A table with a time in ISO text, numbers, and a text where a number should be."""
    db = sqlite3.connect(tmp_path / "plant.db")
    db.execute("CREATE TABLE history (at TEXT, T REAL, pressure REAL)")
    rows = [(f"{t}Z", None if np.isnan(a) else a, b) for t, a, b in zip(TIMES, T, P, strict=True)]
    db.executemany("INSERT INTO history VALUES (?, ?, ?)", rows)
    db.commit()
    db.close()
    return f"sqlite:///{tmp_path / 'plant.db'}"


QUERY = "SELECT at AS time, T, pressure AS P FROM history ORDER BY at"


def test_a_query_comes_in_block_by_block(registry: Registry, database: str) -> None:
    same(readings(SqlQuery(url=database, text=QUERY), registry))


def test_a_text_among_numbers_costs_only_its_cell(registry: Registry, database: str) -> None:
    query = SqlQuery(url=database, text=QUERY.replace("T,", "CASE WHEN P = 8 THEN 'off' ELSE T END AS T,"))
    query = SqlQuery(url=database, text=query.text.replace("P = 8", "pressure = 8"))
    chunks = list(read(query, PLANT, registry, Options()))
    assert [(c.rejects.lines.tolist(), list(c.rejects.text)) for c in chunks] == [([2], ["off"])]
    assert sum(c.accepted for c in chunks) == 8  # one is empty, one is a text


def test_rows_that_are_added_make_it_another_source(database: str) -> None:
    query = SqlQuery(url=database, text=QUERY)
    first = source_name(query)
    assert source_name(query) == first
    db = sqlite3.connect(database.removeprefix("sqlite:///"))
    db.execute("INSERT INTO history VALUES ('2024-01-02T00:00Z', 1, 1)")
    db.commit()
    db.close()
    assert source_name(query) != first


def test_what_the_database_refuses_is_told_without_the_password(registry: Registry, database: str) -> None:
    with pytest.raises(SourceError, match=r"plant\.db.*no such table: nowhere"):
        readings(SqlQuery(url=database, text="SELECT * FROM nowhere"), registry)
    with pytest.raises(SourceError, match="such as sqlite") as caught:
        readings(SqlQuery(url="oops://me:secret@host/db", text=QUERY), registry)
    assert "secret" not in str(caught.value)
    with pytest.raises(SourceError, match="gives no rows; give a SELECT"):
        readings(SqlQuery(url=database, text="CREATE TABLE t (a)"), registry)
