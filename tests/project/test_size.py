"""`penstock size`: what a plant needs grows as it should, what is short is told with a change that mends it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.durations import SECOND_NS, UNITS_NS, parse_duration
from penstock.errors import PlantError, SiteError
from penstock.size import Wish, needs_of
from penstock.size_advice import changes
from penstock.size_constants import row_us, state_bytes, window_us
from penstock.size_machine import Machine, machine_of
from penstock.size_report import sized

GIB = 1 << 30
LARGE = Machine(cores=64, memory=512 * GIB, disk=50_000 * GIB, shm=32 * GIB, window_us=90.0, row_us=42.0, sync_ms=1.0)
SMALL = Machine(cores=2, memory=4 * GIB, disk=20 * GIB, shm=GIB // 16, window_us=90.0, row_us=42.0, sync_ms=1.0)
PLANT = Wish(tags=2000, models=200, tick_ns=SECOND_NS)
HUGE = Wish(tags=200_000, models=20_000, tick_ns=SECOND_NS // 2, keep_ns=3650 * UNITS_NS["d"])
WISHES = st.builds(
    Wish,
    tags=st.integers(1, 10**6),
    models=st.integers(0, 10_000),
    tick_ns=st.sampled_from([SECOND_NS // 10, SECOND_NS, 60 * SECOND_NS]),
    rows=st.integers(1, 200),
    inputs=st.integers(1, 64),
    units=st.integers(1, 256),
    layers=st.integers(1, 3),
    keep_ns=st.integers(SECOND_NS, 3650 * UNITS_NS["d"]),
    by_rows=st.booleans(),
)


def by_name(wish: Wish, machine: Machine):
    return {need.resource: need for need in needs_of(wish, machine)}


def words(tick="1s", keep="30d", disk=Path()):
    numbers = {"tags": 400, "models": 40, "rows": 60, "inputs": 32, "units": 64, "layers": 1}
    return sized(numbers, tick=tick, keep=keep, disk=disk, probe=False)


@given(wish=WISHES, more=st.sampled_from(["tags", "models", "units", "inputs", "keep_ns"]))
def test_more_of_anything_never_needs_less(wish, more):
    larger = replace(wish, **{more: 2 * getattr(wish, more)})
    before, after = by_name(wish, LARGE), by_name(larger, LARGE)
    assert [name for name in before if after[name].need < before[name].need * (1 - 1e-9)] == []


@given(wish=WISHES)
def test_a_need_is_the_sum_of_its_parts_and_positive(wish):
    for need in needs_of(wish, LARGE):
        assert need.need > 0
        assert not need.parts or need.need == pytest.approx(sum(need.parts.values()))


def test_a_resource_is_tight_above_seventy_percent_and_short_above_all():
    need = by_name(PLANT, LARGE)["memory"]
    states = [replace(need, have=need.need / share).state for share in (0.69, 0.71, 1.01)]
    assert states == ["ok", "tight", "no"]
    assert replace(need, have=0.0).state == "no"
    assert replace(need, have=None).state == "ok"


def test_a_large_machine_needs_no_change():
    assert changes(PLANT, LARGE, needs_of(PLANT, LARGE)) == []


def test_everything_that_is_short_is_told_how_to_mend_it():
    needs = needs_of(HUGE, SMALL)
    said = changes(HUGE, SMALL, needs)
    for need in needs:
        assert any(text.startswith(f"{need.resource}: ") for text in said) == (need.state != "ok")
    assert {need.resource for need in needs if need.state == "no"} >= {"Triton's tick", "processor", "memory", "disk"}


@pytest.mark.parametrize(
    ("resource", "marks", "mended"),
    [
        ("Triton's tick", ("a tick of ", " (--tick)"), lambda w, x: replace(w, tick_ns=parse_duration(x))),
        ("Triton's tick", ("at most ", " models"), lambda w, x: replace(w, models=int(x.replace(",", "")))),
        ("disk", ("history of ", " (--keep)"), lambda w, x: replace(w, keep_ns=parse_duration(x))),
    ],
)
def test_a_change_that_is_told_mends_what_it_is_told_for(resource, marks, mended):
    wish = Wish(tags=5000, models=9000, tick_ns=SECOND_NS // 2, keep_ns=60 * UNITS_NS["d"], by_rows=False)
    machine = replace(LARGE, disk=200 * GIB)
    said = [text for text in changes(wish, machine, needs_of(wish, machine)) if text.startswith(resource)]
    value = next(text.split(marks[0])[1].split(marks[1])[0] for text in said if marks[0] in text)
    assert by_name(wish, machine)[resource].state == "no"
    assert by_name(mended(wish, value), machine)[resource].state == "ok"


def test_fewer_units_are_named_only_where_they_help():
    wish = Wish(tags=100, models=12_000, tick_ns=SECOND_NS // 2)
    said = [text for text in changes(wish, LARGE, needs_of(wish, LARGE)) if "(--units)" in text]
    units = int(said[0].split("models of ")[1].split(" units")[0])
    smaller = replace(wish, units=units)
    faster = replace(LARGE, row_us=42.0 * row_us(*smaller.shape) / row_us(*wish.shape))
    assert by_name(smaller, faster)["Triton's tick"].state == "ok"


def test_the_probe_measures_this_machine_and_its_disk(tmp_path):
    found = machine_of(tmp_path, (4, 3, 8, 2), 1000)
    assert set(found.measured) == {"window", "row", "sync"}
    assert 0 < found.window_us < 1000
    assert 0 < found.row_us < 1000
    assert found.sync_ms > 0
    assert list(tmp_path.iterdir()) == []


def test_the_arrays_of_the_probe_are_those_of_the_engine():
    from penstock.serving.backend.forward import Shape
    from penstock.size_kernel import shapes_of

    for units in ((8,), (8, 8)):
        wanted = Shape(rows=4, features=3, units=units, outputs=1).arrays()
        assert shapes_of(3, 8, len(units)) == list(wanted.values())


def test_the_states_of_the_engine_take_what_is_counted():
    from penstock.serving.backend.chains import remembered

    for units in ((64,), (32, 32)):
        assert state_bytes(60, units[0], len(units)) == 4 * remembered(60, units)


@given(wish=WISHES)
def test_rows_change_the_engine_s_time_and_the_memory_of_its_states_alone(wish):
    rows, windows = (by_name(replace(wish, by_rows=way), LARGE) for way in (True, False))
    assert {name for name in rows if rows[name] != windows[name]} <= {"Triton's tick", "processor", "memory"}
    saved = wish.models * (LARGE.window_us - LARGE.row_us) / 1000
    assert windows["processor"].need - rows["processor"].need == pytest.approx(saved, abs=1e-6)
    states = wish.models * 8 * wish.rows * wish.units * wish.layers / GIB
    assert rows["memory"].need - windows["memory"].need == pytest.approx(states, abs=1e-9)


def test_without_a_probe_constants_stand_in(tmp_path):
    found = machine_of(tmp_path, (60, 32, 64, 1), 1000, probe=False)
    assert found.measured == ()
    assert found.window_us == pytest.approx(window_us(60, 32, 64, 1))
    assert found.row_us == pytest.approx(row_us(60, 32, 64, 1))
    assert np.isfinite(found.sync_ms)


@pytest.mark.parametrize(("option", "text"), [("tick", "1 parsec"), ("tick", "0s"), ("keep", "soon")])
def test_a_text_that_is_no_duration_is_told_with_its_option(option, text):
    with pytest.raises(PlantError, match=f"--{option}.*{text}.*1min"):
        words(**{option: text})


def test_a_disk_that_is_none_is_told():
    with pytest.raises(SiteError, match="nowhere: no such folder"):
        words(disk=Path("nowhere"))


def run(*options: str):
    words = [sys.executable, "-m", "penstock", "size", *options, "--no-probe"]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


def test_the_exit_code_tells_whether_it_fits():
    fits = run("--tags", "20", "--models", "2", "--tick", "1min", "--keep", "1d", "--json")
    assert fits.returncode == 0, fits.stderr
    told = json.loads(fits.stdout)
    assert told["fits"]
    assert all(need["state"] != "no" for need in told["needs"])
    short = run("--tags", "1000000", "--models", "100000", "--tick", "100ms")
    assert short.returncode == 1
    assert "it does NOT fit" in short.stdout
    assert "models of" in short.stdout or "a tick of" in short.stdout
