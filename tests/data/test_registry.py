"""Tag ids are given once and stay, whatever is renamed, appended or killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.plant import Tag
from penstock.data.registry import Registry
from penstock.errors import SiteError


def tag(name: str, *aliases: str, dtype: str = "float32", expr: str | None = None) -> Tag:
    return Tag(name=name, aliases=aliases, dtype=dtype, expr=expr)  # type: ignore[arg-type]


def test_ids_are_appended_in_order_and_stay(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "tags.sqlite")
    registry.register([tag("A"), tag("B", dtype="float64")])
    registry.register([tag("C"), tag("B", dtype="float64"), tag("D", expr="A + 1")])
    for again in (registry, Registry.open(tmp_path / "tags.sqlite")):
        assert again.names() == ["A", "B", "C"]
        assert again.dtypes() == ["float32", "float64", "float32"]
        assert again.ids(["C", "A"]).tolist() == [2, 0]
        assert again.ids(["C"]).dtype == "int32"


def test_what_another_registers_is_seen_at_the_next_look(tmp_path: Path) -> None:
    one, other = (Registry.open(tmp_path / "tags.sqlite") for _ in range(2))
    for number in range(5):
        other.register([tag(f"T{number}")])
        one.refresh()
        assert one.names() == [f"T{i}" for i in range(number + 1)]
        one.refresh()
    other.register([tag("new", "T4")])  # as many tags as before
    one.refresh()
    assert one.names()[4] == "new"
    one.register([tag("mine")])
    other.refresh()
    assert other.lookup() == one.lookup()


def test_a_renamed_tag_keeps_its_id_and_old_name(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "tags.sqlite")
    registry.register([tag("A"), tag("B")])
    registry.register([tag("A2", "A"), tag("B")])
    registry.register([tag("A3", "A2"), tag("B", "elsewhere")])
    registry = Registry.open(tmp_path / "tags.sqlite")
    assert registry.names() == ["A3", "B"]
    assert registry.ids(["A", "A2", "A3", "B", "elsewhere"]).tolist() == [0, 0, 0, 1, 1]
    registry.register([tag("A", "A3"), tag("B")])
    assert registry.names() == ["A", "B"]
    assert registry.ids(["A3", "A"]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ([tag("A", dtype="float64")], "stored as float32"),
        ([tag("C", "A", "B")], "several registered tags"),
        ([tag("A", "B")], "several registered tags"),
        ([tag("old"), tag("New", "x"), tag("A")], "former name"),
    ],
)
def test_what_would_change_an_id_is_refused_and_nothing_written(tmp_path: Path, tags: list[Tag], why: str) -> None:
    registry = Registry.open(tmp_path / "tags.sqlite")
    registry.register([tag("A", "old"), tag("B")])
    with pytest.raises(SiteError, match=why):
        registry.register([tag("Z"), *tags])
    for again in (registry, Registry.open(tmp_path / "tags.sqlite")):
        assert again.names() == ["A", "B"]


def test_unknown_names_tell_the_nearest(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "tags.sqlite")
    registry.register([tag("TEMPERATURE")])
    with pytest.raises(SiteError, match="Did you mean 'TEMPERATURE'"):
        registry.ids(["TEMPERATUR"])


def test_another_process_view_is_refreshed_by_asking(tmp_path: Path) -> None:
    mine, other = Registry.open(tmp_path / "tags.sqlite"), Registry.open(tmp_path / "tags.sqlite")
    mine.register([tag("A")])
    other.register([tag("B"), tag("A")])
    assert mine.ids(["B"]).tolist() == [1]
    mine.register([tag("C")])
    assert mine.names() == ["A", "B", "C"]


def test_a_newer_or_broken_file_is_a_site_error(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "new.sqlite")
    db.execute("pragma user_version = 9")
    db.close()
    with pytest.raises(SiteError, match="upgrade"):
        Registry.open(tmp_path / "new.sqlite")
    (tmp_path / "broken.sqlite").write_bytes(b"no database" * 200)
    with pytest.raises(SiteError, match="cannot be used"):
        Registry.open(tmp_path / "broken.sqlite")


WRITER = """
import sys
from pathlib import Path
from penstock.data.plant import Tag
from penstock.data.registry import Registry
registry = Registry.open(Path(sys.argv[1]))
print("ready", flush=True)
for i in range(10000):
    registry.register([Tag(name=f"T{j}") for j in range(i * 7, i * 7 + 7)])
"""


def test_killed_while_registering_leaves_whole_groups(tmp_path: Path) -> None:
    path = tmp_path / "tags.sqlite"
    for pause in (0.05, 0.12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(10)
        writer.stdout.close()
        names = Registry.open(path).names()
        assert len(names) % 7 == 0
        assert names == [f"T{i}" for i in range(len(names))]
    assert names


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=6))
def test_any_order_of_registrations_only_appends(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("registry") / "tags.sqlite"
    registry = Registry.open(path)
    model: list[str] = []
    for names in calls:
        registry.register([tag(name) for name in names])
        model += [name for name in dict.fromkeys(names) if name not in model]
        assert registry.names() == model
    assert Registry.open(path).names() == model
