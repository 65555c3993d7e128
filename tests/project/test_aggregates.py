"""Aggregates of a site: kept by imports, asked for by name, period and span; equal to pandas' own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from penstock.cli import app
from penstock.data.plants.plant_file import check_plant
from penstock.errors import QueryError
from penstock.site import Site

PLANT = """
[plant]
name = "mill"
period = "1s"
timezone = "Europe/Berlin"
[aggregates]
periods = ["10s", "1min"]
tags = ["T*", "N", "!T3"]
[tags]
T1 = { unit = "degC", range = [-100, 100] }
T2 = {}
T3 = {}
N = { kind = "counter", dtype = "float64" }
D = { expr = "T1 + T2" }
"""


def history(seconds: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    times = pd.Timestamp("2024-03-01T00:00:00Z") + pd.to_timedelta(np.arange(seconds), unit="s")
    table = pd.DataFrame(random.normal(50, 30, (seconds, 3)).astype(np.float32), columns=["T1", "T2", "T3"])
    table["N"] = 1e9 + np.cumsum(random.integers(0, 5, seconds)) / 8
    return table.mask(random.random((seconds, 4)) < 0.1).assign(time=times)


def made(folder: Path, text: str = PLANT) -> Site:
    (folder / "plant.toml").write_text(text)
    return Site.create(folder / "site", folder / "plant.toml")


def test_they_are_those_of_pandas(tmp_path: Path) -> None:
    table = history(605, 1)
    with made(tmp_path) as site:
        site.load(table)
        told = site.aggregates(period="1min")
        assert told.tag.values.tolist() == ["T1", "T2", "N"]
        assert told.unit.values.tolist() == ["degC", "", ""]
        assert (told.attrs["period"], told.attrs["pending"]) == ("1min", 0)
        columns = table.set_index("time")[["T1", "T2", "N"]].astype(np.float64)
        columns["T1"] = columns["T1"].where(columns["T1"].abs() <= 100)
        wanted = columns.resample("1min")
        assert len(told.time) == 10, "the last five seconds are of a minute that is not over"
        for name, expected in {
            "count": wanted.count(), "mean": wanted.mean(), "min": wanted.min(), "max": wanted.max(),
            "std": (columns - [0, 0, 1e9]).resample("1min").std(ddof=0),  # pandas' own loses digits of a level
        }.items():  # fmt: skip
            np.testing.assert_allclose(told[name].values, expected.to_numpy()[:10], rtol=1e-9, err_msg=name)
        assert told.time.values[0] == np.datetime64("2024-03-01T00:00:00")
        short = site.aggregates("T1", start="2024-03-01 01:00:05", end="2024-03-01 01:00:31")  # in the plant's zone
        assert short.time.dt.second.values.tolist() == [10, 20, 30]

        site.load(history(660, 1).iloc[600:])  # the minute comes to its end
        assert len(site.aggregates(period="1min").time) == 11


def test_what_is_not_kept_is_told(tmp_path: Path) -> None:
    with made(tmp_path) as site:
        with pytest.raises(QueryError, match="computed as readings are archived"):
            site.aggregates()
        site.load(history(100, 2))
        with pytest.raises(QueryError, match=r"'5min' is not kept; plant\.toml has 10s, 1min"):
            site.aggregates(period="5min")
        with pytest.raises(QueryError, match="'T3': no tag"):
            site.aggregates("T3")
    with made(tmp_path / "site", PLANT.partition("[aggregates]")[0] + "[tags]\nT1 = {}\n") as site:
        site.load(history(20, 2)[["time", "T1"]])
        assert not (site.folder / "views" / "aggregates").exists()
        with pytest.raises(QueryError, match="add a table"):
            site.aggregates()


def test_a_site_may_begin_to_keep_them_later(tmp_path: Path) -> None:
    with made(tmp_path, PLANT.replace('["10s", "1min"]', '["30s"]')) as site:
        site.load(history(130, 3))
        before = site.aggregates("T1")
    (tmp_path / "site" / "plant.toml").write_text(PLANT)
    with Site.open(tmp_path / "site") as site:
        site.load(history(130, 3))  # nothing new in it
        told = site.aggregates("T1", "10s")
        assert told["count"].values[:12].reshape(4, 3).sum(axis=1).tolist() == before["count"].values[:4, 0].tolist()


def test_the_command(tmp_path: Path) -> None:
    with made(tmp_path) as site:
        site.load(history(130, 4))
    words = ["aggregates", "T*", "--site", str(tmp_path / "site"), "--period", "1min"]
    runner = CliRunner()
    said = runner.invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "2024-03-01 01:01:00+01:00" in said.output
    out = runner.invoke(app, [*words, "--json", "--csv", str(tmp_path / "a.csv")]).output
    answer = json.loads(out.splitlines()[-1])
    assert (answer["period"], answer["rows"], answer["pending"]) == ("1min", 4, 0)
    assert set(answer["data"]) == {"time", "tag", "unit", "count", "mean", "min", "max", "std"}
    assert len(pd.read_csv(tmp_path / "a.csv")) == 4


@pytest.mark.parametrize(
    ("table", "key", "found"),
    [
        ('periods = ["1s"]', "aggregates.periods", '"1s"'),
        ('periods = ["1min", "90s"]', "aggregates.periods", '"90s"'),
        ('periods = ["often"]', "aggregates.periods", '"often"'),
        ('tags = ["T1"]', "aggregates.periods", "nothing"),
        ('periods = ["1min"]\ntags = ["D"]', "aggregates.tags", '"D"'),
        ('periods = ["1min"]\nevery = 5', "aggregates.every", "unknown key"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, table: str, key: str, found: str) -> None:
    head, _, tags = PLANT.partition("[tags]")
    path = tmp_path / "plant.toml"
    path.write_text(head.partition("[aggregates]")[0] + f"[aggregates]\n{table}\n[tags]{tags}")
    (mistake,) = check_plant(path)
    assert mistake.key == key
    assert found in mistake.found
