"""The site that a user holds: made whole, and told clearly what cannot be done."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from penstock.errors import PlantError, SourceError
from penstock.site import Site

PLANT = """
[plant]
name = "meter"
period = "1s"
[tags]
file = "lists/tags.csv"
[model.flow]
target = "T"
inputs = ["P"]
step = "1s"
window = "4s"
every = "1s"
network = "networks/flow.py:build"
"""


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """A plant.toml with the two files that it names."""
    home = tmp_path / "plants"
    for name, text in {
        "plant.toml": PLANT,
        "lists/tags.csv": "name,unit\nT,degC\nP,bar\n",
        "networks/flow.py": "x",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    return home / "plant.toml"


def test_a_new_site_stands_without_the_files_it_was_made_from(plant: Path, tmp_path: Path) -> None:
    with Site.create(tmp_path / "site", plant):
        pass
    for file in sorted(plant.parent.rglob("*.*"), reverse=True):
        copy = tmp_path / "site" / file.relative_to(plant.parent)
        assert copy.read_bytes() == file.read_bytes()
        file.unlink()
    with Site.open(tmp_path / "site") as site:
        assert sorted(site.plant.tags) == ["P", "T"]


def test_a_file_that_is_missing_or_lies_above_is_named_and_nothing_is_made(plant: Path, tmp_path: Path) -> None:
    (plant.parent / "networks" / "flow.py").unlink()
    with pytest.raises(PlantError, match=r"model\.flow\.network.*networks/flow\.py"):
        Site.create(tmp_path / "site", plant)
    (tmp_path / "flow.py").write_text("x")
    plant.write_text(PLANT.replace("networks/flow.py", "../flow.py"))
    with pytest.raises(PlantError, match=r"model\.flow\.network.*\.\./flow\.py.*beside plant\.toml or below"):
        Site.create(tmp_path / "site", plant)
    assert not (tmp_path / "site").exists()


def test_an_unknown_option_of_load_is_told_with_the_nearest(plant: Path, tmp_path: Path) -> None:
    with Site.create(tmp_path / "site", plant) as site:
        table = pd.DataFrame({"at": pd.to_datetime(["2024-01-01T00:00:00Z"]), "T": [1.0]})
        with pytest.raises(SourceError, match=r"'time_colum'.*Did you mean 'time_column'"):
            site.load(table, time_colum="at")
        assert site.load(table, time_column="at", decimal=None)["accepted"] == 1


def test_imports_let_go_of_old_commits_as_site_toml_says(plant: Path, tmp_path: Path) -> None:
    with Site.create(tmp_path / "site", plant):
        pass
    (tmp_path / "site" / "site.toml").write_text('retention = { snapshots = "0s" }')
    with Site.open(tmp_path / "site") as site:
        first = site.readings.head().snapshot
        for day in (1, 2, 3):
            site.load(pd.DataFrame({"time": pd.to_datetime([f"2024-01-0{day}T00:00:00Z"]), "T": [float(day)]}))
        assert len(list(site.readings.repository.ancestry(branch="main"))) <= 2
        assert first != site.readings.head().snapshot
        assert site.archive()["value"].notnull().sum() == 3
