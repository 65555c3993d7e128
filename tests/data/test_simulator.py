"""The simulated station: the same bits however asked, physics that models can learn, faults as its list says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.frame import Dense
from penstock.data.grid import Grid
from penstock.data.plants.plant_file import load_plant
from penstock.data.plants.simulated import simulated_plant
from penstock.data.plants.spans import Span, parse_span
from penstock.data.simulator import Simulator
from penstock.data.simulator_physics import Physics
from penstock.data.simulator_station import DAY_NS, START_NS, SYSTEMS, Station, station_of
from penstock.errors import SourceError

FAULTY = Station(units=3, tags=20, seed=7, faults=True)
DAYS = 10
WHOLE = Simulator(FAULTY).rows(0, DAYS * FAULTY.day)


def bits(rows: Dense) -> np.ndarray:
    return rows.values.view(np.uint32)


def within(rows: Dense, first: int, last: int) -> np.ndarray:
    """Rows of ticks first..last-1; a skewed row belongs to the tick it lies in."""
    ticks = (rows.times - START_NS) // FAULTY.period_ns
    return (ticks >= first) & (ticks < last)


@settings(deadline=None, max_examples=40)
@given(first=st.integers(0, DAYS * FAULTY.day - 1), length=st.integers(1, 3000), fresh=st.booleans())
def test_a_tick_has_the_same_bits_whatever_span_it_is_asked_in(first: int, length: int, fresh: bool) -> None:
    last = min(first + length, DAYS * FAULTY.day)
    asked = (Simulator(FAULTY) if fresh else SHARED).rows(first, last)
    expected = within(WHOLE, first, last)
    np.testing.assert_array_equal(asked.times, WHOLE.times[expected])
    np.testing.assert_array_equal(bits(asked), bits(WHOLE)[expected])


SHARED = Simulator(FAULTY)


def test_another_seed_is_another_station_and_more_units_leave_the_first_ones_as_they_are() -> None:
    few = Physics(Station(units=2)).truth(500, 800)
    many = Physics(Station(units=5)).truth(500, 800)
    np.testing.assert_array_equal(few.view(np.uint32), many[:, :2].view(np.uint32))
    other = Physics(Station(units=2, seed=2)).truth(500, 800)
    assert not np.isclose(few, other).any(axis=(0, 1)).all()


def test_faulty_readings_differ_from_clean_ones_exactly_where_the_list_says() -> None:
    """Rebuilds every reading from the station without faults and the list alone."""
    simulator, last = Simulator(FAULTY), DAYS * FAULTY.day
    clean = Simulator(Station(units=3, tags=20, seed=7)).rows(0, last).values
    times = START_NS + np.arange(last, dtype=np.int64) * FAULTY.period_ns
    found = Grid(period_ns=FAULTY.period_ns, origin_ns=START_NS).tick(WHOLE.times)
    seen = np.full(clean.shape, np.nan, np.float32)
    when = np.zeros(clean.shape, np.int64)
    rows, columns = np.nonzero(WHOLE.present())
    seen[found[rows], columns], when[found[rows], columns] = WHOLE.values[rows, columns], WHOLE.times[rows]
    assert len(rows) == np.count_nonzero(~np.isnan(seen))  # no cell twice
    wrong = np.zeros(clean.shape, bool)
    skew = np.zeros(clean.shape, np.int64)
    kinds = set()
    for fault in simulator.faults(0, last):
        ticks = slice(fault.first, fault.last)
        kinds.add(fault.kind)
        if fault.sensor is None:
            skew[ticks, fault.unit * 20 : fault.unit * 20 + 20] = round(fault.size * 1e9)
            assert 0 < fault.size * 1e9 < FAULTY.period_ns
            continue
        column = fault.unit * 20 + fault.sensor
        assert not np.array_equal(seen[ticks, column], clean[ticks, column])
        wrong[ticks, column] = True
        beside = simulator.faults(fault.first, fault.last)
        if sum((f.unit, f.sensor) == (fault.unit, fault.sensor) for f in beside) > 1:
            continue
        if fault.kind == "missing":
            assert np.isnan(seen[ticks, column]).all()
        if fault.kind == "flat":
            assert len(set(seen[ticks, column].tolist())) == 1
        if fault.kind == "drift":
            away = np.abs(seen[ticks, column] - clean[ticks, column])
            assert (np.diff(away) > -1e-3).all()
            assert away[-1] == away.max()
    assert kinds == {"missing", "spike", "flat", "drift", "skew"}
    np.testing.assert_array_equal(seen[~wrong].view(np.uint32), clean[~wrong].view(np.uint32))
    there = ~np.isnan(seen)
    np.testing.assert_array_equal((when - times[:, None])[there], skew[there])


def test_power_and_nox_follow_mostly_different_sensors() -> None:
    truth = Physics(Station(units=1)).truth(0, 30 * 1440)[::5, 0].astype(np.float64)
    running = truth[:, SYSTEMS.index("FUEL")] > 4
    groups = {"POWER": ("FUEL", "IGV", "AMBIENT_T", "AMBIENT_P"), "NOX": ("FLAME_T", "WATER", "SPLIT", "HUMIDITY")}

    def explained(target: str, inputs: tuple[str, ...]) -> float:
        x = np.column_stack([np.ones(running.sum()), *(truth[running, SYSTEMS.index(i)] for i in inputs)])
        y = truth[running, SYSTEMS.index(target)]
        return float(1 - np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) / np.var(y))

    for target, other in (("POWER", "NOX"), ("NOX", "POWER")):
        own, others = explained(target, groups[target]), explained(target, groups[other])
        assert own > 0.7
        assert own > others + 0.1


def test_power_remembers_the_fuel_of_the_last_minutes() -> None:
    truth = Physics(Station(units=1)).truth(0, 3000)[:, 0].astype(np.float64)
    fuel, power = truth[:, SYSTEMS.index("FUEL")], truth[:, SYSTEMS.index("POWER")]

    def follows(lag: int) -> float:
        return float(np.corrcoef(np.diff(fuel)[100 - lag : -lag or None][:2000], np.diff(power)[100:][:2000])[0, 1])

    assert follows(9) > follows(0)


def test_units_stop_and_start_again() -> None:
    fuel = Physics(Station(units=3)).truth(0, 60 * 1440)[:, :, SYSTEMS.index("FUEL")]
    stopped = fuel < 0.1
    begins = np.count_nonzero(np.diff(stopped.astype(int), axis=0) == 1, axis=0)
    assert (begins >= 2).all()
    hours = stopped.sum(axis=0) / begins / 60
    assert ((hours > 3) & (hours < 19)).all()


def test_load_has_a_daily_wave_and_is_less_on_sundays() -> None:
    fuel = Physics(Station(units=4)).truth(0, 56 * 1440)[:, :, SYSTEMS.index("FUEL")].astype(np.float64)
    running = np.where(fuel > 4, fuel, np.nan).reshape(8, 7, 24, 60, 4)
    by_day, by_hour = np.nanmean(running, axis=(0, 2, 3, 4)), np.nanmean(running, axis=(0, 1, 3, 4))
    assert by_day[6] < by_day[:5].min() - 0.3
    assert by_hour[12:18].mean() > by_hour[0:5].mean() + 1


def test_its_readings_lie_in_the_ranges_of_its_plant(tmp_path: Path) -> None:
    station = Station(units=2, tags=30)
    (tmp_path / "plant.toml").write_text(simulated_plant(station))
    plant = load_plant(tmp_path / "plant.toml")
    assert list(plant.tags) == [n for s in station.sensor_names() for n in (f"U001.{s}", f"U002.{s}")]
    assert set(plant.models) == {"power.U001", "power.U002", "nox.U001", "nox.U002"}
    rows = Simulator(station).rows(0, 40 * station.day)
    for name, column in zip(station.tag_names(), rows.values.T, strict=True):
        low, high = plant.tags[name].range or (-np.inf, np.inf)
        assert low <= column.min() <= column.max() <= high, name
    assert station_of("simulated", plant.name) == (station, parse_span("60d", "simulated"))


def test_tables_hold_the_rows() -> None:
    span = Span(first_ns=DAY_NS, last_ns=3 * DAY_NS)
    tables = list(Simulator(FAULTY).tables(span))
    whole = Simulator(FAULTY).rows(1440, 3 * 1440)
    assert [t.column_names for t in tables] == [["time", *FAULTY.tag_names()]] * len(tables)
    values = np.column_stack([np.concatenate([t[n].to_numpy() for t in tables]) for n in FAULTY.tag_names()])
    np.testing.assert_array_equal(values, whole.values)
    blocks = list(Simulator(FAULTY).blocks(span, np.arange(60, dtype=np.int32) + 5))
    np.testing.assert_array_equal(np.concatenate([b.values for b in blocks]), whole.values)
    assert blocks[0].tags[0] == 5


def test_a_million_tags_come_in_one_block() -> None:
    rows = Simulator(Station(units=1000, tags=1000)).rows(16, 18)
    assert rows.values.shape == (2, 1_000_000)
    assert np.isfinite(rows.values).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("simulated:60d,unit=4", "Did you mean 'units'"),
        ("simulated:sixty", "allowed: a span such as 60d"),
        ("simulated:9d..2d", "is empty"),
        ("simulated,tags=3", "tags from 11"),
        ("simulated,period=7min", "divides a day"),
        ("simulated,units=two", "cannot read 'units=two'"),
    ],
)
def test_a_text_that_names_no_station_says_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        station_of(text)


def test_texts_name_stations() -> None:
    station = Station(units=4, tags=50, seed=3, faults=True, period_ns=10**9)
    assert station_of(station.text()) == (station, parse_span("60d", "simulated"))
    assert station_of("simulated:1d..2d", station.text()) == (station, Span(first_ns=DAY_NS, last_ns=2 * DAY_NS))
    assert station_of("simulated,seed=3", station.text()) == (Station(seed=3), parse_span("60d", "simulated"))
    assert station_of("gas-turbine:2014") is None
