"""Four ways in which a model's world changes are told apart, and none is seen where nothing has changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.data.drift import Errors, Kind, Trained, judge

TAGS = ("load", "air", "valve")
RNG = np.random.default_rng(2)


def rows(n: int, seed: int) -> NDArray[np.float32]:
    """Load swings, air follows it closely, the valve is where it wants."""
    rng = np.random.default_rng(seed)
    load = np.clip(100 + 20 * np.sin(np.arange(n) / 40) + rng.normal(0, 3, n), 70, 130)
    air = np.clip(0.5 * load + rng.normal(0, 0.5, n), 33, 67)
    return np.stack([load, air, rng.uniform(0, 1, n)], axis=1).astype(np.float32)


TRAINED = Trained.from_json(json.loads(json.dumps(Trained.of(TAGS, rows(5000, 1)).to_json())))
"""As a card gives it back."""


def noise(n: int, seed: int, tie: float = 0.8) -> NDArray[np.float64]:
    """An AR(1) series of variance 1."""
    rng, told = np.random.default_rng(seed), np.zeros(n)
    for i in range(1, n):
        told[i] = tie * told[i - 1] + np.sqrt(1 - tie**2) * rng.normal()
    return told


def errors(recent: NDArray[np.float64]) -> Errors:
    return Errors(target="NOX", recent=recent, mean=0.0, rmse=1.0)


def found(
    x: NDArray[np.float32], recent: NDArray[np.float64], bad: dict[str, float] | None = None
) -> list[tuple[Kind, str]]:
    told = judge(TRAINED, x, dict.fromkeys(TAGS, 0.0) | (bad or {}), TAGS, [errors(recent)])
    return [(f.kind, f.what) for f in told]


def test_nothing_is_found_where_nothing_has_changed() -> None:
    alarms = [found(rows(720, 100 + seed), noise(720, seed)) for seed in range(60)]
    assert sum(bool(a) for a in alarms) <= 3


def test_a_sensor_that_is_at_fault_is_the_only_thing_told() -> None:
    x = rows(720, 3)
    assert found(x, noise(720, 1) + 5.0, {"air": 0.2}) == [(Kind.FAULT, "air")]
    x[:, 1] = 51.0
    assert found(x, noise(720, 1)) == [(Kind.FAULT, "air")]
    assert found(x[:20], noise(20, 1)) == []  # too short a time to tell


def test_a_value_outside_the_trained_range() -> None:
    x = rows(720, 4)
    x[-90:, 0] += 60
    assert found(x, noise(720, 1)) == [(Kind.OUTSIDE, "load")]
    assert found(x[:-80], noise(720, 1)) == []  # ten rows are no new range


def test_inputs_that_never_went_together_so_are_another_regime() -> None:
    x = rows(720, 5)
    x[-200:, 1] = 100 - x[-200:, 1]  # each of them inside, but the air falls where it rose
    assert found(x, noise(720, 1)) == [(Kind.REGIME, "inputs together")]
    x = rows(720, 5)
    x[:, 2] = np.linspace(0, 1, 720)  # the valve may be anywhere
    x[:, 1] = np.clip(x[:, 1] + 3, 33, 67)  # six of its spreads about half the load
    (one,) = judge(TRAINED, x, {}, TAGS, [])
    assert one.kind is Kind.REGIME
    assert "most of all air: +" in one.told or "most of all load: -" in one.told


@pytest.mark.parametrize("seed", range(5))
def test_errors_that_move_bit_by_bit_are_ageing_and_a_jump_is_another_regime(seed: int) -> None:
    x, n = rows(1440, 6), 1440
    creeping = noise(n, seed) + np.linspace(0, 4, n)
    jumped = noise(n, seed) + 4.0 * (np.arange(n) > 0.6 * n)
    assert found(x, creeping) == [(Kind.AGEING, "NOX")]
    assert found(x, jumped) == [(Kind.REGIME, "NOX")]
    assert found(x, noise(n, seed) + 4.0) == [(Kind.AGEING, "NOX")]  # off all along


def test_a_card_of_many_inputs_keeps_no_matrix() -> None:
    many = Trained.of([f"t{i}" for i in range(100)], RNG.normal(size=(300, 100)))
    assert many.spread is None
    again = Trained.from_json(many.to_json())
    np.testing.assert_allclose(again.quantiles, many.quantiles, rtol=1e-5)
    assert judge(again, RNG.normal(size=(100, 100)), {}, [f"t{i}" for i in range(100)], []) == []
