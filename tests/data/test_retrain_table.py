"""The table `retrain` of a model in plant.toml: times in the plant's zone, and every mistake at its place."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from penstock.data.plant import HOUR_NS, RetrainSpec
from penstock.data.plants.plant_file import check_plant, load_plant

PLANT = """
[plant]
name = "mill"
period = "1h"
timezone = "Europe/Berlin"
[tags]
A = {}
Y = {}
[model.m]
target = "Y"
inputs = ["A"]
window = "4h"
"""


def written(folder: Path, table: str) -> Path:
    (folder / "plant.toml").write_text(f"{PLANT}retrain = {{ {table} }}\n")
    return folder / "plant.toml"


def berlin(*parts: int) -> int:
    """ns UTC of a time in the plant's zone."""
    return int(datetime(*parts, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * 10**9  # type: ignore[misc,arg-type]


def test_all_of_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'cron = "0 3 * * SUN", span = "3y", start = "2014", end = 2016-07-01, rows = 5000, judge = "30d", warm = true,'
        ' promote = "auto", leave_out = [["2015-03-01", "2015-03-08 12:00"], [2014-01-01T00:00:00Z, "2014-01-02"]]',
    )
    assert load_plant(path).models["m"].retrain == RetrainSpec(
        cron="0 3 * * SUN",
        span_ns=3 * 365 * 24 * HOUR_NS,
        start_ns=berlin(2014, 1, 1),
        end_ns=berlin(2016, 7, 1),
        rows=5000,
        leave_out=((1_388_534_400 * 10**9, berlin(2014, 1, 2)), (berlin(2015, 3, 1), berlin(2015, 3, 8, 12))),
        judge_ns=30 * 24 * HOUR_NS,
        warm=True,
        promote="auto",
    )


@pytest.mark.parametrize(
    ("table", "key", "allowed"),
    [
        ('start = "soon"', "start", "a time such as"),
        ('end = "2014-13-01"', "end", "a time such as"),
        ("start = 2014", "start", "a time such as"),
        ('start = "2015", end = "2014"', "end", "a time behind start"),
        ("rows = 0", "rows", "at least 1"),
        ('judge = "0s"', "judge", "longer than 0"),
        ('leave_out = ["2014", "2015"]', "leave_out", "pairs of times"),
        ('leave_out = [["2015", "2014"]]', "leave_out", "the second behind the first"),
        ('leave_out = [["2015"]]', "leave_out", "pairs of times"),
        ("leave_out = 3", "leave_out", "pairs of times"),
        ('cron = "61 * * * *"', "cron", "minute is '61'"),
        ('spam = "1y"', "spam", "leave_out"),
    ],
)
def test_a_mistake_is_told_at_its_place(tmp_path: Path, table: str, key: str, allowed: str) -> None:
    mistakes = check_plant(written(tmp_path, table))
    assert {mistake.key for mistake in mistakes} == {f"model.m.retrain.{key}"}
    assert allowed in mistakes[0].allowed
