"""Which part of the history a model is trained on: what plant.toml's `retrain` comes to, tick by tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import waterworks
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.batch import training
from penstock.batch.history import touches
from penstock.batch.plan import History, Job, Wish, judged_ticks
from penstock.data.plant import HOUR_NS, RetrainSpec
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason

TICKS = 1500


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return waterworks.archive(tmp_path_factory.mktemp("spans") / "archive", TICKS)


def job(history: History, retrain: RetrainSpec, wish: Wish | None = None) -> Job:
    (found,) = waterworks.jobs(history, waterworks.model("flow", retrain=retrain), wish=wish)
    return found


def span(history: History, retrain: RetrainSpec, wish: Wish | None = None) -> tuple[int, int]:
    """Counted from the history's first tick."""
    found = job(history, retrain, wish)
    return found.first - history.first, found.last - history.first


def at(history: History, tick: int) -> int:
    return history.grid.time(history.first + tick)


def test_fixed_expanding_and_newest(history: History) -> None:
    fixed = RetrainSpec(start_ns=at(history, 100), end_ns=at(history, 700))
    assert span(history, fixed) == (100, 700)
    assert span(history, RetrainSpec(start_ns=at(history, 100))) == (100, TICKS)
    newest = RetrainSpec(span_ns=300 * HOUR_NS)
    assert span(history, newest) == (TICKS - 300, TICKS)
    both = RetrainSpec(span_ns=300 * HOUR_NS, start_ns=at(history, 1400))
    assert span(history, both) == (1400, TICKS), "nothing before the start"
    assert span(history, fixed, Wish(start_ns=at(history, 5), end_ns=at(history, 900))) == (5, 900), (
        "the command's word"
    )
    shorter = replace(history, last=history.first + 800)
    assert span(shorter, newest) == (500, 800), "it moves with the newest reading"
    assert span(shorter, fixed) == (100, 700), "and this does not"


def test_a_retrain_keeps_back_what_judges(history: History) -> None:
    held = Wish(held_out=True)
    assert span(history, RetrainSpec(judge_ns=200 * HOUR_NS), held) == (0, 1300)
    assert span(history, RetrainSpec(judge_ns=200 * HOUR_NS, span_ns=300 * HOUR_NS), held) == (1000, 1300)
    assert span(history, RetrainSpec(), held) == (0, TICKS - 225), "15 %"
    assert span(history, RetrainSpec(span_ns=400 * HOUR_NS), held) == (TICKS - 460, TICKS - 60)
    assert span(history, RetrainSpec(end_ns=at(history, 700)), held) == (0, 700)
    assert span(history, RetrainSpec(judge_ns=200 * HOUR_NS)) == (0, TICKS), "a training by hand keeps nothing back"
    assert judged_ticks(RetrainSpec(judge_ns=1), history.grid, 0, 9) == 1


def counted(found: Job) -> np.ndarray:
    """Ticks of the windows that the job trains and validates on, those between the two parts included."""
    wanted, past = training.read(found)
    good = training.countable(wanted, past)
    ends = past.ends[good]
    return ends if wanted.rows is None else ends[-wanted.rows :]


@pytest.mark.parametrize("rows", [100, 500, 5000])
def test_the_newest_rows_are_good_ones_however_far_back(history: History, rows: int) -> None:
    whole = job(history, RetrainSpec())
    wanted = job(history, RetrainSpec(rows=rows))
    every = counted(whole)
    chosen = counted(wanted)
    np.testing.assert_array_equal(chosen, every[-rows:])
    used, past = training.read(wanted)
    assert used.first == chosen[0]
    assert len(past.ends) <= max(TICKS if rows > 300 else 4 * rows, rows), "no more was read than needed"
    sample = training.sampled(used, past)
    assert set(sample.ends[sample.train]) | set(sample.ends[sample.validation]) <= set(chosen)
    assert sample.ends[sample.validation[-1]] == chosen[-1]


def test_no_window_touches_what_is_left_out(history: History) -> None:
    marked = (at(history, 300), at(history, 340) + 1)  # the reading of tick 340 is in it
    found = job(history, RetrainSpec(leave_out=(marked,)))
    assert found.left_out == ((history.first + 300, history.first + 341),)
    left, all_of_it = set(counted(found)), set(counted(job(history, RetrainSpec())))
    first, last = found.left_out[0]
    gone = sorted(all_of_it - left)
    assert left < all_of_it
    assert all(first <= tick < last + found.spec.depth for tick in gone)
    assert {tick for tick in all_of_it if first <= tick < last} <= set(gone)
    draft = training.train(replace(found, lstm=replace(found.lstm, epochs=1)))
    trained = draft.card["trained"]
    assert trained["left_out"] == [[first, last]]
    assert trained["n_train"] + trained["n_validation"] <= len(left)


@given(
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=4),
    horizon=st.integers(0, 3),
    window=st.integers(1, 6),
)
@settings(max_examples=80, deadline=None)
def test_touching_is_what_a_look_at_every_tick_says(
    spans: Sequence[tuple[int, int]], horizon: int, window: int
) -> None:
    model = waterworks.model("flow", window=window, horizon_ns=horizon * HOUR_NS)
    spec = WindowSpec.of(model, waterworks.plant(flow=model))
    marked = [(begin, begin + length) for begin, length in spans]
    ends = np.arange(80)
    slow = [
        any(begin <= tick < end for tick in range(t - spec.depth + 1, t + spec.horizon + 1) for begin, end in marked)
        for t in ends
    ]
    np.testing.assert_array_equal(touches(spec, ends, marked), slow)


def test_a_champion_of_another_shape_is_no_warm_start(history: History, tmp_path: Path) -> None:
    from penstock.batch.plan import Warm

    first = training.train(job(history, RetrainSpec()))
    cold = job(history, RetrainSpec())
    warm = Warm(version=7, spec=cold.spec, keras=first.keras)
    same = training.train(replace(cold, warm=warm))
    assert same.card["trained"]["warm"] == 7
    assert same.card["fit"]["loss"] <= first.card["fit"]["loss"] * 1.2, "it begins where the other ended"
    wider = training.train(replace(cold, warm=warm, lstm=replace(cold.lstm, units=9, epochs=1)))
    assert wider.card["trained"]["warm"] is None
    fewer = waterworks.model("flow", inputs=("valve", "load"), lstm=replace(cold.lstm, epochs=1))
    (other,) = waterworks.jobs(history, fewer)
    assert training.train(replace(other, warm=warm)).card["trained"]["warm"] is None


def test_what_is_bad_was_never_counted(history: History) -> None:
    found, past = training.read(job(history, RetrainSpec()))
    good = training.countable(found, past)
    assert (past.windows.reason[good] == Reason.OK).all()
    assert past.usable[good].all()
