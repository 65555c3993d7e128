"""When a page calls the data stale, and how fast it says the stream is. Time is an argument."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.serving.feed import STALE_FLOOR_S, Pace
from penstock.serving.questions import Standing

SECOND = 10**9
RUNNING = Standing(
    running=True, heard_ns=100 * SECOND, tick=5, tick_ns=0, closed=6, readings=0, late=0, refused=0, rate=None,
    ended=False, trouble=None,
)  # fmt: skip


def watched(pace: Pace, *polls: tuple[float, int], rate: float | None = None) -> Pace:
    for wall_s, tick in polls:
        pace.see(wall_s, replace(RUNNING, tick=tick, readings=10 * tick, rate=rate))
    return pace


@pytest.mark.parametrize(
    ("replay", "rate", "wall_s", "stale"),
    [
        (False, None, 119.9, False),  # live, ten seconds a tick: two ticks after 100
        (False, None, 120.1, True),
        (True, 10.0, 101.9, False),  # a replay at 10x: a tick a second
        (True, 10.0, 102.1, True),
        (True, 2.0, 109.9, False),  # at 2x: a tick in five
        (True, 2.0, 110.1, True),
    ],
)
def test_stale_after_two_ticks(replay: bool, rate: float | None, wall_s: float, stale: bool) -> None:
    pace = watched(Pace(period_s=10.0, replay=replay), (100.0, 5), rate=rate)
    assert pace.moment(wall_s, replace(RUNNING, rate=rate), None).stale is stale


def test_a_replay_that_hangs_is_stale_although_it_tells_an_ever_smaller_rate() -> None:
    pace = watched(Pace(period_s=10.0, replay=True), (100.0, 5), (105.0, 6), rate=2.0)
    assert not pace.moment(114.9, replace(RUNNING, rate=10 / 9.9), None).stale
    assert pace.moment(115.1, replace(RUNNING, rate=10 / 10.1), None).stale


def test_a_replay_that_does_not_tell_its_rate_is_measured() -> None:
    pace = watched(Pace(period_s=3600.0, replay=True), (100.0, 0), (104.0, 1), (108.0, 2))
    assert not pace.moment(115.9, RUNNING, None).stale
    assert pace.moment(116.1, RUNNING, None).stale


def test_a_fast_replay_is_not_stale_between_two_polls() -> None:
    pace = watched(Pace(period_s=3600.0, replay=True), (100.0, 0), (101.0, 1000))
    assert pace.moment(101.0, RUNNING, None).ticks_per_s == 1000
    assert pace.moment(101.0, RUNNING, None).readings_per_s == 10_000
    assert not pace.moment(101.0 + STALE_FLOOR_S - 0.1, RUNNING, None).stale
    assert pace.moment(101.0 + STALE_FLOOR_S + 0.1, RUNNING, None).stale


def test_a_stopped_stream_is_stale_at_once_and_as_old_as_its_last_word() -> None:
    stopped = replace(RUNNING, running=False)
    pace = Pace(period_s=10.0, replay=False)
    pace.see(400.0, stopped)
    moment = pace.moment(400.0, stopped, None)
    assert moment.stale
    assert moment.data_age_s == moment.link_age_s == 300.0
    assert moment.ticks_per_s == 0


def test_a_stream_of_files_is_a_replay_whatever_the_plants_clock() -> None:
    pace = Pace(period_s=600.0, replay=False)
    pace.see(100.0, replace(RUNNING, replay=True, rate=600.0))
    assert pace.tick_s() == 1.0
    pace.see(101.0, replace(RUNNING, tick=RUNNING.tick + 1, replay=False, rate=600.0))
    assert pace.tick_s() == 600.0


def test_nothing_said_has_no_age() -> None:
    pace = Pace(period_s=10.0, replay=False)
    silent = replace(RUNNING, tick=None, tick_ns=None)
    pace.see(100.0, silent)
    assert pace.moment(100.0, silent, None).data_age_s is None
