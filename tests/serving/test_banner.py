"""The words of a page: what is abnormal is said, what is not is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_site import BEGIN, PLANT, SAID_FROM, make

from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.page import questions
from penstock.serving import banner
from penstock.serving.feed import Moment
from penstock.serving.questions import Choice, Entry, Face, Standing, Trace
from penstock.site import Site

CHOICE = Choice(label="nox", model="nox", column=0, target="NOX", unit="mg/m3")
FACE = Face(
    plant="gas-turbine", zone="Europe/Istanbul", replay=True, simulated=False, period_s=3600.0, choices=(CHOICE,),
    tags=(("NOX", "mg/m3"),),
)  # fmt: skip
STANDING = Standing(
    running=True, heard_ns=0, tick=5, tick_ns=1_388_534_400_000_000_000, closed=6, readings=11, late=0, refused=0,
    rate=597.3, ended=False, trouble=None,
)  # fmt: skip
MOMENT = Moment(
    wall_s=1_800_000_000.0, standing=STANDING, data_age_s=1.0, link_age_s=0.5, ticks_per_s=0.17, readings_per_s=1.8,
    stale=False, trouble=None,
)  # fmt: skip


def words(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.S).replace("&#9650;", "▲").split())


def trace(said: list[float], truth: list[float], reason: str = "OK") -> Trace:
    n = len(said)
    column = np.array([truth], np.float32).T
    return Trace(
        times=STANDING.tick_ns + 3_600_000_000_000 * np.arange(n, dtype=np.int64),  # type: ignore[operator]
        truth=column, faulty=np.zeros((n, 1), bool), prediction=np.array([said], np.float32).T, persistence=column + 4,
        corrected=np.full_like(column, np.nan), low=np.full_like(column, np.nan), high=np.full_like(column, np.nan),
        filled=np.zeros(n, bool), versions=np.ones(n, np.int64), reasons=np.array(["OK"] * (n - 1) + [reason]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "said"), [(597.3, "600x"), (14_371.0, "14,000x"), (1.96, "2x"), (0.25, "0.25x"), (12.4, "12x")]
)
def test_a_measured_rate_is_rounded(rate: float, said: str) -> None:
    assert banner.times(rate) == said


def test_a_replay_says_so_with_year_and_rate() -> None:
    assert "REPLAY 2014, 600x current" in words(banner.top(FACE, MOMENT, "live"))
    assert "LIVE" in words(banner.top(replace(FACE, replay=False), MOMENT, "live"))
    recorded = replace(MOMENT, standing=replace(MOMENT.standing, replay=True))
    assert "REPLAY" in words(banner.top(replace(FACE, replay=False), recorded, "live"))
    assert "SIMULATED" not in words(banner.top(FACE, MOMENT, "live"))
    assert "SIMULATED" in words(banner.top(replace(FACE, simulated=True), MOMENT, "live"))


def test_a_replay_that_is_over_is_no_alarm_and_one_that_hangs_is() -> None:
    over = replace(STANDING, running=False, ended=True, rate=None)
    ended = replace(MOMENT, standing=over, stale=True, data_age_s=184.0, link_age_s=184.0)
    assert "ENDED 184 s ago" in words(banner.top(FACE, ended, "live"))
    assert "▲" not in words(banner.tiles(FACE, ended, CHOICE, None)).replace("▲ none", "")
    hung = replace(MOMENT, stale=True, data_age_s=19.0, link_age_s=27.0)
    assert "STALE, data 19.0 s old" not in words(banner.top(FACE, hung, "live"))
    assert "STALE, data 19 s old" in words(banner.top(FACE, hung, "live"))
    said = words(banner.tiles(FACE, hung, CHOICE, None))
    assert "data age ▲ 19 s" in said
    assert "stream heard ▲ 27 s" in said
    assert "▲ 61.0" in words(banner.now(FACE, hung, CHOICE, trace([60, 61], [60, np.nan])))


def test_the_large_figures_name_their_times_and_units() -> None:
    said = words(banner.now(FACE, MOMENT, CHOICE, trace([60, 61, 62.5], [61, 63.25, np.nan])))
    assert "prediction of NOX for 2014-01-01 04:00 62.50 mg/m3" in said  # Istanbul is two hours ahead in winter
    assert "truth of 2014-01-01 03:00 63.25 mg/m3" in said
    assert "truth - prediction of 2014-01-01 03:00 +2.25 mg/m3" in said
    assert "live MAE 1.62 mg/m3 persistence 4.00 mg/m3, n 2" in said
    assert "▲" not in said


def test_a_withheld_prediction_is_not_replaced_by_an_older_one() -> None:
    said = words(banner.now(FACE, MOMENT, CHOICE, trace([60, np.nan], [60, 60], "BAD_INPUT")))
    assert "▲ bad input" in said
    assert "▲" not in words(banner.now(FACE, MOMENT, CHOICE, trace([60, np.nan], [60, 60], "NOT_RUNNING")))
    nothing = words(banner.now(FACE, MOMENT, CHOICE, trace([], [])))
    assert "prediction of NOX none yet" in nothing
    assert "no truth beside a prediction" in nothing


def test_an_age_runs_on_in_the_browser() -> None:
    hung = replace(MOMENT, stale=True, data_age_s=19.0)
    since = f'<time data-since="{MOMENT.wall_s - 19:.2f}">19 s</time>'
    assert since in banner.top(FACE, hung, "live")
    later = replace(hung, wall_s=MOMENT.wall_s + 7, data_age_s=26.0)
    assert since.replace("19 s", "26 s") in banner.tiles(FACE, later, CHOICE, None)


def test_a_sheet_stays_as_it_is_while_only_values_change() -> None:
    fine = Entry(choice=CHOICE, version=1, deployed=1, trained="2014-01-01", prediction=61.5, reason="OK", filled=False)
    other = replace(fine, choice=replace(CHOICE, label="co", model="co"), prediction=np.nan, reason="BAD_INPUT")
    assert banner.values([fine, other]) == f"{banner.HOLE}61.50"  # the abnormal one first
    assert banner.sheet([fine, other]).count(banner.HOLE) == 2
    assert banner.sheet([replace(fine, prediction=7.0), other]) == banner.sheet([fine, other])
    assert banner.sheet([fine, fine]) != banner.sheet([fine, other])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1.04, "1.0 s"), (99.6, "100 s"), (599, "599 s"), (1200, "20 min"), (9000, "2.5 h"), (2e5, "2.3 d")],
)
def test_an_age_is_short(seconds: float, said: str) -> None:
    assert banner.age(seconds) == said


def test_a_model_that_answers_seldom_is_shown_with_its_last_answer(tmp_path: Path) -> None:
    """flow answers at every tick, speed at every fifth: at tick 9002 the newest of speed is that of 9000."""
    site = make(tmp_path, PLANT.replace('target = "speed"', 'target = "speed"\nevery = "5s"'))
    view = SpeedView.open(site / "views" / "speed.sqlite")
    first = int(BEGIN.timestamp()) + SAID_FROM
    for tick in range(first, first + 3):
        members = (("flow", 1), ("speed", 1)) if tick % 5 == 0 else (("flow", 1),)
        n = len(members)
        view.write([Spoken(
            tick=tick, members=members, values=np.arange(n, dtype=np.float32) + (tick - first),
            versions=np.ones(n, np.int32), reasons=np.zeros(n, np.uint8), filled=np.zeros(n, bool),
            hashes=np.zeros(n, np.uint64), position=0,
        )])  # fmt: skip
    view.close()
    with Site.open(site) as opened:
        sheet = {entry.choice.model: entry for entry in questions(opened).sheet()}
    assert (sheet["flow"].reason, sheet["flow"].prediction) == ("OK", 2.0)
    assert (sheet["speed"].reason, sheet["speed"].prediction) == ("OK", 1.0)
