"""Corrections and intervals as arithmetic: coverage while a plant drifts, rows that stand alone, states that go on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.data.adjusting import Adjuster, Learned, Output
from penstock.data.correction import FEWEST, SPREAD, STEEPEST
from penstock.data.plant import CorrectSpec, LiveSpec
from penstock.data.views.adjusted import COLUMNS

PERIOD = 10**9
BIAS = CorrectSpec(by="bias", over_ns=24 * PERIOD)
EWM = CorrectSpec(by="ewm", over_ns=24 * PERIOD)


def output(live: LiveSpec, *, column: int = 0, every: int = 1, wait: int = 1) -> Output:
    return Output(model="nox", column=column, every=every, wait=wait, live=live)


def follow(adjuster: Adjuster, first: int, raw: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float32]:
    """[ticks, 4, outputs]: each tick said, its truths known at the next."""
    every, told = np.arange(raw.shape[1]), []
    for tick, values in enumerate(raw, first):
        if tick:
            adjuster.learn(Learned(every, np.full(len(every), tick - 1), truth[tick - 1]))
        said = adjuster.say(tick, every, values, np.ones(len(every), np.int32))
        told.append([getattr(said, name) for name in COLUMNS])
    return np.array(told, np.float32)


def drifting(ticks: int, outputs: int, seed: int, jump: float = 10.0) -> NDArray[np.float32]:
    """Truths of which the model knows nothing: slow drift, a jump, and noise that grows four times as wild."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(rng.normal(0, 0.05, (ticks, outputs)), axis=0) + jump * (np.arange(ticks) > ticks // 2)[:, None]
    wild = np.linspace(1.0, 4.0, ticks)[:, None]
    return (level + wild * rng.standard_t(4, (ticks, outputs))).astype(np.float32)


@pytest.mark.parametrize(("share", "correct"), [(0.8, BIAS), (0.9, None), (0.95, EWM)])
def test_the_interval_holds_its_share_of_a_plant_that_drifts(share: float, correct: CorrectSpec | None) -> None:
    truth = drifting(2000, 3, 5)
    adjuster = Adjuster([output(LiveSpec(correct=correct, interval=share))] * 3, PERIOD)
    told = follow(adjuster, 0, np.zeros_like(truth), truth)
    low, high = told[:, 1], told[:, 2]
    inside = (low <= truth) & (truth <= high)
    assert not np.isfinite(low[: round(1 / (1 - share)) - 1]).any()  # too little is known of how it errs
    for third in np.array_split(np.arange(50, 2000), 3):
        assert np.all(np.abs(inside[third].mean(axis=0) - share) < 0.025)
    judged = np.isfinite(low[:-1])
    assert adjuster.intervals.judged.tolist() == judged.sum(axis=0).tolist()
    assert adjuster.intervals.inside.tolist() == (inside[:-1] & judged).sum(axis=0).tolist()
    newest = [inside[:-1, k][judged[:, k]][-256:].mean() for k in range(3)]
    np.testing.assert_allclose(adjuster.intervals.recent(), newest)


def test_a_correction_halves_the_error_of_a_model_that_has_drifted() -> None:
    truth = drifting(1000, 2, 6) + np.float32(30)
    raw = np.zeros_like(truth)
    for correct in (BIAS, EWM):
        told = follow(Adjuster([output(LiveSpec(correct=correct))] * 2, PERIOD), 0, raw, truth)
        assert np.all(np.abs(truth - told[:, 0])[100:].mean(axis=0) < 0.2 * np.abs(truth)[100:].mean(axis=0))
        assert np.isnan(told[:, 1:]).all()


def test_chances_are_borne_out() -> None:
    rng, swings = np.random.default_rng(7), 6 * np.sin(np.arange(1500) / 7)[:, None] + np.zeros((1, 3))
    truth = (swings + rng.normal(1, 3, swings.shape)).astype(np.float32)
    live = LiveSpec(correct=BIAS, limits=(3.0, 3.0, 3.0))
    adjuster = Adjuster([output(live, column=c) for c in range(3)], PERIOD)
    chance = follow(adjuster, 0, swings.astype(np.float32), truth)[:, 3]
    known = np.isfinite(chance)
    assert not known[:9].any()
    assert known[10:].all()
    crossed = truth[known] > 3.0
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        said = (chance[known] >= low) & (chance[known] < high)
        assert said.sum() > 300
        assert abs(crossed[said].mean() - chance[known][said].mean()) < 0.08


