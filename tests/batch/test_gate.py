"""The gate: equal skill seldom passes, a better model does, and what is too little to tell says so."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.batch.gate import Bar, Judged, Rows, Verdict, judge, too_few
from penstock.batch.paired import paired
from penstock.batch.student import share_above

NULLS = 200
SCALE = np.array([3.0])


def remembering(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    """[n] an AR(1) of unit variance."""
    shocks = rng.normal(size=n + 300) * math.sqrt(1 - memory**2)
    out = np.zeros(n + 300)
    for t in range(1, n + 300):
        out[t] = memory * out[t - 1] + shocks[t]
    return out[300:]


def contest(seed: int, n: int, memory: float, sizes: tuple[float, float], **baselines: float) -> Judged:
    """Challenger and champion whose errors have these sizes, share an error of size 1 and remember."""
    rng = np.random.default_rng(seed)
    truth = 60 + 3 * remembering(rng, n, 0.99)
    common = remembering(rng, n, memory)

    def said(size: float) -> np.ndarray:
        return (truth + common + size * remembering(rng, n, memory))[:, None]

    challenger, champion = (said(size) for size in sizes)
    others = {name: said(size) for name, size in baselines.items()}
    return judge(Rows(truth=truth[:, None], challenger=challenger, champion=champion, baselines=others, scale=SCALE))


@pytest.mark.parametrize("memory", [0.0, 0.6, 0.9, 0.97])
def test_of_200_challengers_of_equal_skill_at_most_10_pass(memory: float) -> None:
    verdicts = [contest(seed, 900, memory, (1.0, 1.0)).verdict for seed in range(NULLS)]
    assert sum(v.passed for v in verdicts) <= 10
    if memory < 0.95:
        assert Verdict.TOO_FEW not in verdicts, "there is enough to tell: the level itself is what holds them off"


def test_a_test_that_took_rows_for_independent_would_let_many_more_pass() -> None:
    """That the trial above can fail: the same 200, judged by an ordinary paired t."""
    passed = 0
    for seed in range(NULLS):
        rng = np.random.default_rng(seed)
        a, b = (remembering(rng, 900, 0.9) ** 2 for _ in range(2))
        d = b - a
        passed += share_above(float(d.mean() / (d.std(ddof=1) / math.sqrt(len(d)))), len(d) - 1) <= Bar().level
    assert passed > 20


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_a_better_challenger_is_found(memory: float) -> None:
    verdicts = [contest(seed, 900, memory, (0.6, 1.4)).verdict for seed in range(20)]
    assert verdicts.count(Verdict.BETTER) >= 19


def test_the_verdict_says_by_how_much_and_goes_into_a_card() -> None:
    found = contest(3, 900, 0.5, (0.5, 1.5), ridge=1.5)
    assert found.verdict is Verdict.BETTER
    assert found.why.startswith("better than the champion, by ")
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (told["passed"], told["verdict"], set(told["against"])) == (True, "better", {"champion", "ridge"})
    champion = told["against"]["champion"]
    assert champion["n"] == 900
    assert 30 <= champion["effective"] <= 900
    assert f"{100 * champion['smaller']:.3g} % of squared error" in found.why
    # an error of 1 + 0.5^2 instead of 1 + 1.5^2
    assert champion["smaller"] == pytest.approx(1 - 1.25 / 3.25, abs=0.08)


def test_a_baseline_that_is_better_forbids_it_and_one_that_is_as_good_does_not() -> None:
    assert contest(1, 900, 0.5, (0.9, 1.6), ridge=0.2).verdict is Verdict.BEATEN
    assert "ridge is better" in contest(1, 900, 0.5, (0.9, 1.6), ridge=0.2).why
    assert contest(1, 900, 0.5, (0.9, 1.6), ridge=0.9, persistence=3.0).verdict is Verdict.BETTER
    assert contest(1, 900, 0.5, (1.6, 0.9), ridge=1.6).verdict is Verdict.NO_BETTER


def test_a_first_version_passes_unless_a_baseline_is_better() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(400, 1))
    near, far = (truth + size * rng.normal(size=(400, 1)) for size in (0.1, 0.5))

    def first(said: np.ndarray, ridge: np.ndarray, n: int = 400) -> Judged:
        return judge(
            Rows(truth=truth[:n], challenger=said[:n], champion=None, baselines={"ridge": ridge[:n]}, scale=SCALE)
        )

    assert first(near, far).verdict is Verdict.FIRST
    assert first(far, near).verdict is Verdict.BEATEN
    assert first(near, far, n=29).verdict is Verdict.TOO_FEW


def test_rows_that_all_say_the_same_are_not_enough() -> None:
    """900 rows whose difference of losses moves once: two independent ones at most."""
    truth = np.zeros((900, 1))
    champion = np.ones((900, 1))
    challenger = np.where(np.arange(900) < 450, 0.5, 1.4)[:, None]
    found = judge(Rows(truth=truth, challenger=challenger, champion=champion, baselines={}, scale=SCALE))
    assert found.verdict is Verdict.TOO_FEW
    assert "900 rows, worth " in found.why
    assert too_few(0).verdict is Verdict.TOO_FEW


def test_the_same_model_again_is_no_better() -> None:
    said = np.random.default_rng(0).normal(size=(300, 2))
    found = judge(Rows(truth=said * 0, challenger=said, champion=said, baselines={}, scale=np.ones(2)))
    assert found.verdict is Verdict.NO_BETTER
    assert json.dumps(found.to_json(), allow_nan=False)


def test_every_target_counts_in_its_own_scale() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 2)) * [1.0, 1000.0]
    small, large = rng.normal(size=(500, 1)), 100 * rng.normal(size=(500, 1))
    challenger = truth + np.hstack([0.1 * small, large])
    champion = truth + np.hstack([0.9 * small, large])
    rows = Rows(truth=truth, challenger=challenger, champion=champion, baselines={}, scale=np.array([1.0, 1000.0]))
    assert judge(rows).verdict is Verdict.BETTER


@given(st.integers(4, 60), st.integers(0, 2**32 - 1), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_the_figures_are_those_of_the_papers_word_for_word(n: int, seed: int, lags: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.gamma(2, size=(2, n))
    found = paired(a, b, lags)
    d = [float(y - x) for x, y in zip(a, b, strict=True)]
    mean = sum(d) / n
    cov = [sum((d[t] - mean) * (d[t - k] - mean) for t in range(k, n)) / n for k in range(n)]
    m = found.lags
    assert m >= min(lags, n - 2)
    long_run = cov[0] + 2 * sum((1 - k / (m + 1)) * cov[k] for k in range(1, m + 1))
    h = m + 1
    factor = max(1e-6, (n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert found.gain == pytest.approx(mean)
    assert found.statistic == pytest.approx(mean / math.sqrt(long_run / n) * math.sqrt(factor), rel=1e-6)
    assert found.effective == pytest.approx(min(n, n * cov[0] / long_run), rel=1e-6)
    mirrored = paired(b, a, lags)
    assert mirrored.p == pytest.approx(1 - found.p, abs=1e-9)


@pytest.mark.parametrize("freedom", [1.0, 2.5, 4.0, 18.75, 120.0, 5000.0])
@pytest.mark.parametrize("value", [-2.0, 0.0, 0.3, 2.05, 7.0])
def test_the_share_above_is_the_area_under_the_density(value: float, freedom: float) -> None:
    """By the midpoint rule in u = atan(t / sqrt(freedom)), where the density is a power of cos u."""
    low = math.atan(value / math.sqrt(freedom))
    edges = np.linspace(low, math.pi / 2, 400_001)
    middle = (edges[1:] + edges[:-1]) / 2
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    area = constant * float(np.sum(np.cos(middle) ** (freedom - 1)) * (edges[1] - edges[0]))
    assert share_above(value, freedom) == pytest.approx(area, rel=1e-6, abs=1e-12)


def test_known_shares() -> None:
    """Quantiles as tables print them."""
    for freedom, quantile, share in [(10, 1.812, 0.05), (10, 2.764, 0.01), (30, 2.042, 0.025), (1, 12.706, 0.025)]:
        assert share_above(quantile, freedom) == pytest.approx(share, rel=1e-3)


def tried(seed: int, memory: float, rows: int, live: int, sizes: tuple[float, float]) -> tuple[Judged, Judged]:
    """The gate's word on the newest history, and on what both then say live; what persists goes on across."""
    rng = np.random.default_rng(seed)
    n = rows + live
    truth = 60 + 3 * remembering(rng, n, 0.99)
    common = remembering(rng, n, memory)
    challenger, champion = ((truth + common + size * remembering(rng, n, memory))[:, None] for size in sizes)

    def judged(at: slice) -> Judged:
        pairs = {"challenger": challenger[at], "champion": champion[at]}
        return judge(Rows(truth=truth[at][:, None], baselines={}, scale=SCALE, **pairs))

    return judged(slice(0, rows)), judged(slice(rows, n))


@pytest.mark.parametrize("memory", [0.0, 0.6, 0.9, 0.97])
def test_of_200_null_runs_with_a_live_trial_at_most_10_promote(memory: float) -> None:
    """A version on trial has passed on history; the live test alone lets no more through than that."""
    found = [tried(seed, memory, 900, 900, (1.0, 1.0)) for seed in range(NULLS)]
    promoted = sum(history.verdict.passed and live.verdict.passed for history, live in found)
    assert promoted <= 10
    assert sum(live.verdict.passed for _, live in found) <= 10, "a version that a person put on trial"


def test_a_better_challenger_comes_through_both() -> None:
    found = [tried(seed, 0.9, 900, 900, (0.6, 1.4)) for seed in range(20)]
    assert sum(history.verdict.passed and live.verdict.passed for history, live in found) >= 18
