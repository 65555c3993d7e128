"""The published protocol: turns, what is known when, the rows that count; and that nobody sees what comes later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.batch import field
from penstock.batch.choosing import _added
from penstock.batch.field import Rows, Say, answers, ridge
from penstock.batch.protocol import SETTINGS, Setting, common, corrected, figures, quarters, turns
from penstock.data.plant import HOUR_NS, CorrectSpec

Float = NDArray[np.float64]
BOUNDS = range(63, 119, 13)
"""Rows at which a turn begins: there a fit is nearest to what it must not know."""


@given(first=st.integers(-50, 50), count=st.integers(0, 100), every=st.integers(1, 40))
def test_every_tick_is_said_in_one_turn(first: int, count: int, every: int) -> None:
    found = [tick for turn in turns(first, first + count, every) for tick in range(turn.first, turn.last)]
    assert found == list(range(first, first + count))
    assert all(turn.last - turn.first <= every for turn in turns(first, first + count, every))


def rows_of(seed: int, n: int, horizon: int, *, past: bool) -> Rows:
    """Two inputs and a target that follows them; some rows have no window, some no truth, ticks have a gap."""
    rng = np.random.default_rng(seed)
    ticks = np.arange(n, dtype=np.int64) + np.where(np.arange(n) > n // 3, 7, 0)
    x = rng.normal(size=(n, 2)).cumsum(axis=0)
    y = x @ [1.0, -2.0] + rng.normal(size=n)
    y[rng.random(n) < 0.1] = np.nan
    return known_rows(ticks, x, y, horizon, past=past, silent=rng.random(n) < 0.1)


def known_rows(
    ticks: NDArray[np.int64], x: Float, y: Float, horizon: int, *, past: bool, silent: NDArray[np.bool_]
) -> Rows:
    """What peers know at each tick: with a past, the target of the tick before (at the tick itself, if it is ahead)."""
    at = {int(tick): i for i, tick in enumerate(ticks)}
    newest = np.array([y[at[t]] if (t := int(tick) - 1 + horizon) in at and t <= tick else np.nan for tick in ticks])
    truth = np.array([y[at[t]] if (t := int(tick) + horizon) in at else np.nan for tick in ticks])
    z = np.concatenate([x, newest[:, None]], axis=1) if past else x.copy()
    z[silent] = np.nan
    return Rows(ticks=ticks, z=z, base=newest if past else np.zeros(len(ticks)), truth=truth, newest=newest)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda s: s.name)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.sampled_from(BOUNDS) | st.integers(60, 119), data=st.data())
def test_a_truth_changes_nothing_that_was_said_before_it_was_known(
    setting: Setting, seed: int, cut: int, data: st.DataObject
) -> None:
    """y at tick 'cut' and behind is replaced: what is said at ticks up to 'cut' stays, to the bit."""
    rows = rows_of(seed, 120, setting.horizon, past=setting.past_target)
    begin = int(rows.ticks[50])
    walk = turns(begin, int(rows.ticks[-1]) + 1, 13)
    lag = 1 - setting.horizon
    before = answers(rows, setting, walk, ridge, setting.horizon, lag)
    late = rows.ticks + setting.horizon >= rows.ticks[cut]  # rows whose truth is changed
    noise = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=len(late)) * 100
    newest = np.where(rows.ticks - lag >= rows.ticks[cut], rows.newest + noise, rows.newest)
    z = rows.z.copy()
    if setting.past_target:
        z[:, -1] = np.where(np.isnan(z[:, -1]), np.nan, newest)
    changed = Rows(
        ticks=rows.ticks, z=z, base=newest if setting.past_target else rows.base,
        truth=np.where(late, rows.truth + noise, rows.truth), newest=newest,
    )  # fmt: skip
    after = answers(changed, setting, walk, ridge, setting.horizon, lag)
    safe = rows.ticks - lag < rows.ticks[cut]  # ticks at which nothing of the change can be known
    assert np.isfinite(before[safe]).any()
    np.testing.assert_array_equal(before[safe], after[safe])


@pytest.mark.parametrize("name", ["retrain", "live"])
def test_what_is_known_does_count(name: str) -> None:
    """The property above would hold of a method that learns nothing."""
    rows = rows_of(3, 120, 0, past=False)
    walk = turns(int(rows.ticks[50]), int(rows.ticks[-1]) + 1, 13)
    before = answers(rows, SETTINGS[name], walk, ridge, 0, 1)
    shifted = Rows(ticks=rows.ticks, z=rows.z, base=rows.base, truth=rows.truth + 5, newest=rows.newest)
    after = answers(shifted, SETTINGS[name], walk, ridge, 0, 1)
    said = np.isfinite(before)
    assert (np.abs(before[said] - after[said]) > 1).all()


def test_a_peer_is_refitted_on_its_newest_rows_and_once_where_it_is_not() -> None:
    rows = rows_of(1, 1000, 0, past=False)
    fits: list[int] = []

    def counting(z: Float, wanted: Float) -> Say:
        fits.append(len(z))
        return ridge(z, wanted)

    walk = turns(int(rows.ticks[900]), int(rows.ticks[-1]) + 1, 40)
    answers(rows, SETTINGS["static"], walk, counting, 0, 1)
    good = np.isfinite(rows.z).all(axis=1) & np.isfinite(rows.truth)
    assert fits == [int(good[:900].sum())]
    fits.clear()
    answers(rows, SETTINGS["retrain"], walk, counting, 0, 1)
    assert fits[1:] == [field.PEER_ROWS] * (len(walk) - 1)
    assert fits[0] == min(field.PEER_ROWS, int(good[:900].sum()))


@settings(deadline=None)
@given(seed=st.integers(0, 1000), lag=st.integers(1, 4), most=st.integers(1, 6))
def test_a_correction_is_the_mean_of_the_newest_known_residuals(seed: int, lag: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    ticks = np.cumsum(rng.integers(1, 4, n)).astype(np.int64)
    truth, said = rng.normal(size=n), rng.normal(size=n)
    truth[rng.random(n) < 0.2] = np.nan
    said[rng.random(n) < 0.2] = np.nan
    slow = []
    for i in range(n):
        known = [truth[j] - said[j] for j in range(n) if ticks[j] <= ticks[i] - lag]
        known = [r for r in known if np.isfinite(r)][-most:]
        slow.append(said[i] + (np.mean(known) if known else 0.0))
    np.testing.assert_allclose(corrected(said, truth, ticks, lag, most), slow, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), over=st.integers(1, 6))
def test_a_tried_correction_is_the_streams_own(seed: int, over: int) -> None:
    """A bias over so many hours, slowly: the mean of the residuals of the hours before."""
    rng = np.random.default_rng(seed)
    residuals = rng.normal(size=30).astype(np.float32)
    ticks = np.arange(30, dtype=np.int64)
    said = rng.normal(size=30).astype(np.float32)
    found = _added(CorrectSpec(by="bias", over_ns=over * HOUR_NS), HOUR_NS, ticks, said + residuals, said)
    slow = [np.mean(residuals[max(0, i - over) : i]) if i else 0.0 for i in range(30)]
    np.testing.assert_allclose(found, slow, atol=1e-6)


def test_rows_count_where_everybody_has_an_answer() -> None:
    nan = np.nan
    truth = np.array([1.0, nan, 3.0, 4.0, 5.0])
    said = {"a": np.array([1.0, 2.0, nan, 4.0, 7.0]), "b": np.array([1.0, 2.0, 3.0, 4.0, 5.0])}
    at = common(truth, said)
    assert at.tolist() == [True, False, False, True, True]
    found = figures(truth[at], said["a"][at])
    assert found["mae"] == pytest.approx(2 / 3)
    assert found["bias"] == pytest.approx(2 / 3)
    assert found["rmse"] == pytest.approx((4 / 3) ** 0.5)
    assert found["r2"] == pytest.approx(1 - 4 / (truth[at] - truth[at].mean()).__pow__(2).sum())


def test_coverage_is_told_by_quarter() -> None:
    truth = np.array([0.0, 0.0, 0.0, 9.0, 0.0, 0.0, np.nan, 0.0])
    low, high = np.full(8, -1.0), np.full(8, 1.0)
    low[5] = np.nan
    assert quarters(truth, low, high) == [1.0, 0.5, 1.0, 1.0]
    assert np.isnan(quarters(truth, low * np.nan, high)).all()
