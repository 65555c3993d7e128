"""Quality: each rule by example, all of them against the slow model, and the same bits from any beginning."""

from __future__ import annotations

import numpy as np
import pytest
import window_model
import window_strategies as ws
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.data.frame import BAD, UNCERTAIN
from penstock.data.grid import LATE, PRESENT, Cells
from penstock.data.plant import Tag
from penstock.data.quality import Block, Flag, Look, Rules, assess, assess_last

NAN = float("nan")
MINUTE = ws.PERIOD_NS


def judged(tag: Tag, values: list[float | None], **status: int) -> tuple[list[float], list[Flag]]:
    """One column from row 0 on; None: no reading. `status` marks rows: ``r3=BAD``."""
    cells = Cells.empty(0, len(values), 1, tag.dtype)
    for i, value in enumerate(values):
        if value is not None:
            cells.values[i, 0] = value
            cells.quality[i, 0] = PRESENT | status.get(f"r{i}", 0)
    block = assess(cells, Rules.of([tag], MINUTE))
    assert block.values.dtype == np.float32
    assert block.flags.dtype == np.uint16
    return [float(v) for v in block.values[:, 0]], [Flag(int(f)) for f in block.flags[:, 0]]


def test_range_is_inclusive_in_the_tags_own_precision() -> None:
    values, flags = judged(Tag(name="A", range=(-1, 0.1)), [0.1, 0.2, -1, -1.01])
    np.testing.assert_array_equal(values, np.float32([0.1, NAN, -1, NAN]))
    assert flags == [0, Flag.RANGE | Flag.BAD, 0, Flag.RANGE | Flag.BAD]


def test_source_status() -> None:
    values, flags = judged(Tag(name="A"), [1, 2, NAN, 4, np.inf], r0=UNCERTAIN, r1=BAD, r3=LATE)
    np.testing.assert_array_equal(values, [1, NAN, NAN, 4, NAN])
    bad = Flag.SOURCE_BAD | Flag.BAD
    assert flags == [0, bad, bad, Flag.LATE, bad]


def test_a_gap_is_carried_then_substituted() -> None:
    values, flags = judged(Tag(name="A", max_gap_ns=2 * MINUTE, substitute=7), [None, 1, None, None, None, 2])
    np.testing.assert_array_equal(values, [7, 1, 1, 1, 7, 2])
    gone, carried = Flag.MISSING | Flag.SUBSTITUTED, Flag.MISSING | Flag.CARRIED
    assert flags == [gone, 0, carried, carried, gone, 0]


def test_a_jump_is_bad_on_its_way_up_and_down() -> None:
    _, flags = judged(Tag(name="A", rate=1 / 60), [1, 1.5, 9, 1.5, 1.5, None, 9])
    jump = Flag.RATE | Flag.BAD
    assert flags == [0, 0, jump, jump, 0, Flag.MISSING | Flag.BAD, 0]


def test_the_rate_counts_the_time_between_readings() -> None:
    tag = Tag(name="A", rate=1 / 60)
    cells = Cells.empty(0, 2, 1)
    cells.values[:, 0] = 0, 1.4
    cells.quality[:] = PRESENT
    cells.offset[:, 0] = 0, 1 << 31
    assert not assess(cells, Rules.of([tag], MINUTE)).flags.any()
    cells.offset[:, 0] = 1 << 31, 0  # half a minute apart: still counted as a minute
    assert assess(cells, Rules.of([tag], MINUTE)).flags[1, 0] == Flag.RATE | Flag.BAD


def test_a_stuck_sensor_is_found_through_dropped_messages() -> None:
    _, flags = judged(Tag(name="A", flat_after_ns=3 * MINUTE), [5, 5, None, 5, 5, 6, 6, 6, 6])
    flat = Flag.FLAT | Flag.BAD
    assert flags == [0, 0, Flag.MISSING | Flag.BAD, flat, flat, 0, 0, 0, flat]


def test_silence_of_an_on_change_tag_means_no_change_until_its_heartbeat() -> None:
    tag = Tag(name="A", heartbeat_ns=2 * MINUTE, max_gap_ns=3 * MINUTE)
    values, flags = judged(tag, [4, None, None, None, None, 5, 6, None], r6=BAD)
    np.testing.assert_array_equal(values, [4, 4, 4, 4, NAN, 5, 5, 5])
    held, stale = Flag.MISSING | Flag.HELD, Flag.MISSING | Flag.STALE
    carried = Flag.MISSING | Flag.CARRIED
    bad = Flag.SOURCE_BAD | Flag.CARRIED
    assert flags == [0, held, held, stale | Flag.CARRIED, stale | Flag.BAD, 0, bad, carried]


