"""Built-in plants and where their data are found."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from penstock.data.plant import PrepareStep
from penstock.data.plants import datasets
from penstock.data.plants.hydraulic_rig import FILE, SENSORS, hydraulic_rig, hydraulic_rig_file
from penstock.data.plants.plant_file import load_plant
from penstock.data.plants.spans import Span, parse_span
from penstock.errors import SourceError

ROWS = {2011: 7411, 2012: 7628, 2013: 7152, 2014: 7158, 2015: 7384}


def folder() -> Path:
    return datasets.gas_turbine_folder()


def test_years_are_hourly_from_their_first_hour_and_equal_the_file() -> None:
    for year in datasets.gas_turbine([2014, 2011]):
        plain = np.loadtxt(folder() / f"gt_{year.year}.csv", delimiter=",", skiprows=1)
        assert year.values.shape == (ROWS[year.year], 11) == plain.shape
        np.testing.assert_array_equal(year.values, plain)
        hours = np.arange(f"{year.year}-01-01T00", f"{year.year + 1}-01-01T00", dtype="datetime64[h]")
        np.testing.assert_array_equal(year.times.view("datetime64[ns]"), hours[: len(plain)])
        assert year.table().column_names == ["time", *year.tags]


def test_a_missing_year_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "gt_2012.csv").write_text("AT,NOX\n1,2\n")
    assert [y.year for y in datasets.gas_turbine(folder=tmp_path)] == [2012]
    with pytest.raises(SourceError, match="years here: 2012"):
        list(datasets.gas_turbine([2013], tmp_path))


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "gt_2012.csv").write_text("AT,NOX\n1,two\n")
    with pytest.raises(SourceError, match="not the published file"):
        list(datasets.gas_turbine(folder=tmp_path))


def test_the_environment_comes_first(tmp_path: Path) -> None:
    (tmp_path / "gas_turbine").mkdir()
    (tmp_path / "gas_turbine" / "gt_2011.csv").write_text("AT\n1\n")
    assert datasets.gas_turbine_folder({"PENSTOCK_DATASETS": str(tmp_path)}) == tmp_path / "gas_turbine"


def zipped(files: dict[str, bytes]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


def test_a_download_that_is_not_the_published_one_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gt_2011"):
        datasets.unpack(zipped({"gt_2011.csv": b"AT\n1\n"}), tmp_path / "gas_turbine")
    assert list(tmp_path.iterdir()) == []


def test_unpacked_files_are_checked_by_their_sha256(tmp_path: Path) -> None:
    have = {p.name: p.read_bytes() for p in folder().glob("gt_*.csv")}
    wanted = {name: sha for name, sha in datasets.GAS_TURBINE_SHA256.items() if name in have}
    datasets.unpack(zipped({f"inner/{k}": v for k, v in have.items()}), tmp_path / "gas_turbine", wanted)
    assert {p.name: p.read_bytes() for p in (tmp_path / "gas_turbine").iterdir()} == {k: have[k] for k in wanted}
    assert [p.name for p in tmp_path.iterdir()] == ["gas_turbine"]


def test_unknown_plants_tell_the_nearest() -> None:
    assert datasets.builtin_plants() == ["gas-turbine", "hydraulic-rig", "simulated"]
    with pytest.raises(SourceError, match="Did you mean 'gas-turbine'"):
        datasets.plant_path("gas-turbin")


def rig() -> Path:
    try:
        return hydraulic_rig_file()
    except SourceError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_the_rig_is_one_row_a_second_and_equals_the_file() -> None:
    plain = np.loadtxt(rig(), delimiter=",", skiprows=1 + 92_610, max_rows=5)
    table = hydraulic_rig(parse_span("92610s..92615s", "hydraulic-rig"))
    assert table.column_names == ["time", *SENSORS]
    np.testing.assert_array_equal(np.column_stack([table[n].to_numpy() for n in SENSORS]), plain[:, 1:18])
    start = np.datetime64("2015-01-02T01:43:30", "ns")
    np.testing.assert_array_equal(table["time"].to_numpy(), start + np.arange(5) * np.timedelta64(1, "s"))
    assert hydraulic_rig(parse_span("", "hydraulic-rig")).num_rows == 132_300


def test_the_rigs_plant_has_its_sensors_and_no_input_that_holds_the_answer() -> None:
    plant = load_plant(datasets.plant_path("hydraulic-rig"))
    assert tuple(plant.tags) == SENSORS
    told = plant.models["eps1"].prepare["SE"]  # computed from EPS1: that of the same second would tell the answer
    assert told[0] == PrepareStep(name="lag", span_ns=10**9)
    ranges = {name: tag.range for name, tag in plant.tags.items()}
    table = hydraulic_rig(parse_span("", "hydraulic-rig"), rig())
    for name in SENSORS:
        low, high = ranges[name] or (0.0, 0.0)
        column = table[name].to_numpy()
        assert low <= column.min() <= column.max() <= high, name


def test_a_rig_that_is_not_there_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no row of that span"):
        hydraulic_rig(parse_span("40h..41h", "hydraulic-rig"), rig())
    (tmp_path / "hydraulic_rig").mkdir()
    other = tmp_path / "hydraulic_rig" / FILE
    other.write_bytes(gzip.compress(b"t_s,PS1\n0,1\n"))
    assert hydraulic_rig_file({"PENSTOCK_DATASETS": str(tmp_path)}) == other
    with pytest.raises(SourceError, match="not the rig's one-second means"):
        hydraulic_rig(parse_span("", "hydraulic-rig"), other)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("", 0, None), ("60d", 0, 60), ("60d..90d", 60, 90), ("60d..", 60, None), ("..2d", 0, 2)],
)
def test_spans(text: str, first: int, last: int | None) -> None:
    day = 86_400 * 10**9
    assert parse_span(text, "x") == Span(first_ns=first * day, last_ns=None if last is None else last * day)
