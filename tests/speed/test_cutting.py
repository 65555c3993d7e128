"""Windows of a fleet cut together have the bits of windows cut one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.block import Block, Flag
from penstock.data.grid import Grid
from penstock.data.layout import Layout
from penstock.data.plant import ModelSpec, Plant, PrepareStep, Tag
from penstock.data.scoring import Member
from penstock.data.window_form import form_of
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import answers_at, cut, prepare, window_hash
from penstock.speed.cutting import STACKED_VALUES, Answers, cut_all
from penstock.speed.plan import ReadPlan
from penstock.speed.rows import Newest
from penstock.speed.shard import Rows

SECOND = 10**9
GRID = Grid(period_ns=SECOND)
UNITS = ("U1", "U2", "U3")
NAMES = tuple(f"{unit}.{part}" for unit in UNITS for part in ("FUEL", "POWER", "NOX"))
STORED = {name: Tag(name=name) for name in NAMES}
DERIVED = {f"{u}.USE": Tag(name=f"{u}.USE", expr=f"{u}.FUEL / max(tag('{u}.POWER'), 0.1)") for u in UNITS}
PLANT = Plant(name="fleet", period_ns=SECOND, tags={**STORED, **DERIVED}, models={})


def model(unit: str, kind: str) -> Member:
    """`plain`, `derived` and `rare` models of a unit."""
    fuel, power, use = (f"{unit}.{part}" for part in ("FUEL", "POWER", "USE"))
    inputs = (fuel, power, use) if kind == "derived" else (fuel, power)
    steps = (PrepareStep(name="difference"), PrepareStep(name="mean", span_ns=3 * SECOND))
    spec = ModelSpec(
        name=f"{kind}.{unit}", targets=(f"{unit}.NOX",), inputs=inputs, prepare={fuel: steps},
        step_ns=(2 if kind == "rare" else 1) * SECOND, window=4, every_ns=(3 if kind == "rare" else 1) * SECOND,
        past_target=True, when=f"{power} > -1 and {use} < 9" if kind == "derived" else None,
    )  # fmt: skip
    return Member(name=spec.name, version=1, slot=0, spec=WindowSpec.of(spec, PLANT))


MEMBERS = tuple(model(unit, kind) for unit in UNITS for kind in ("plain", "derived", "rare"))


def newest_rows(seed: int, first: int, last: int, late_shard: int) -> Newest:
    """Two shards' rows of ticks first..last-1, with holes; one shard's begin `late_shard` ticks later."""
    random = np.random.default_rng(seed)
    layout = Layout(dtypes=["float32"] * len(NAMES), shards=2)
    ids = {name: i for i, name in enumerate(NAMES)}
    plan = ReadPlan.of([m.spec for m in MEMBERS], lambda ns: np.array([ids[n] for n in ns], np.int32), layout, GRID)
    newest = Newest(plan)
    for shard in plan.shards:
        begin = first + late_shard * (shard.shard == 1)
        shape = last - begin, len(shard.columns)
        bad, filled = random.random(shape) < 0.03, random.random(shape) < 0.1
        flags = np.where(bad, Flag.BAD | Flag.MISSING, np.where(filled, Flag.CARRIED, 0)).astype(np.uint16)
        values = np.where(bad, np.nan, random.normal(0, 2, shape)).astype(np.float32)
        block = Block(first=begin, tags=tuple(c.tag.name for c in shard.columns), values=values, flags=flags)
        newest.add(shard.shard, (Rows(closed=last, block=block, closes=((last, 7),)),))
    newest.bring_up(last - 1)
    return newest


def check(answers: Answers, newest: Newest, first: int, last: int) -> None:
    """Against the plain way: this member's block alone."""
    spec = answers.member.spec
    ticks = np.arange(first, last)[answers_at(spec, np.arange(first, last))]
    assert answers.ticks.tolist() == ticks.tolist()
    if not len(ticks):
        assert answers.ask is None
        return
    block = newest.block(spec, int(ticks[0]) - spec.depth + 1, int(ticks[-1]) + 1)
    windows = cut(spec, prepare(spec, block), ticks)
    fit = windows.reason == 0
    assert answers.reasons.tolist() == windows.reason.tolist()
    assert answers.filled.tolist() == windows.filled.tolist()
    asked = np.empty((0, *windows.x.shape[1:]), np.float32) if answers.ask is None else answers.ask.windows
    assert asked.shape == windows.x[fit].shape
    assert asked.tobytes() == windows.x[fit].tobytes()
    assert answers.hashes[fit].tolist() == window_hash(windows.x[fit]).tolist()
    assert not answers.hashes[~fit].any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), ticks=st.integers(1, 9), history=st.integers(0, 20), late_shard=st.integers(0, 3),
    chosen=st.permutations(MEMBERS), count=st.integers(0, len(MEMBERS)),
)  # fmt: skip
def test_together_as_one_by_one(
    seed: int, ticks: int, history: int, late_shard: int, chosen: list[Member], count: int
) -> None:
    newest = newest_rows(seed, 100 - history - late_shard, 100 + ticks, late_shard)
    answers = cut_all(chosen[:count], newest, 100, 100 + ticks)
    assert set(answers) == {m.name for m in chosen[:count]}
    for name, a in answers.items():
        assert a.member.name == name
        check(a, newest, 100, 100 + ticks)


def test_long_windows_stand_in_several_stacks() -> None:
    newest = newest_rows(1, -45_000, 103, 0)
    plain = [m for m in MEMBERS if m.name.startswith("plain")]
    long = [replace(m, spec=replace(m.spec, length=40_000)) for m in plain]
    assert 1 < STACKED_VALUES / (40_000 * len(plain[0].spec.features)) < len(plain)
    for answers in cut_all(long, newest, 100, 101).values():
        check(answers, newest, 100, 101)


def test_models_of_one_template_have_one_form() -> None:
    forms = {m.name: form_of(m.spec) for m in MEMBERS}
    for kind in ("plain", "derived", "rare"):
        assert len({forms[f"{kind}.{unit}"] for unit in UNITS}) == 1
    assert len(set(forms.values())) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"when": "U1.POWER > 1"},
        {"when": "U1.FUEL > 0"},  # the same arithmetic on another of its tags
        {"every": 2},
        {"length": 5},
        {"stride": 2},
        {"features": tuple(replace(f, tag="U1.POWER") for f in MEMBERS[0].spec.features)},
    ],
)
def test_what_changes_a_window_changes_the_form(changed: dict[str, object]) -> None:
    spec = replace(MEMBERS[0].spec, when="U1.POWER > 0")
    assert form_of(spec) == form_of(replace(spec, when='tag("U1.POWER") > 0', horizon=3))
    assert form_of(replace(spec, **changed)) != form_of(spec)  # type: ignore[arg-type]