def test_a_state_holds_for_its_gap() -> None:
    values, flags = judged(Tag(name="A", kind="state", max_gap_ns=MINUTE), [1, None, None])
    np.testing.assert_array_equal(values, [1, 1, NAN])
    assert flags == [0, Flag.MISSING | Flag.HELD, Flag.MISSING | Flag.BAD]


def test_a_counter_is_its_difference_in_float64() -> None:
    tag = Tag(name="A", kind="counter", dtype="float64", max_gap_ns=2 * MINUTE)
    values, flags = judged(tag, [1e12, 1e12 + 3, None, 1e12 + 4, 5, 6])
    np.testing.assert_array_equal(values, [NAN, 3, NAN, 1, NAN, 1])
    assert flags == [Flag.BAD, 0, Flag.MISSING | Flag.BAD, 0, Flag.BAD, 0]


def test_a_silent_on_change_counter_has_not_counted() -> None:
    values, flags = judged(Tag(name="A", kind="counter", heartbeat_ns=2 * MINUTE), [10, 12, None, 15])
    np.testing.assert_array_equal(values, [NAN, 2, 0, 3])
    assert flags[2] == Flag.MISSING | Flag.HELD


def test_a_value_too_large_for_float32_is_withheld() -> None:
    values, flags = judged(Tag(name="A", dtype="float64"), [1e300, 1])
    np.testing.assert_array_equal(values, [NAN, 1])
    assert flags == [Flag.SOURCE_BAD | Flag.BAD, 0]


def test_float32_tags_in_float64_cells_get_the_same_bits() -> None:
    tag = Tag(name="A", range=(0, 0.1), rate=0.01 / 60, flat_after_ns=2 * MINUTE)
    cells = Cells.empty(0, 40, 1)
    cells.values[:, 0] = np.random.default_rng(3).choice(np.float32([0.1, 0.09, 0.2, 0.0]), 40)
    cells.quality[:] = PRESENT
    wide = Cells(first=0, values=cells.values.astype(np.float64), quality=cells.quality, offset=cells.offset)
    same(assess(cells, Rules.of([tag], MINUTE)), assess(wide, Rules.of([tag], MINUTE)))


def test_a_joined_tag_is_at_the_ticks_what_its_readings_say() -> None:
    tag = Tag(name="A", join="linear", join_delay_ns=2 * MINUTE, range=(0, 100), max_gap_ns=MINUTE)
    cells = Cells.empty(0, 9, 1)
    for row, value in ((1, 10), (3, 500), (4, 40), (8, 80)):  # half a minute into their cells; 500 cannot be
        cells.values[row, 0], cells.quality[row, 0], cells.offset[row, 0] = value, PRESENT, 1 << 31
    block = assess(cells, Rules.of([tag], MINUTE))
    np.testing.assert_array_equal(block.values[:, 0], np.float32([NAN, NAN, 15, 25, 25, NAN, 55, 55, NAN]))
    gone, carried = Flag.MISSING | Flag.BAD, Flag.MISSING | Flag.CARRIED
    assert [Flag(int(f)) for f in block.flags[:, 0]] == [gone, gone, 0, Flag.RANGE, carried, gone, 0, carried, gone]


def test_no_rows_and_no_tags() -> None:
    assert assess(Cells.empty(3, 0, 1), Rules.of([Tag(name="A", flat_after_ns=1, rate=1.0)], MINUTE)).last == 3
    assert Rules.of([], MINUTE).reach == 0
    assert assess(Cells.empty(0, 4, 0), Rules.of([], MINUTE)).values.shape == (4, 0)


def test_reach_adds_up_what_chains() -> None:
    tag = Tag(name="A", flat_after_ns=4 * MINUTE, max_gap_ns=3 * MINUTE)
    assert Rules.of([tag], MINUTE).reach == 4 + 3 + 3
    assert Rules.of([Tag(name="B", rate=1.0), tag], MINUTE).reach == 10
    assert Rules.of([Tag(name="B", rate=1.0, max_gap_ns=2 * MINUTE)], MINUTE).reach == 3
    assert Rules.of([Tag(name="C", kind="counter")], MINUTE).reach == 1
    joined = Rules.of([Tag(name="D", join="nearest", join_delay_ns=3 * MINUTE, rate=1.0, max_gap_ns=MINUTE)], MINUTE)
    assert (joined.reach, joined.wait) == (1 + 3 + 1, 3)
    assert (joined.as_read().reach, joined.as_read().wait) == (2, 0)


