"""[sources.NAME] of plant.toml, and that site.toml says where each of them is."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.check import check_place
from penstock.data.plants.plant_file import check_plant, load_plant
from penstock.errors import PlantError

HEAD = '[plant]\nname = "p"\nperiod = "10s"\n[tags]\nA = {}\n'
SECOND = 10**9


def plant(folder: Path, text: str) -> Path:
    (folder / "plant.toml").write_text(HEAD + text)
    return folder / "plant.toml"


def test_defaults_follow_the_period(tmp_path: Path) -> None:
    found = load_plant(plant(tmp_path, '[sources.a]\nkind = "tcp"\n[sources.import]\ndelimiter = ";"\n')).sources
    assert list(found) == ["a"]
    assert (found["a"].lateness_ns, found["a"].idle_ns, found["a"].skew_ns) == (2 * SECOND, 60 * SECOND, 60 * SECOND)
    (tmp_path / "plant.toml").write_text(HEAD.replace("10s", "100ms") + '[sources.a]\nkind = "tcp"\nlateness = "0s"\n')
    assert load_plant(tmp_path / "plant.toml").sources["a"].lateness_ns == 0


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("[sources.a]\n", "sources.a.kind", '"mqtt", "opcua", "kafka", "tcp"'),
        ('[sources.a]\nkind = "mqtt"\n', "sources.a.topics", "text or a list"),
        ('[sources.a]\nkind = "opcua"\n', "sources.a.nodes", "text or a list"),
        ('[sources.a]\nkind = "tcp"\ntopics = ["x"]\n', "sources.a.topics", "one of kind, lateness"),
        ('[sources.a]\nkind = "tcp"\nlateness = "soon"\n', "sources.a.lateness", "such as"),
        ('[sources.a]\nkind = "tcp"\ncolumns = { x = 3 }\n', "sources.a.columns.x", "false to leave it out"),
        ('[sources.a]\nkind = "tcp"\ncolumns = 3\n', "sources.a.columns", "a table"),
        ('[sources."a b"]\nkind = "tcp"\n', "sources", "letters, digits"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, key: str, why: str) -> None:
    mistakes = check_plant(plant(tmp_path, text))
    assert [m.key for m in mistakes] == [key]
    assert why in mistakes[0].allowed


@pytest.mark.parametrize(
    ("site", "key", "why"),
    [
        ("", "sources.plc", "url = mqtt://... or mqtts://..."),
        ('[sources.plc]\nurl = "kafka://broker:9092"\n', "sources.plc.url", "mqtt://... or mqtts://..."),
        (
            '[sources.plc]\nurl = "mqtt://b"\n[sources.plk]\nurl = "mqtt://b"\n',
            "sources.plk",
            "the name of a source of plant.toml",
        ),
    ],
)
def test_the_two_files_must_fit_together(tmp_path: Path, site: str, key: str, why: str) -> None:
    plant(tmp_path, '[sources.plc]\nkind = "mqtt"\ntopics = "x/#"\n')
    (tmp_path / "site.toml").write_text(site)
    with pytest.raises(PlantError) as told:
        check_place(tmp_path)
    assert [m.key for m in told.value.mistakes] == [key]
    assert why in told.value.mistakes[0].allowed


def test_an_opcua_server_is_not_held_back(tmp_path: Path) -> None:
    (tmp_path / "plant.toml").write_text(
        '[plant]\nname = "p"\nperiod = "1s"\n[tags]\nA = {}\n[sources.plc]\nkind = "opcua"\nnodes = ["i=85"]\n'
    )
    for overload, fine in (("newest", True), ("block", False)):
        text = f'[stream]\noverload = "{overload}"\n[sources.plc]\nurl = "opc.tcp://plc:4840"\n'
        (tmp_path / "site.toml").write_text(text)
        if fine:
            check_place(tmp_path)
            continue
        with pytest.raises(PlantError) as caught:
            check_place(tmp_path)
        assert [(m.key, m.found) for m in caught.value.mistakes] == [("stream.overload", '"block", with source plc')]
