"""What is exported is what is stored: read back with other libraries, and once through our own import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import penstock.export
from penstock.errors import QueryError, SiteError, SourceError
from penstock.site import Site

PLANT = """
[plant]
name = "meter"
period = "1min"
[tags]
T = { unit = "degC" }
"T, in" = { unit = "degC" }
N = { dtype = "float64", kind = "counter" }
"""
NAMES = ["T", "T, in", "N"]
MINUTES = 300
GAP = range(100, 110)
BIG = 123_456_789.25


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Three tags over five hours with a gap of ten minutes; one bad reading of T, at minute 7."""
    (tmp_path / "plant.toml").write_text(PLANT)
    minutes = np.array([m for m in range(MINUTES) if m not in GAP])
    rows = pd.DataFrame({"time": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(minutes, "min")})
    rows = rows.assign(**{"T": minutes / 3, "T, in": np.where(minutes == 5, np.nan, minutes), "N": BIG + minutes})
    with Site.create(tmp_path / "site", tmp_path / "plant.toml") as opened:
        long = rows[rows["time"].dt.minute == 7].head(1)[["time"]].assign(tag="T", value=-1.0, quality="bad")
        opened.load(rows[minutes != 7])
        opened.load(long)
        opened.load(rows[minutes == 7][["time", "N"]])
        yield opened


READINGS = 3 * (MINUTES - len(GAP)) - 1 - 2
"""Without minute 5 of one tag, and without two tags at minute 7: one is bad, one is missing."""


def frame(path: Path) -> pd.DataFrame:
    """The file, by pandas or xarray: times as index, a column per tag."""
    if path.suffix == ".csv":
        return pd.read_csv(path, index_col=0, parse_dates=True)
    if path.suffix == ".parquet":
        return pd.read_parquet(path).set_index("time")
    with xr.open_zarr(path, chunks=None) as opened:
        found = opened["value"].to_pandas()
    return found.set_axis(found.index.tz_localize("UTC"), axis=0).dropna(how="all")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.zarr"])
@pytest.mark.parametrize("block", [4_000_000, 192])
def test_all_formats_hold_the_readings(name: str, block: int, site: Site, tmp_path: Path) -> None:
    whole = penstock.export.export(
        site, tmp_path / name, start=None, end=None, pattern="*", quality=False, retired=False, overwrite=False,
        progress=None, block_cells=block,
    )  # fmt: skip
    assert whole["readings"] == READINGS
    found = frame(tmp_path / name)
    assert list(found.columns) == NAMES
    assert len(found) == MINUTES - len(GAP)
    assert int(found.notna().sum().sum()) == READINGS
    at = pd.Timestamp("2024-01-01T04:59Z")
    assert found.loc[at, "N"] == BIG + 299  # float64 all the way
    assert np.float32(found.loc[at, "T"]) == np.float32(299 / 3)
    assert np.isnan(found.loc[pd.Timestamp("2024-01-01T00:07Z"), "T"])
    assert {path.name for path in tmp_path.iterdir()} == {"plant.toml", "site", name}  # nothing is left aside


def test_quality_lets_bad_ones_out_and_says_so(site: Site, tmp_path: Path) -> None:
    assert site.export(tmp_path / "a.csv", tags="T", quality=True)["readings"] == MINUTES - len(GAP)
    row = pd.read_csv(tmp_path / "a.csv", index_col=0).loc["2024-01-01T00:07:00Z"]
    assert row.to_dict() == {"T": -1.0, "T quality": 128}
    site.export(tmp_path / "a.zarr", quality=True)
    with xr.open_zarr(tmp_path / "a.zarr", chunks=None) as opened:
        assert int(opened["quality"].sel(tag="T").values[7]) == 128
        assert opened["value"].attrs["ancillary_variables"] == "quality"


def test_span_and_names(site: Site, tmp_path: Path) -> None:
    said = site.export(tmp_path / "a.parquet", start="2024-01-01T01:00", end="2024-01-01T02:00", tags="T*")
    found = frame(tmp_path / "a.parquet")
    assert list(found.columns) == ["T", "T, in"]
    assert (found.index[0], found.index[-1]) == (pd.Timestamp("2024-01-01T01:00Z"), pd.Timestamp("2024-01-01T01:59Z"))
    assert (said["tags"], said["readings"]) == (2, 2 * (60 - len(GAP)))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.zarr"])
def test_another_site_imports_it(name: str, site: Site, tmp_path: Path) -> None:
    site.export(tmp_path / name)
    with Site.create(tmp_path / "other", tmp_path / "plant.toml") as other:
        report = other.load(tmp_path / name)
        assert (report["accepted"], report["rejected"]) == (READINGS, 0)
        ours, theirs = site.archive()["value"].values, other.archive()["value"].values
        bad = np.isnan(theirs) & ~np.isnan(ours)
        assert bad.sum() == 1
        np.testing.assert_array_equal(ours[~bad], theirs[~bad])


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.zarr"])
def test_with_quality_another_site_has_the_same_cells(name: str, site: Site, tmp_path: Path) -> None:
    said = site.export(tmp_path / name, quality=True)
    with Site.create(tmp_path / "other", tmp_path / "plant.toml") as other:
        report = other.load(tmp_path / name)
        assert (report["accepted"], report["rejected"]) == (said["readings"], 0)
        for what in ("value", "quality"):
            np.testing.assert_array_equal(site.archive()[what].values, other.archive()[what].values)


def test_a_quality_that_is_unknown_costs_its_reading(site: Site, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "time,T,T quality,Q,Q quality\n2024-01-02T00:00Z,1,good,1,0\n2024-01-02T00:01Z,2,so,2,0\n"
    )
    report = site.load(tmp_path / "in.csv")
    assert (report["accepted"], report["rejected"]) == (1, 2)
    reasons = pd.read_csv(report["rejects"])
    assert list(reasons["column"]) == ["Q", "T quality"]
    assert reasons["reason"][1].startswith("unknown quality; allowed: good")


def test_what_cannot_be_written_is_told_and_leaves_what_was_there(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(SiteError, match=r"is there already.*--overwrite"):
        site.export(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "mine"
    site.export(tmp_path / "a.csv", overwrite=True)
    assert len(frame(tmp_path / "a.csv")) == MINUTES - len(GAP)
    with pytest.raises(SourceError, match=r"end with \.csv, \.parquet or \.zarr"):
        site.export(tmp_path / "a.xls")
    with pytest.raises(QueryError, match="no tag is like 'Q'"):
        site.export(tmp_path / "b.csv", tags="Q")


def test_an_export_that_is_stopped_leaves_nothing(site: Site, tmp_path: Path) -> None:
    def stopped(done: int, total: int | None, text: str) -> None:
        if text == "export":
            raise KeyboardInterrupt

    for name in ("a.csv", "a.parquet", "a.zarr"):
        with pytest.raises(KeyboardInterrupt):
            site.export(tmp_path / name, progress=stopped)
    assert {path.name for path in tmp_path.iterdir()} == {"plant.toml", "site"}