def same(a: Block, b: Block) -> None:
    assert (a.first, a.last, a.tags) == (b.first, b.last, b.tags)
    assert a.values.tobytes() == b.values.tobytes()
    assert a.flags.tobytes() == b.flags.tobytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_slow_model(data: st.DataObject) -> None:
    tag = data.draw(ws.tags("A"))
    cells = data.draw(ws.cells(40, [tag.dtype]))
    block = assess(cells, Rules.of([tag], MINUTE))
    values, flags = window_model.column(cells, 0, tag, MINUTE)
    np.testing.assert_array_equal(block.flags[:, 0], flags)
    np.testing.assert_array_equal(block.values[:, 0], np.float32(values))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_block_that_begins_reach_earlier_gives_the_same_bits(data: st.DataObject) -> None:
    tags = [data.draw(ws.tags(name)) for name in "ABC"]
    cells = data.draw(ws.cells(60, [t.dtype for t in tags]))
    rules = Rules.of(tags, MINUTE)
    whole = assess(cells, rules)
    wanted = cells.first + data.draw(st.integers(min(rules.reach, 59), 59))
    begin = max(cells.first, wanted - rules.reach)
    part = assess(cells.rows(begin, cells.last), rules)
    same(part.rows(wanted, cells.last), whole.rows(wanted, cells.last))
    end = data.draw(st.integers(wanted, cells.last))
    known = end - rules.wait
    if known >= wanted:
        same(assess(cells.rows(begin, end), rules).rows(wanted, known), whole.rows(wanted, known))


@pytest.mark.parametrize(
    "rule", [{"flat_after_ns": 4 * MINUTE, "max_gap_ns": 2 * MINUTE}, {"rate": 0.1, "max_gap_ns": MINUTE}]
)
def test_reach_is_not_too_generous(rule: dict[str, float]) -> None:
    """With one row less than `reach`, some readings give another answer."""
    tag = Tag(name="A", **rule)  # type: ignore[arg-type]
    rules = Rules.of([tag], MINUTE)
    random = np.random.default_rng(0)
    for _ in range(3000):
        cells = Cells.empty(0, rules.reach + 1, 1)
        cells.values[:, 0] = random.choice([1.0, 1.0, 1.0, 9.0], len(cells.values))
        cells.quality[:, 0] = np.where(random.random(len(cells.values)) < 0.5, PRESENT, 0)
        cells.values[cells.quality == 0] = np.nan
        short = assess(cells.rows(1, cells.last), rules).flags[-1, 0]
        if short != assess(cells, rules).flags[-1, 0]:
            return
    pytest.fail("the first row of the reach never mattered")


def look_into(cells: Cells, looked: list[tuple[int, int]]) -> Look:
    """What a ring gives; `looked` gets (first tick, columns) of each look."""

    def look(begin: int, columns: NDArray[np.intp]) -> Cells:
        rows = cells.rows(begin, cells.last)
        looked.append((begin, len(columns)))
        parts = {name: getattr(rows, name)[:, columns] for name in ("values", "quality", "offset")}
        return Cells(first=begin, **parts)

    return look


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_the_last_rows_looked_at_from_as_near_as_may_be_have_the_same_bits(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    tags = [data.draw(ws.tags(name, dtype)) for name in "ABC"]
    rules = Rules.of(tags, MINUTE)
    wanted = data.draw(st.integers(1, 20))
    cells = data.draw(ws.cells(rules.reach + wanted + rules.wait, [dtype] * 3))
    last = cells.last - rules.wait
    first, looks = last - wanted, data.draw(st.sampled_from([(0, 2), (1, 2), (2, 3), (16, 8)]))
    last_rows = assess_last(look_into(cells, []), rules, first, last, looks=looks)
    same(last_rows, assess(cells, rules).rows(first, last))


def test_only_the_columns_in_doubt_are_looked_at_from_further_back() -> None:
    tags = [Tag(name=name, flat_after_ns=1000 * MINUTE, max_gap_ns=10 * MINUTE) for name in "ABC"]
    rules = Rules.of(tags, MINUTE)
    cells = Cells.empty(0, rules.reach + 1, 3)
    cells.values[:] = np.arange(rules.reach + 1)[:, None]
    cells.values[:, 1] = 5  # stuck: only the whole reach can tell for how long
    cells.values[-100:, 2] = 5  # stood still for a while
    cells.quality[:] = PRESENT
    looked: list[tuple[int, int]] = []
    block = assess_last(look_into(cells, looked), rules, rules.reach, cells.last)
    assert [Flag(int(f)) for f in block.flags[0]] == [0, Flag.FLAT | Flag.BAD, 0]
    assert looked == [(rules.reach - 16, 3), (rules.reach - 128, 2), (0, 1)]


def test_no_tags_have_no_last_rows_to_look_at() -> None:
    assert assess_last(look_into(Cells.empty(0, 9, 0), []), Rules.of([], MINUTE), 4, 9).values.shape == (5, 0)
