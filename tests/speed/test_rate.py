"""How fast a stream says it is. Time is an argument."""

from __future__ import annotations

import pytest

from penstock.speed.rate import WINDOW_S, Rate

HOUR_S = 3600.0


def seen(*moves: tuple[float, int], period_s: float = HOUR_S) -> Rate:
    rate = Rate(period_s=period_s)
    for wall_s, tick in moves:
        rate.see(wall_s, tick)
    return rate


def test_it_is_not_known_before_two_ticks() -> None:
    assert seen().at(100.0) is None
    assert seen((100.0, 5)).at(101.0) is None


def test_a_replay_of_two_hours_a_second() -> None:
    assert seen((0.0, 5), (1.0, 7), (2.0, 9), (3.0, 11)).at(3.0) == pytest.approx(2 * HOUR_S)


def test_ticks_that_are_rarer_than_the_window_still_have_a_rate() -> None:
    """600x: an hour in six seconds; it is the same between the ticks as at them."""
    rate = seen((0.0, 1), (6.0, 2), (12.0, 3), (18.0, 4))
    assert rate.at(18.0) == rate.at(23.9) == pytest.approx(600.0)


def test_only_the_last_seconds_count() -> None:
    fast = [(0.01 * k, 100 * k) for k in range(100)]
    slow = [(1.0 + 0.25 * k, 10_000 + k) for k in range(1, 60)]
    assert seen(*fast, *slow).at(slow[-1][0]) == pytest.approx(4 * HOUR_S)
    assert len(seen(*fast, *slow).moves) <= WINDOW_S / 0.25 + 2


def test_a_stream_that_hangs_becomes_slower() -> None:
    rate = seen((0.0, 0), (1.0, 1), (2.0, 2), period_s=1.0)
    told = [rate.at(wall_s) for wall_s in (2.0, 3.0, 4.0, 12.0, 1000.0)]
    assert told == [pytest.approx(r) for r in (1.0, 1.0, 2 / 3, 2 / 11, 2 / 999)]


def test_a_stream_that_ended_has_no_rate() -> None:
    rate = seen((0.0, 5), (1.0, 7))
    rate.end()
    assert rate.at(1.0) is None
