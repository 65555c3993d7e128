"""What is different between two plants: told once, told whole, and the registry agrees."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.plant import Plant, Tag
from penstock.data.plants.change import Change, Standing
from penstock.data.plants.difference import difference
from penstock.data.plants.plant_file import load_plant
from penstock.data.registry import Registry
from penstock.errors import SiteError

PLANT = """
[plant]
name = "kiln"
period = "1s"

[tags]
GAS = { unit = "m3/h", range = [0, 90], rate = 5, scale = 0.1 }
AIR = { unit = "m3/h" }
O2 = { unit = "%", valid = "GAS > 1" }
RATIO = { expr = "GAS / AIR" }

[model.o2]
target = "O2"
inputs = ["GAS", "AIR", "RATIO"]
window = "10s"
when = "GAS > 2"
retrain = { cron = "0 3 * * *" }

[aggregates]
periods = ["1min"]

[sources.plc]
kind = "mqtt"
topics = ["kiln/#"]
columns = { "g" = "GAS" }

[sinks.dcs]
kind = "mqtt"
topic = "said/{plant}/{model}"
"""


@pytest.fixture
def load(tmp_path: Path):
    def loaded(*changes: tuple[str, str]) -> Plant:
        text = PLANT
        for before, after in changes:
            assert before in text, before
            text = text.replace(before, after)
        (tmp_path / "plant.toml").write_text(text)
        return load_plant(tmp_path / "plant.toml")

    return loaded


def told(changes: tuple[Change, ...]) -> list[tuple[str, str, bool]]:
    return [(c.kind, c.what, c.refused is not None) for c in changes]


RENAMED = (
    ("GAS = { ", 'FUEL = { aliases = ["GAS"], '),
    ('"GAS / AIR"', '"FUEL / AIR"'),
    ('"GAS > 1"', "'tag(\"FUEL\")  > 1'"),
    ('"GAS", "AIR"', '"FUEL", "AIR"'),
    ('"GAS > 2"', '"FUEL > 2"'),
    ('"g" = "GAS"', '"g" = "FUEL"'),
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], []),
        ([("AIR = {", "NEW = {}\nAIR = {")], [("tag added", "NEW", False), ("aggregates changed", "", False)]),
        (RENAMED, [("tag renamed", "FUEL", False)]),
        ([('"%", valid', '"vol%", valid')], [("tag text", "O2", False)]),
        ([("[0, 90]", "[0, 95]")], [("tag rules", "GAS", False)]),
        ([("GAS > 1", "GAS > 1.5")], [("tag rules", "O2", False)]),
        ([("GAS > 1", "(GAS) > 1")], []),
        ([("scale = 0.1", "scale = 0.2")], [("tag scale", "GAS", False)]),
        ([('AIR = { unit = "m3/h"', 'AIR = { unit = "m3/h", dtype = "float64"')], [("tag fixed", "AIR", True)]),
        ([('AIR = { unit = "m3/h"', 'AIR = { unit = "m3/h", ahead = "5s"')], [("tag fixed", "AIR", True)]),
        ([("GAS / AIR", "AIR / GAS")], [("tag expression", "RATIO", False)]),
        ([('AIR = { unit = "m3/h" }', 'AIR = { expr = "GAS * 2" }')],
         [("tag computed", "AIR", True), ("aggregates changed", "", False)]),
        ([('RATIO = { expr = "GAS / AIR" }', "RATIO = {}")],
         [("tag added", "RATIO", True), ("aggregates changed", "", False)]),
        ([('window = "10s"', 'window = "20s"')], [("model windows", "o2", False)]),
        ([("GAS > 2", "GAS > 3")], [("model windows", "o2", False)]),
        ([('window = "10s"', 'window = "10s"\nhorizon = "5s"')], [("model meaning", "o2", True)]),
        ([('window = "10s"', 'window = "10s"\nlstm = { units = 8 }')], [("model fitting", "o2", False)]),
        ([("0 3 * * *", "0 4 * * *")], [("model retrain", "o2", False)]),
        ([('window = "10s"', 'window = "10s"\ninterval = 0.9')], [("model live", "o2", False)]),
        ([("[model.o2]", '[model.air]\ntarget = "AIR"\ninputs = ["GAS"]\nwindow = "5s"\n[model.o2]')],
         [("model added", "air", False)]),
        ([("[model.o2]", "[model.oxygen]")], [("model added", "oxygen", False), ("model removed", "o2", False)]),
        ([('["1min"]', '["1min", "1h"]')], [("aggregates changed", "", False)]),
        ([('["kiln/#"]', '["oven/#"]')], [("source changed", "plc", False)]),
        ([('kind = "mqtt"\ntopics', 'kind = "kafka"\ntopics'), ('"kiln/#"', '"kiln"')], [("source kind", "plc", True)]),
        ([("[sources.plc]", "[sources.dcs]")], [("source added", "dcs", False), ("source removed", "plc", False)]),
        ([("said/", "told/")], [("sink changed", "dcs", False)]),
        ([("[sinks.dcs]", "[sinks.lake]")], [("sink added", "lake", False), ("sink removed", "dcs", False)]),
        ([('name = "kiln"', 'name = "oven"')], [("plant name", "", True)]),
        ([('period = "1s"', 'period = "1s"\ntimezone = "Europe/Rome"')], [("plant timezone", "", False)]),
        ([('period = "1s"', 'period = "1s"\nclock = "replay"')], [("plant clock", "", False)]),
        ([('period = "1s"', 'period = "5s"'), ("kiln/#", "kiln/#")], None),
    ],
)  # fmt: skip
def test_each_change_is_told_as_what_it_is(load, changes, expected) -> None:
    held = Standing(trained=frozenset({"o2"}), live={"o2": 3}, sessions=frozenset({"plc"}))
    new = load(*changes)
    found = difference(load(), new, held)
    if expected is None:  # a period's change makes windows of other lengths too
        assert ("plant period", "", True) in told(found)
    else:
        assert told(found) == expected
    assert difference(new, new, held) == ()
    assert all(c.effect for c in found)


def test_a_model_that_never_spoke_may_change_its_meaning(load) -> None:
    new = load(('window = "10s"', 'window = "10s"\nhorizon = "5s"'))
    assert told(difference(load(), new)) == [("model meaning", "o2", False)]


def test_what_a_live_card_reads_is_not_retired(load) -> None:
    drop = (
        ('AIR = { unit = "m3/h" }\n', ""), ('RATIO = { expr = "GAS / AIR" }\n', ""), (', "AIR", "RATIO"', ""),
    )  # fmt: skip
    new = load(*drop)
    assert ("tag retired", "AIR", False) in told(difference(load(), new))
    live = Standing(live={"o2": 3}, reads={"o2": frozenset({"GAS", "AIR"})}, owners={"GAS": "GAS", "AIR": "AIR"})
    retired = next(c for c in difference(load(), new, live) if c.what == "AIR")
    assert retired.refused is not None
    assert "o2@3" in retired.refused
    assert "penstock undeploy o2" in retired.refused


def test_a_rename_says_both_names_and_two_at_once_are_refused(load) -> None:
    (renamed,) = difference(load(), load(*RENAMED))
    assert (renamed.before, renamed.after) == ("GAS", "FUEL")
    both = load(
        ("GAS = { ", 'FUEL = { aliases = ["AIR", "GAS"], '), ('AIR = { unit = "m3/h" }\n', ""),
        ('"GAS / AIR"', '"FUEL / FUEL"'), ('"GAS > 1"', '"FUEL > 1"'), ('"GAS", "AIR"', '"FUEL"'),
        ('"GAS > 2"', '"FUEL > 2"'), ('"g" = "GAS"', '"g" = "FUEL"'),
    )  # fmt: skip
    found = next(c for c in difference(load(), both) if c.what == "FUEL")
    assert found.refused is not None
    assert "AIR, GAS" in found.refused


def test_a_model_whose_tags_were_only_renamed_needs_no_training(load) -> None:
    assert not [c for c in difference(load(), load(*RENAMED)) if c.kind.startswith("model")]


# Beside the registry, whose rules these are

NAMES = ("A", "B", "C", "D", "E")


@st.composite
def tag_sets(draw: st.DrawFn) -> dict[str, Tag]:
    """What a plant.toml may hold: each name and alias once, some of them computed."""
    taken = draw(st.permutations(NAMES))
    found: dict[str, Tag] = {}
    at = 0
    while at < len(taken) and len(found) < 4:
        name, more = taken[at], draw(st.integers(0, 2))
        aliases = tuple(taken[at + 1 : at + 1 + more])
        at += 1 + more
        if draw(st.booleans()):
            found[name] = Tag(name=name, aliases=aliases, dtype=draw(st.sampled_from(["float32"] * 5 + ["float64"])))
    return found


def plant(tags: dict[str, Tag]) -> Plant:
    return Plant(name="p", period_ns=1, tags=tags, models={})


def owners(registry: Registry) -> dict[str, str]:
    return {name: registry.names()[at] for name, at in registry.lookup().items()}


@settings(max_examples=40, deadline=None)  # each registers durably
@given(st.lists(tag_sets(), min_size=2, max_size=5))
def test_what_is_refused_and_what_is_the_same_is_what_the_registry_says(course: list[dict[str, Tag]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.open(Path(folder) / "tags.sqlite")
        registry.register(list(course[0].values()))
        old = course[0]
        for new in course[1:]:
            before = registry.lookup()
            changes = difference(plant(old), plant(new), Standing(owners=owners(registry)))
            refused = [c for c in changes if c.refused is not None]
            why = registry.refusal(list(new.values()))
            if refused or why is not None:  # of a tag that comes back the registry alone knows the dtype
                assert why is not None
                assert refused or "is stored as" in why
                with pytest.raises(SiteError):
                    registry.register(list(new.values()))
                continue
            registry.register(list(new.values()))
            kinds = {c.what: c for c in changes}
            for name in new:
                change, at = kinds.get(name), registry.lookup()[name]
                if change is not None and change.kind == "tag added":
                    assert at >= len(set(before.values()))
                elif change is not None and change.kind == "tag renamed":
                    assert at == before[change.before]
                elif change is not None and change.kind == "tag back":
                    assert at == before[change.before.removeprefix("retired ")]
                else:
                    assert at == before[name]
            retired = {c.what for c in changes if c.kind == "tag retired"}
            still = {registry.lookup()[name] for name in new}
            assert retired == {name for name in old if before[name] not in still}
            held = Standing(owners=owners(registry))
            assert difference(plant(new), plant(new), held) == ()
            old = new


@settings(max_examples=100, deadline=None)
@given(tag_sets(), tag_sets(), st.booleans())
def test_nothing_changed_is_told_of_no_one(first: dict[str, Tag], second: dict[str, Tag], units: bool) -> None:
    assert difference(plant(first), plant(first)) == ()
    changes = difference(plant(first), plant(second))
    assert (not changes) == (
        set(first) == set(second)
        and all(set(first[n].aliases) == set(second[n].aliases) and first[n].dtype == second[n].dtype for n in first)
    )
    if units and first:
        some = next(iter(first))
        other = {**first, some: replace(first[some], unit="bar")}
        assert told(difference(plant(first), plant(other))) == [("tag text", some, False)]
