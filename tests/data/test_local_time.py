"""Wall-clock times around daylight saving, beside a slow model that asks zoneinfo row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.importing.local_time import LocalClock, Wall
from penstock.data.importing.number_text import read_numbers
from penstock.data.importing.time_text import TOO_FAR, read_times

BERLIN = "Europe/Berlin"


def wall(*texts: str) -> np.ndarray:
    return np.array([f"2024-{t}" for t in texts], "datetime64[ns]").astype(np.int64)


def resolved(clock: LocalClock, times: np.ndarray, keys: np.ndarray | None = None) -> tuple[list[str], list[int]]:
    utc, what = clock.resolve(
        times, np.ones(len(times), bool), np.zeros(len(times), np.int32) if keys is None else keys
    )
    return [
        str(t)[5:16] if w == 0 else "" for t, w in zip(utc.view("datetime64[ns]"), what, strict=True)
    ], what.tolist()


def test_the_night_with_25_hours_in_order() -> None:
    #        first pass                     second pass                    a step back in the second pass
    rows = ("10-27T01:30", "10-27T02:00", "10-27T02:30", "10-27T02:00", "10-27T02:30", "10-27T02:10", "10-27T03:00")
    utc, what = resolved(LocalClock(BERLIN, 1), wall(*rows))
    assert utc == ["10-26T23:30", "10-27T00:00", "10-27T00:30", "10-27T01:00", "10-27T01:30", "", "10-27T02:00"]
    assert what == [0, 0, 0, 0, 0, Wall.AMBIGUOUS, 0]


def test_wherever_the_blocks_are_cut() -> None:
    rows = wall("10-27T01:30", "10-27T02:00", "10-27T02:30", "10-27T02:00", "10-27T02:30", "10-27T03:00")
    whole, _ = resolved(LocalClock(BERLIN, 1), rows)
    for cut in range(len(rows) + 1):
        clock = LocalClock(BERLIN, 1)
        assert resolved(clock, rows[:cut])[0] + resolved(clock, rows[cut:])[0] == whole


def test_each_tag_has_its_own_order() -> None:
    rows = wall("10-27T01:50", "10-27T01:50", "10-27T02:10", "10-27T02:10", "10-27T02:10", "10-27T02:10")
    utc, _ = resolved(LocalClock(BERLIN, 2), rows, np.array([0, 1, 0, 1, 0, 1], np.int32))
    assert utc[2:] == ["10-27T00:10", "10-27T00:10", "10-27T01:10", "10-27T01:10"]


def test_nothing_before_it_cannot_be_told_and_the_gap_never_was() -> None:
    assert resolved(LocalClock(BERLIN, 1), wall("10-27T02:10"))[1] == [Wall.AMBIGUOUS]
    assert resolved(LocalClock(BERLIN, 1), wall("03-31T01:59", "03-31T02:00", "03-31T02:59", "03-31T03:00"))[1] == [
        0,
        Wall.SKIPPED,
        Wall.SKIPPED,
        0,
    ]


ZONES = st.sampled_from([BERLIN, "America/New_York", "Europe/Istanbul", "Asia/Kolkata", "Africa/Casablanca", "UTC"])


@settings(deadline=None, max_examples=60)
@given(ZONES, st.integers(2001, 2030), st.integers(0, 365 * 24), st.sampled_from([600, 1800, 3600]))
def test_a_clock_in_order_comes_back_exactly(zone: str, year: int, hour: int, step_s: int) -> None:
    start = datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    moments = [start + timedelta(seconds=step_s * i) for i in range(600)]
    shown = [m.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for m in moments]
    folded = [m.astimezone(ZoneInfo(zone)).fold for m in moments]
    rows = np.array(shown, "datetime64[ns]").astype(np.int64)
    utc, what = LocalClock(zone, 1).resolve(rows, np.ones(600, bool), np.zeros(600, np.int32))
    truth = np.array([m.replace(tzinfo=None) for m in moments], "datetime64[ns]").astype(np.int64)
    # A beginning inside the night itself has nothing before it: only then may rows be refused.
    refused = what != 0
    assert not refused.any() or _inside(shown[0], zone) or folded[0]
    np.testing.assert_array_equal(utc[~refused], truth[~refused])


def _inside(moment: datetime, zone: str) -> bool:
    """Whether the wall clock shows this twice."""
    offsets = {moment.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1)}
    return len(offsets) > 1


def test_texts_of_times() -> None:
    texts = ["2024-01-31", "20240131T0102", "2024-01-31 01:02:03.5Z", "2024-01-31T00:00+02:00", " 2024-01-31 00:00 "]
    times = read_times(pa.array(texts), None)
    assert [str(t)[:23] for t in times.values.view("datetime64[ns]")] == [
        "2024-01-31T00:00:00.000",
        "2024-01-31T01:02:00.000",
        "2024-01-31T01:02:03.500",
        "2024-01-30T22:00:00.000",
        "2024-01-31T00:00:00.000",
    ]
    assert times.local.tolist() == [True, True, False, False, True]
    bad = read_times(pa.array(["2024", "x", "2024-13-01", "2024-01-01 25:00", "31.01.2024", "", None]), None)
    assert not bad.usable.any()


def test_times_of_other_kinds() -> None:
    assert read_times(pa.array(["1700000000.25", "1700000000"]), "epoch_s").values.tolist() == [
        1700000000250000000,
        1700000000000000000,
    ]
    assert read_times(pa.array([1700000000123456789]), "epoch_ns").values.tolist() == [1700000000123456789]
    far = read_times(pa.array([10**12], pa.timestamp("s")), None)
    assert far.reasons[TOO_FAR].tolist() == [True]
    assert str(read_times(pa.array(["31.12.2024 14:00"]), "%d.%m.%Y %H:%M").values.view("M8[ns]")[0])[:16] == (
        "2024-12-31T14:00"
    )


@pytest.mark.parametrize("good", ["1", "+2.5", " 3e2", "-.5", "1.", "007"])
@pytest.mark.parametrize("beside", ["4", "bad"])
def test_numbers_mean_the_same_beside_bad_ones(good: str, beside: str) -> None:
    assert read_numbers(pa.array([good, beside])).values[0] == float(good)


@pytest.mark.parametrize("bad", ["inf", "-Infinity", "0x10", "1_000", "1,5", "1e", "--1", "1 2", "١", "true"])
def test_what_is_no_number(bad: str) -> None:
    for beside in ("4", "bad"):
        numbers = read_numbers(pa.array([bad, beside]))
        assert numbers.bad[0]
        assert not numbers.missing[0]


@pytest.mark.parametrize("nothing", ["", " ", "nan", "NaN", "null", "N/A", None])
def test_what_is_no_reading(nothing: str | None) -> None:
    for beside in ("4", "bad"):
        numbers = read_numbers(pa.array([nothing, beside]))
        assert numbers.missing[0]
        assert not numbers.bad[0]
