"""[sinks.NAME] of plant.toml, that site.toml says where each of them is, and that none feeds a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.check import check_place
from penstock.data.plant import SinkSpec
from penstock.data.plants.plant_file import check_plant, load_plant
from penstock.errors import PlantError

HEAD = '[plant]\nname = "mill"\nperiod = "10s"\n[tags]\nA = {}\n'
OUT = '[sinks.out]\nkind = "mqtt"\ntopic = "penstock/{plant}/{model}"\n'


KEPT = '[aggregates]\nperiods = ["1min", "1h"]\n'
SUMS = '[sinks.sums]\nkind = "mqtt"\ntopic = "sums/{tag}/{period}"\naggregates = "*"\n'


def plant(folder: Path, text: str) -> Path:
    (folder / "plant.toml").write_text(HEAD + text)
    return folder / "plant.toml"


def test_defaults(tmp_path: Path) -> None:
    found = load_plant(plant(tmp_path, OUT)).sinks
    assert found == {"out": SinkSpec(name="out", kind="mqtt", topic="penstock/{plant}/{model}")}
    assert found["out"].sends("nox")


def test_a_sink_of_aggregates(tmp_path: Path) -> None:
    found = load_plant(plant(tmp_path, KEPT + SUMS)).sinks["sums"]
    assert (found.aggregates, found.functions) == (("A",), ("count", "mean", "min", "max", "std"))
    assert found.periods_ns == (60 * 10**9, 3600 * 10**9)
    assert (found.tag, found.retain) == ("{tag}.{function}.{period}", False)
    some = load_plant(plant(tmp_path, KEPT + SUMS + 'periods = "1h"\nfunctions = ["std", "min"]\n')).sinks["sums"]
    assert (some.periods_ns, some.functions) == ((3600 * 10**9,), ("min", "std"))


def test_no_sink_of_aggregates_feeds_a_source_of_its_plant(tmp_path: Path) -> None:
    text = '[sources.plc]\nkind = "mqtt"\ntopics = ["sums/+/1h"]\n'
    plant(tmp_path, KEPT + SUMS + text)
    site = '[sources.plc]\nurl = "mqtt://broker"\n[sinks.sums]\nurl = "mqtt://broker"\n'
    assert [key for key, _, _ in told(tmp_path, site)] == ["sinks.sums.topic"]


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ('[sinks.a]\ntopic = "x"\n', "sinks.a.kind", '"mqtt"'),
        ('[sinks.a]\nkind = "mqtt"\n', "sinks.a.topic", "text"),
        ('[sinks.a]\nkind = "mqtt"\ntopic = "x/#"\n', "sinks.a.topic", "no +, #"),
        ('[sinks.a]\nkind = "mqtt"\ntopic = "$SYS/x"\n', "sinks.a.topic", "not beginning with $"),
        ('[sinks.a]\nkind = "mqtt"\ntopic = "x//y"\n', "sinks.a.topic", "empty level"),
        ('[sinks.a]\nkind = "mqtt"\ntopic = "x/{tag}"\n', "sinks.a.topic", "{plant}, {model} or {target}"),
        (OUT + 'tag = "{unit}"\n', "sinks.out.tag", "{plant}, {model} or {target}"),
        (OUT + 'format = "xml"\n', "sinks.out.format", '"json", "arrow"'),
        (OUT + 'catch_up = "some"\n', "sinks.out.catch_up", '"all", "newest"'),
        (OUT + "retain = 1\n", "sinks.out.retain", "true or false"),
        (OUT + 'url = "mqtt://x"\n', "sinks.out.url", "one of kind, topic"),
        (OUT + 'periods = "1min"\n', "sinks.out.periods", "one of kind, topic"),
        (SUMS, "sinks.sums.aggregates", "a plant with a table [aggregates]"),
        (KEPT + SUMS + 'models = "nox"\n', "sinks.sums.models", "one of kind, topic"),
        (KEPT + SUMS + 'periods = ["1min", "5min"]\n', "sinks.sums.periods", 'periods of [aggregates]: "1min", "1h"'),
        (KEPT + SUMS + 'functions = "median"\n', "sinks.sums.functions", '"count", "mean", "min", "max", "std"'),
        (KEPT + SUMS + 'tag = "{model}"\n', "sinks.sums.tag", "{plant}, {tag}, {period} or {function}"),
        (KEPT + SUMS + 'catch_up = "newest"\n', "sinks.sums.catch_up", '"all"'),
        (KEPT + SUMS.replace('"*"', '"B"'), "sinks.sums.aggregates", "tags of [aggregates]"),
        ('[sinks."a b"]\nkind = "mqtt"\ntopic = "x"\n', "sinks", "letters, digits"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, key: str, why: str) -> None:
    mistakes = check_plant(plant(tmp_path, text))
    assert [m.key for m in mistakes] == [key]
    assert why in mistakes[0].allowed


def told(folder: Path, site: str) -> list[tuple[str, str, str]]:
    (folder / "site.toml").write_text(site)
    try:
        check_place(folder)
    except PlantError as error:
        return [(m.key, m.found, m.allowed) for m in error.mistakes]
    return []


@pytest.mark.parametrize(
    ("site", "key", "why"),
    [
        ("", "sinks.out", "url = mqtt://... or mqtts://..."),
        ('[sinks.out]\nurl = "kafka://broker:9092"\n', "sinks.out.url", "mqtt://... or mqtts://..."),
        ('[sinks.out]\nurl = "mqtt://b"\n[sinks.outt]\nurl = "mqtt://b"\n', "sinks.outt", "a sink of plant.toml"),
    ],
)
def test_the_two_files_must_fit_together(tmp_path: Path, site: str, key: str, why: str) -> None:
    plant(tmp_path, OUT)
    ((found, _, allowed),) = told(tmp_path, site)
    assert found == key
    assert why in allowed


@pytest.mark.parametrize(
    ("source", "sink", "filter_", "circle"),
    [
        ("mqtt://broker", "mqtt://broker:1883", "penstock/#", True),
        ("mqtts://broker", "mqtt://broker", "penstock/+/nox", True),
        ("mqtt://localhost:1999", "mqtt://127.0.0.1:1999", "#", True),
        ("mqtt://broker", "mqtt://broker", "penstock/other/#", False),
        ("mqtt://broker", "mqtt://another", "penstock/#", False),
        ("mqtt://broker:1999", "mqtt://broker", "penstock/#", False),
    ],
)
def test_no_sink_feeds_a_source_of_its_plant(
    tmp_path: Path, source: str, sink: str, filter_: str, circle: bool
) -> None:
    text = f'[sources.plc]\nkind = "mqtt"\ntopics = ["plc/+", "{filter_}"]\n'
    site = f'[sources.plc]\nurl = "{source}"\n[sinks.out]\nurl = "{sink}"\n'
    plant(tmp_path, OUT + text)
    found = told(tmp_path, site)
    assert [key for key, _, _ in found] == (["sinks.out.topic"] if circle else [])
    if circle:
        assert f'source plc hears by its filter "{filter_}"' in found[0][1]
        assert "feedback = true" in found[0][2]
        plant(tmp_path, OUT + "feedback = true\n" + text)
        assert told(tmp_path, site) == []