@given(
    seed=st.integers(0, 2**32 - 1), slope=st.floats(-2, 3), noise=st.floats(0.01, 30), over=st.integers(2, 80),
    gap=st.floats(0, 0.5),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_slope_is_the_line_through_the_newest_pairs_or_their_mean(
    seed: int, slope: float, noise: float, over: int, gap: float
) -> None:
    """Beside the normal equations of truth = a + b raw, solved anew at every tick."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(50, 4, 120).astype(np.float32)
    truth = (3 + slope * raw + rng.normal(0, noise, 120)).astype(np.float32)
    truth[rng.random(120) < gap] = np.nan
    live = LiveSpec(correct=CorrectSpec(by="slope", over_ns=over * PERIOD))
    told = follow(Adjuster([output(live)], PERIOD), 0, raw[:, None], truth[:, None])[:, 0, 0]
    lines = 0
    for tick in range(2, 120):
        known = np.flatnonzero(np.isfinite(truth[:tick]))[-over:]
        near = known[known > known[-1] - over] if len(known) else known
        if not len(near):
            assert told[tick] == 0
            continue
        x, e = raw[near].astype(np.float64), (truth[near].astype(np.float64) - raw[near]).astype(np.float32)
        expected = float(np.mean(e, dtype=np.float64))
        strict = abs(np.std(x) - SPREAD * np.std(e)) > 1e-6 * np.std(x)
        if len(near) >= FEWEST and np.std(x) >= SPREAD * np.std(e) and strict:
            b = np.polyfit(x - x.mean(), truth[near].astype(np.float64), 1)[0] - 1
            inside = np.clip(float(raw[tick]), x.min(), x.max())
            expected += float(np.clip(b, -STEEPEST, STEEPEST)) * (inside - x.mean())
            lines += 1
        if strict:
            assert told[tick] == pytest.approx(expected, rel=2e-5, abs=2e-4)
    assert lines > 0 or over < FEWEST or noise > 5 or gap > 0.2 or abs(slope - 1) > 1.5


def test_a_slope_mends_what_a_bias_cannot() -> None:
    """A model that says only seven tenths of each swing."""
    truth = (50 + 10 * np.sin(np.arange(800) / 9) + np.random.default_rng(2).normal(0, 0.5, 800)).astype(np.float32)
    raw = (0.7 * (truth - 50) + 50).astype(np.float32)
    off = {}
    for by in ("bias", "slope"):
        live = LiveSpec(correct=CorrectSpec(by=by, over_ns=200 * PERIOD))  # type: ignore[arg-type]
        told = follow(Adjuster([output(live)], PERIOD), 0, raw[:, None], truth[:, None])[:, 0, 0]
        off[by] = float(np.abs(truth - raw - told)[300:].mean())
    assert off["bias"] > 1.5
    assert off["slope"] < 0.1


MIXED = [
    LiveSpec(correct=BIAS, interval=0.9),
    LiveSpec(correct=CorrectSpec(by="bias", over_ns=700 * PERIOD), interval=0.5, limits=(1.0,)),
    LiveSpec(correct=EWM, interval=0.99),
    LiveSpec(correct=CorrectSpec(by="slope", over_ns=200 * PERIOD), limits=(0.0,)),
    LiveSpec(correct=CorrectSpec(by="bias", over_ns=1), interval=0.8),
]


def test_a_row_among_many_has_the_bits_that_it_has_alone() -> None:
    rng = np.random.default_rng(3)
    many = 40
    truth, raw = drifting(500, many, 8), rng.normal(0, 9, (500, many)).astype(np.float32)
    raw *= (10.0 ** rng.uniform(-9, 9, raw.shape)).astype(np.float32)  # so that a sum depends on its order
    raw[rng.random(raw.shape) < 0.05] = np.nan
    truth[rng.random(raw.shape) < 0.05] = np.nan
    lives = [MIXED[i % len(MIXED)] for i in range(many)]
    together = follow(Adjuster([output(live) for live in lives], PERIOD), 0, raw, truth)
    for k, live in enumerate(lives[:5]):
        alone = follow(Adjuster([output(live)], PERIOD), 0, raw[:, [k]], truth[:, [k]])
        assert together[:, :, [k]].tobytes() == alone.tobytes()


def test_a_state_goes_on_among_other_outputs() -> None:
    truth, raw = drifting(600, 5, 9), np.random.default_rng(4).normal(0, 9, (600, 5)).astype(np.float32)
    models = [Output(model=f"m{i}", column=0, every=1, wait=1, live=live) for i, live in enumerate(MIXED)]
    whole = follow(Adjuster(models, PERIOD), 0, raw, truth)
    first = Adjuster(models, PERIOD)
    follow(first, 0, raw[:300], truth)
    state = first.snapshot()
    order = [3, 0, 2]  # the one with the most room is gone, so the rings are narrower
    again = Adjuster([models[i] for i in order], PERIOD)
    again.resume(state)
    every = np.arange(3)
    said = first.say(299, np.arange(5), raw[299], np.ones(5, np.int32))  # as it would be remembered from the view
    part = type(said)(**{name: getattr(said, name)[order] for name in COLUMNS})
    again.remember(np.full(3, 299), every, raw[299, order], np.ones(3, np.int32), part)
    rest = follow(again, 300, raw[300:][:, order], truth[:, order])
    assert rest.tobytes() == np.ascontiguousarray(whole[300:][:, :, order]).tobytes()
    other = Adjuster([Output(model="m0", column=0, every=1, wait=1, live=LiveSpec(correct=EWM, interval=0.9))], PERIOD)
    other.resume(state)
    assert (other.correction.bias[0], other.correction.count[0]) == (0.0, 0)  # made another way: worth nothing
    assert other.intervals.count[0] == first.intervals.count[0]


def test_errors_that_grew_for_long_do_not_widen_the_interval_for_ever() -> None:
    truth = np.concatenate([np.arange(1500.0) ** 1.5, np.random.default_rng(1).normal(0, 1, 1000)])[:, None]
    adjuster = Adjuster([output(LiveSpec(interval=0.9))], PERIOD)
    told = follow(adjuster, 0, np.zeros_like(truth, np.float32), truth.astype(np.float32))
    assert (told[1400, 2] - told[1400, 1])[0] > 1e4
    assert 2 < (told[-1, 2] - told[-1, 1])[0] < 4.6  # 3.3 holds nine tenths; the most of 256 is near 6
