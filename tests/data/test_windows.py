"""Windows: what is cut, why not, and that batch and speed cut the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest
import window_strategies as ws
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.grid import Cells
from penstock.data.plant import ModelSpec, Plant, PrepareStep, Tag
from penstock.data.quality import Block, Flag, Rules, assess
from penstock.data.windows import (
    Reason,
    WindowSpec,
    answers_at,
    cut,
    prepare,
    targets,
    window_hash,
)
from penstock.errors import ModelError, PlantError

NAN = float("nan")
HOUR = 3_600_000_000_000
TAGS = {t.name: t for t in (Tag(name="AT", unit="degC"), Tag(name="TEY", unit="MWh"), Tag(name="NOX", unit="mg/m3"))}
NOX = ModelSpec(name="nox", targets=("NOX",), inputs=("AT", "TEY"), step_ns=2 * HOUR, window=3, every_ns=2 * HOUR)


def spec_of(model: ModelSpec, **tags: Tag) -> WindowSpec:
    return WindowSpec.of(model, Plant(name="p", period_ns=HOUR, tags=TAGS | tags, models={}))


def block_of(first: int = 100, **columns: list[float]) -> Block:
    """NaN is BAD."""
    values = np.array(list(columns.values()), np.float32).T
    flags = np.where(np.isnan(values), Flag.BAD, 0).astype(np.uint16)
    return Block(first=first, tags=tuple(columns), values=values, flags=flags)


def test_a_window_ends_at_its_tick() -> None:
    #   tick   100  101  102  103  104  105  106
    #   AT       0    1    2    3    4    5    6      T 3, stride 2
    #   t=104  [0]       [1]       [2]
    #   t=106            [0]       [1]       [2]
    spec = spec_of(NOX)
    block = block_of(AT=list(range(7)), TEY=list(range(10, 17)))
    windows = cut(spec, prepare(spec, block), [104, 106])
    np.testing.assert_array_equal(windows.x[0], [[0, 10], [2, 12], [4, 14]])
    np.testing.assert_array_equal(windows.x[1], [[2, 12], [4, 14], [6, 16]])
    assert windows.reason.tolist() == [Reason.OK, Reason.OK]
    assert (spec.length, spec.stride, spec.every, spec.depth, spec.look_back) == (3, 2, 2, 5, 0)


def test_evenly_spaced_windows_are_a_view_and_others_a_copy() -> None:
    spec = spec_of(NOX)
    prepared = prepare(spec, block_of(AT=list(range(40)), TEY=list(range(40))))
    for ends in (range(104, 140), range(104, 140, 3), [139]):
        windows = cut(spec, prepared, list(ends))
        assert np.shares_memory(windows.x, prepared.x)
        np.testing.assert_array_equal(windows.x[:, -1, 0], [e - 100 for e in ends])
    uneven = cut(spec, prepared, [139, 104, 110])
    np.testing.assert_array_equal(uneven.x[:, 0, 0], [35, 0, 6])
    np.testing.assert_array_equal(uneven.take(np.array([2])), uneven.x[2:])


def test_reasons() -> None:
    #   tick   100  101  102  103  104  105  106  107  108  109
    #   AT       0    1  NaN    3    4    5    6    7    8    9
    #   TEY     99   99   99   99   99   99   99   70  NaN   99
    spec = spec_of(replace(NOX, when="TEY > 75", step_ns=HOUR, inputs=("AT",)))
    at = [0, 1, NAN, 3, 4, 5, 6, 7, 8, 9]
    windows = cut(spec, prepare(spec, block_of(AT=at, TEY=[99] * 7 + [70, NAN, 99])), range(99, 110))
    expected = [2, 2, 2, 3, 3, 3, 0, 0, 1, 3, 0]
    assert windows.reason.tolist() == expected
    assert np.isnan(windows.x[0]).all()


def test_a_window_that_begins_before_anything_was_read_has_no_history() -> None:
    spec = spec_of(replace(NOX, step_ns=HOUR))
    block = block_of(AT=[NAN, NAN, 2, 3, NAN, 5], TEY=[NAN, NAN, NAN, 3, 4, 5])
    block.flags[np.isnan(block.values)] |= np.uint16(Flag.MISSING)
    found = cut(spec, prepare(spec, block), range(102, 106)).reason
    assert [Reason(r).name for r in found] == ["NO_HISTORY", "NO_HISTORY", "BAD_INPUT", "BAD_INPUT"]


def test_preparation_that_reaches_before_the_block_has_no_history() -> None:
    prepare_at = {"AT": (PrepareStep(name="lag", span_ns=3 * HOUR),)}
    spec = spec_of(replace(NOX, step_ns=HOUR, inputs=("AT",), prepare=prepare_at))
    assert (spec.look_back, spec.depth) == (3, 6)
    found = cut(spec, prepare(spec, block_of(AT=list(range(8)))), range(103, 108)).reason
    assert found.tolist() == [2, 2, 0, 0, 0]


def test_filled_says_that_a_value_stands_in() -> None:
    spec = spec_of(NOX)
    block = block_of(AT=list(range(10)), TEY=list(range(10)))
    block.flags[3, 1] = Flag.SUBSTITUTED
    block.flags[2, 1] = Flag.HELD
    assert np.flatnonzero(cut(spec, prepare(spec, block), range(104, 110)).filled).tolist() == [1, 3]
    block.flags[0, 0] = Flag.CARRIED
    assert cut(spec, prepare(spec, block), [103, 104]).filled.tolist() == [True, True]
    assert cut(spec, prepare(spec, block), [101]).filled.tolist() == [False]  # 97, 99, 101: row 100 is no part of it


def test_an_end_that_is_not_closed_yet_is_refused() -> None:
    spec = spec_of(NOX)
    with pytest.raises(IndexError, match="110"):
        cut(spec, prepare(spec, block_of(AT=[1] * 10, TEY=[1] * 10)), [110])


def test_fewer_rows_than_a_window_and_none_at_all() -> None:
    spec = spec_of(NOX)
    short = cut(spec, prepare(spec, block_of(AT=[1.0, 2.0], TEY=[1.0, 2.0])), [100, 101])
    assert short.reason.tolist() == [Reason.NO_HISTORY] * 2
    assert short.x.shape == (2, 3, 2)
    assert short.x[1, -1, 0] == 2
    nothing = prepare(spec, block_of(AT=[1.0], TEY=[1.0]).rows(100, 100))
    assert cut(spec, nothing, [99]).reason.tolist() == [Reason.NO_HISTORY]
    assert cut(spec, nothing, []).x.shape == (0, 3, 2)


def test_it_answers_at_multiples_of_every() -> None:
    assert answers_at(spec_of(NOX), [-2, -1, 0, 1, 2]).tolist() == [True, False, True, False, True]


def test_the_hash_is_of_the_windows_bytes() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    expected = [int.from_bytes(blake2b(w.tobytes(), digest_size=8).digest(), "little") for w in x]
    assert window_hash(x).tolist() == expected
    assert window_hash(x[:0]).shape == (0,)
    assert window_hash(x).dtype == np.uint64


@pytest.mark.parametrize(
    ("horizon_h", "delay_h", "lag"),
    [(0, 0, 2), (1, 0, 1), (2, 0, 0), (5, 0, 0), (0, 3, 3), (5, 1.5, 2), (1, 0.5, 1)],
)
def test_a_past_target_is_only_as_new_as_could_be_known(horizon_h: float, delay_h: float, lag: int) -> None:
    nox = replace(TAGS["NOX"], truth_delay_ns=int(delay_h * HOUR))
    model = replace(NOX, past_target=True, horizon_ns=int(horizon_h * HOUR))
    spec = spec_of(model, NOX=nox)
    assert spec.lags == (lag,)
    past = spec.features[-1]
    assert (past.name, past.tag, past.lag, past.past_target) == ("NOX (past)", "NOX", lag, True)
    assert spec.look_back == lag
    values = [float(v) for v in range(20)]
    block = block_of(AT=values, TEY=values, NOX=values)
    windows = cut(spec, prepare(spec, block), [110])
    np.testing.assert_array_equal(windows.x[0, :, 2], [6 - lag, 8 - lag, 10 - lag])
    y, usable, last = targets(spec, block, [110])
    assert (y[0, 0], usable[0, 0], last[0, 0]) == (10 + horizon_h, True, 10 - lag)


def test_truth_must_have_been_read() -> None:
    spec = spec_of(replace(NOX, horizon_ns=HOUR))
    block = block_of(NOX=[1, 2, 3, 4, NAN, 6])
    block.flags[2, 0], block.flags[3, 0], block.flags[1, 0] = Flag.CARRIED, Flag.SUBSTITUTED, Flag.HELD
    y, usable, last = targets(spec, block, range(99, 107))
    assert usable[:, 0].tolist() == [True, True, False, False, False, True, False, False]
    np.testing.assert_array_equal(y[:, 0], np.float32([1, 2, NAN, NAN, NAN, 6, NAN, NAN]))
    np.testing.assert_array_equal(last[:, 0], np.float32([NAN, NAN, 1, 2, 3, 4, NAN, 6]))


def test_base_and_truth_are_kept_apart() -> None:
    eff = Tag(name="EFF", expr="TEY / AT")
    fuel = Tag(name="FUEL", truth_delay_ns=3 * HOUR)
    loss = Tag(name="LOSS", expr="FUEL - EFF")
    model = replace(NOX, inputs=("EFF",), targets=("LOSS",), when="NOX > 1")
    spec = spec_of(model, EFF=eff, FUEL=fuel, LOSS=loss)
    assert (spec.base, spec.truth) == (("TEY", "AT", "NOX"), ("FUEL", "TEY", "AT"))
    assert [t.name for t in spec.stored] == ["TEY", "AT", "NOX", "FUEL"]
    assert [t.name for t in spec.derived] == ["EFF", "LOSS"]
    assert spec.lags == (3,)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"step_ns": HOUR // 2}, "model.nox.step"),
        ({"horizon_ns": HOUR + 1}, "model.nox.horizon"),
        ({"every_ns": 0}, "model.nox.every"),
        ({"inputs": ("AT", "NOX")}, "model.nox.inputs"),
        ({"inputs": ("TEZ",)}, "Did you mean 'TEY'"),
        ({"when": "TEZ > 1"}, "Did you mean 'TEY'"),
        ({"targets": ("NOZ",)}, "Did you mean 'NOX'"),
    ],
)
def test_a_model_that_does_not_fit_its_plant(change: dict[str, object], place: str) -> None:
    with pytest.raises(PlantError, match=place):
        spec_of(replace(NOX, **change))  # type: ignore[arg-type]


@given(ws.plants())
def test_json_gives_an_equal_spec_back(plant: Plant) -> None:
    spec = WindowSpec.of(plant.models["first"], plant)
    text = json.dumps(spec.to_json(), allow_nan=False)
    again = WindowSpec.from_json(json.loads(text))
    assert again == spec
    assert hash(again) == hash(spec)
    assert json.dumps(again.to_json()) == text


def test_a_card_from_before_tags_could_be_ahead_joined_or_conditional_is_read() -> None:
    spec = spec_of(NOX)
    old = json.loads(json.dumps(spec.to_json()))
    del old["base_ahead"]
    for tag in (*old["base_tags"], *old["truth_tags"], *old["derived"]):
        del tag["ahead_ns"], tag["join"], tag["join_delay_ns"], tag["valid"]
    assert WindowSpec.from_json(old) == spec
    del old["base_tags"][0]["max_gap_ns"]
    with pytest.raises(ModelError, match="max_gap_ns"):
        WindowSpec.from_json(old)


def test_json_of_another_format_or_damaged_is_refused() -> None:
    spec = spec_of(replace(NOX), AT=replace(TAGS["AT"], range=(0, float("inf"))))
    good = spec.to_json()
    assert WindowSpec.from_json(json.loads(json.dumps(good, allow_nan=False))) == spec
    feature = {k: v for k, v in good["features"][0].items() if k != "lag"}
    for bad in (
        good | {"format": 2},
        {k: v for k, v in good.items() if k != "stride"},
        good | {"features": [feature]},
        good | {"colour": "red"},
        good | {"base_tags": 3},
    ):
        with pytest.raises(ModelError, match="window spec"):
            WindowSpec.from_json(bad)


# The acceptance line: batch cuts all at once; speed is fed tick by tick, in groups, and keeps a ring.


def joined(a: Cells, b: Cells) -> Cells:
    pairs = [(getattr(a, f), getattr(b, f)) for f in ("values", "quality", "offset")]
    values, quality, offset = (np.concatenate(p) for p in pairs)
    return Cells(first=a.first, values=values, quality=quality, offset=offset)


def speed_cut(
    specs: list[WindowSpec], rules: Rules, cells: Cells, groups: list[int]
) -> list[dict[int, tuple[int, bool, bytes]]]:
    """Per spec and tick: reason, filled and bytes of the window."""
    wait = rules.wait  # a tick is cut so much later
    keep = max(s.depth for s in specs) - 1 + rules.reach + wait
    ring = Cells.empty(cells.first - keep, keep, len(rules.tags), "float64")
    said: list[dict[int, tuple[int, bool, bytes]]] = [{} for _ in specs]
    at = cells.first
    for group in groups:
        until = min(at + group, cells.last)
        work = joined(ring, cells.rows(at, until))
        block = assess(work, rules)
        for spec, told in zip(specs, said, strict=True):
            due = np.arange(max(cells.first, at - wait), until - wait)
            ends = due[answers_at(spec, due)]
            rows = block.rows(at - wait - spec.depth + 1, until - wait)
            windows = cut(spec, prepare(spec, rows), ends)
            for i, tick in enumerate(ends):
                told[int(tick)] = (int(windows.reason[i]), bool(windows.filled[i]), windows.x[i].tobytes())
        ring, at = work.rows(until - keep, until), until
    return said


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_batch_and_speed_cut_the_same_windows(data: st.DataObject) -> None:
    plant = data.draw(ws.plants())
    specs = [WindowSpec.of(m, plant) for m in plant.models.values()]
    stored = list({t.name: t for s in specs for t in s.stored}.values())
    rules = Rules.of(stored, plant.period_ns)
    cells = data.draw(ws.cells(60, [t.dtype for t in stored]))
    groups = data.draw(st.lists(st.integers(1, 7), min_size=60, max_size=60))
    lead = rules.reach + max(s.depth for s in specs)
    whole = joined(Cells.empty(cells.first - lead, lead, len(stored), "float64"), cells)
    block = assess(whole, rules)
    for spec, said in zip(specs, speed_cut(specs, rules, cells, groups), strict=True):
        assert spec.reach + (spec.length - 1) * spec.stride <= spec.depth - 1 + rules.reach
        ticks = np.arange(cells.first, cells.last - rules.wait)
        windows = cut(spec, prepare(spec, block), ticks[answers_at(spec, ticks)])
        assert sorted(said) == windows.ends.tolist()
        for i, tick in enumerate(windows.ends):
            recomputed = (int(windows.reason[i]), bool(windows.filled[i]), windows.x[i].tobytes())
            assert said[int(tick)] == recomputed
        usable = windows.reason == Reason.OK
        assert np.isfinite(windows.take(usable)).all()
        if spec.features[-1].past_target:
            _, _, last = targets(spec, block, windows.ends)
            assert last.tobytes() == np.ascontiguousarray(windows.x[:, -1, -1:]).tobytes()
