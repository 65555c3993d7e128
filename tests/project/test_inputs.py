"""What a text may name: a file, a recorded data set, a simulated station; and how a site of the latter is made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock import inputs
from penstock.data.simulator import Simulator
from penstock.data.simulator_station import Station
from penstock.errors import SourceError
from penstock.site import Site


def penstock(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "penstock", *words], capture_output=True, text=True, timeout=120)


def test_a_path_comes_before_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "simulated:1d").write_text("time,T\n")
    monkeypatch.chdir(tmp_path)
    assert list(inputs.parts("simulated:1d")) == [("simulated:1d", Path("simulated:1d"))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gas-turbin:2014", "Did you mean 'gas-turbine'"),
        ("gas-turbine:2014..2015", "allowed: years"),
        ("hydraulic-rig:5h..4h", "is empty"),
        ("nothing.csv", "no such file, and no built-in data set"),
    ],
)
def test_a_text_that_names_nothing_says_what_there_is(text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        list(inputs.parts(text))


def test_a_site_knows_its_station(tmp_path: Path) -> None:
    words = ["--plant", "simulated", "--units", "3", "--tags", "12", "--seed", "5", "--faults", "--json"]
    made = penstock("init", str(tmp_path / "station"), *words)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout.splitlines()[-1])["tags"] == 36
    with Site.open(tmp_path / "station") as site:
        report = site.load("simulated:1d")
        again = site.load("simulated:1d")
        ids = site.registry.ids(Station(units=3, tags=12).tag_names())
        first = site.readings.span()[0]
        stored = site.readings.read(np.asarray(ids, np.int32), first, first + 1440).values
    rows = Simulator(Station(units=3, tags=12, seed=5, faults=True)).rows(0, 1440)
    assert report["accepted"] == len(rows)
    assert report["rejected"] == again["accepted"] == 0
    assert np.count_nonzero(~np.isnan(stored)) == len(rows)
    assert np.nansum(stored, dtype=np.float64) == pytest.approx(np.nansum(rows.values, dtype=np.float64))


def test_numbers_of_a_station_do_not_fit_a_recorded_plant(tmp_path: Path) -> None:
    refused = penstock("init", str(tmp_path / "x"), "--units", "3")
    assert refused.returncode == 2
    assert "simulated" in refused.stderr
    assert not (tmp_path / "x").exists()
