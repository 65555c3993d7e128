"""Thirty days of a simulated plant, with late readings and crashes of either layer: do both layers agree?

1. A station's history is imported, two models are trained on it and deployed.
2. Its next thirty days are streamed. Some readings are missing there and are imported later, in bursts, while it runs.
3. The stream is killed again and again, each time at another tick; so are recomputations and a Dask worker.
4. Every answer is then held against the batch layer's: nothing is unexplained, what differs names its late readings.
5. The merged view equals a computation from scratch, but where late readings explain that it cannot.
6. A flipped bit - in an archived cell, in a stored prediction, in a late list - and a lost row are found.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from demo_runs import MARK, answer, penstock

from penstock.batch.history import Source
from penstock.batch.view import compute_view
from penstock.cluster import local_cluster
from penstock.data.archive import Archive
from penstock.data.grid import Cells
from penstock.data.simulator import Simulator
from penstock.data.simulator_station import START_NS, Station
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SpeedView
from penstock.data.windows import Reason
from penstock.errors import ModelNotFound, QueryError
from penstock.serving.triton import Triton
from penstock.site import Site

MIN_NS = 60 * 10**9
STATION = Station(units=1, tags=11, seed=7, period_ns=30 * MIN_NS)
PLANT = """
[plant]
name = "thirty"
period = "30min"
[tags]
FUEL = {}
AMBIENT_T = { max_gap = "1h" }
FLAME_T = { substitute = 1100.0 }
POWER = {}
NOX = { max_gap = "30min" }
HEAT = { expr = "FLAME_T - AMBIENT_T" }
[defaults.model]
window = "3h"
step = "30min"
lstm = { units = 4, epochs = 2 }
[model.power]
target = "POWER"
inputs = ["FUEL", "AMBIENT_T"]
past_target = true
[model.nox]
target = "NOX"
inputs = ["HEAT", "FUEL"]
prepare = { FUEL = ["mean 2h"], HEAT = ["difference"] }
every = "1h"
"""
TAGS = ("FUEL", "AMBIENT_T", "FLAME_T", "POWER", "NOX")
HISTORY, DAYS, DAY = 300, 30, 48
END = HISTORY + DAYS * DAY
FIRST = START_NS // STATION.period_ns
"""Tick of the station's first row."""
KILLS = 4
RATE = 240 * STATION.period_ns / 1e9
"""Event seconds per second while it may be killed: 240 ticks a second."""
DEADLINE_S = 120.0
LENGTH = 6


def readings() -> pd.DataFrame:
    values = Simulator(STATION).rows(0, END).values
    names = [name.partition(".")[2] for name in STATION.tag_names()]
    times = pd.to_datetime(START_NS + np.arange(END) * STATION.period_ns, utc=True)
    return pd.DataFrame({"time": times, **{tag: values[:, names.index(tag)] for tag in TAGS}})


def torn(whole: pd.DataFrame, dice: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the stream brings, and what it lacks: bursts of one tag, and hours of all of them."""
    lacks = np.zeros((END, len(TAGS)), bool)
    for _ in range(45):
        begin = int(dice.integers(HISTORY, END - 12))
        lacks[begin : begin + int(dice.integers(1, 10)), int(dice.integers(0, len(TAGS)))] = True
    for begin in dice.integers(HISTORY, END - 12, 4).tolist():
        lacks[begin : begin + int(dice.integers(1, 6))] = True
    live, late = whole[HISTORY:].copy(), whole.copy()
    live[list(TAGS)] = live[list(TAGS)].mask(lacks[HISTORY:])
    late[list(TAGS)] = late[list(TAGS)].where(lacks)
    return live.dropna(how="all", subset=list(TAGS)), late.dropna(how="all", subset=list(TAGS))


def begun(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "penstock", *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, MARK: "thirty"}
    )


def killed_at(run: subprocess.Popen[bytes], reached: Any) -> None:
    """SIGKILL once it has reached a point."""
    until = time.monotonic() + DEADLINE_S
    while not reached():
        assert run.poll() is None, run.stderr.read()[-3000:]  # type: ignore[union-attr]
        assert time.monotonic() < until, "it does not get there"
        time.sleep(0.005)
    run.kill()
    run.wait(30)
    run.stderr.close()  # type: ignore[union-attr]


def said(site: Path) -> int:
    """One past the newest row of the station that was said."""
    path = site / "views" / "speed.sqlite"
    if not path.exists():
        return HISTORY
    with contextlib.closing(SpeedView.open(path)) as view:
        last = view.last_tick()
    return HISTORY if last is None else last - FIRST + 1


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, triton: Triton) -> Iterator[Path]:
    """The site after its thirty days. Its Dask and its Triton outlive the crashes."""
    folder = tmp_path_factory.mktemp("thirty")
    (folder / "plant.toml").write_text(PLANT)
    site, dice, luck = folder / "site", np.random.default_rng(30), random.Random(30)
    whole = readings()
    live, late = torn(whole, dice)
    live.to_csv(folder / "live.csv", index=False)
    Site.create(site, folder / "plant.toml").close()
    with local_cluster(1, shared=True) as dask:
        (site / "site.toml").write_text(
            f'dask.scheduler = "{dask.scheduler.address}"\ntriton.endpoints = ["{triton.endpoint}"]\n'
            "journal.segment_mb = 16\narchive.commit_every = '200ms'\n"
        )
        with Site.open(site) as opened:
            opened.load(whole[:HISTORY])
            opened.train_all(["power", "nox"])
            opened.deploy("power")
            opened.deploy("nox")
            live_through(opened, folder / "live.csv", late, luck, dask)
        yield site


def live_through(site: Site, source: Path, late: pd.DataFrame, luck: random.Random, dask: Any) -> None:
    words = ("stream", "--site", str(site.folder), "--replay", str(source))
    points = sorted(luck.sample(range(HISTORY + 60, END - 120), KILLS))
    for number, point in enumerate(points):
        stream = begun(*words, "--rate", str(RATE))
        due = late[late.index < point - 20]
        late = late.drop(due.index)
        killed_at(stream, lambda at=point - 15: said(site.folder) >= at) if number == 2 else None
        if number != 2 and len(due):  # else it comes in while nothing runs
            wait_for(stream, site.folder, point - 15)
        if len(due):
            site.load(due)
        if number == 1:
            os.kill(next(iter(dask.run(os.getpid).values())), signal.SIGKILL)
        if number != 2:
            killed_at(stream, lambda at=point: said(site.folder) >= at)
        if number in (1, 3):
            batch = begun("recompute", "power", "--site", str(site.folder))
            moment = time.monotonic() + luck.uniform(1.0, 6.0)
            while time.monotonic() < moment and batch.poll() is None:
                time.sleep(0.01)
            batch.kill()
            batch.wait(30)
            batch.stderr.close()  # type: ignore[union-attr]
            assert number == 3 or site.reconcile().unexplained == 0
    answer(penstock(*words, "--json", mark="thirty"))
    site.load(late)


def wait_for(run: subprocess.Popen[bytes], site: Path, row: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while said(site) < row:
        assert run.poll() is None, run.stderr.read()[-3000:]  # type: ignore[union-attr]
        assert time.monotonic() < until, "it does not get there"
        time.sleep(0.01)


def start_of(row: int) -> pd.Timestamp:
    return pd.Timestamp(START_NS + row * STATION.period_ns, tz="UTC")


@pytest.fixture(scope="module")
def site(lived: Path) -> Iterator[Site]:
    with Site.open(lived) as opened:
        yield opened


def test_both_layers_agree_and_what_differs_is_named(site: Site) -> None:
    newest = site.reconcile()
    assert newest.unexplained == 0
    assert sum(m["ticks"] for m in newest.models) < DAYS * DAY, "only what is new, and what late readings touch"
    run = site.reconcile(start=start_of(HISTORY))
    assert run.unexplained == 0
    nox, power = run.models
    assert (power["ticks"], nox["ticks"]) == (DAYS * DAY, DAYS * DAY // 2)
    for model in run.models:
        assert 20 < model["late"] < model["ticks"] // 2
        assert model["equal"] + model["close"] + model["late"] == model["ticks"]
        assert 0 <= model["apart"] <= 1e-5
        assert model["predictions"] > model["ticks"] // 2
    late = [found for found in run.differences if found["verdict"] == "late"]
    assert late == list(run.differences)
    assert all(found["late"] and {r["kind"] for r in found["late"]} == {"import"} for found in late)
    assert site.reconcile().models[0]["ticks"] == 0, "nothing is new"
    (row,) = [row for row in site.status() if row["part"] == "reconcile"]
    assert row["state"] == "ok"


def test_what_killed_runs_left_is_brought_up_to_what_computing_it_from_scratch_gives(site: Site) -> None:
    """However far they got: new ticks, and those that late readings came for since."""
    site.recompute("power")
    view = site.desk().batch("power")
    assert view is not None
    assert view.seam > FIRST + END - DAY
    again, kept = from_scratch(site), view.read(FIRST + HISTORY, FIRST + END)
    assert (kept.ticks == again.ticks[: len(kept.ticks)]).all()
    assert len(kept.ticks) > (DAYS - 1) * DAY
    assert (kept.reasons == again.reasons[: len(kept.ticks)]).all()
    apart = np.abs(kept.values - again.values[: len(kept.ticks)]) / site.artifact("power").card["target_scale"][0]
    assert np.nanmax(apart) <= 1e-5
    assert (np.isnan(kept.values) == np.isnan(again.values[: len(kept.ticks)])).all()


def from_scratch(site: Site) -> Predictions:
    source = Source(folder=site.readings.folder, snapshot=site.readings.head().snapshot)
    ids = [site.desk().ids[name] for name in ("FUEL", "AMBIENT_T", "POWER")]
    return compute_view(site.parts.client(), site.artifact("power"), source, ids, FIRST + HISTORY, FIRST + END)


def test_the_merged_view_is_what_computing_it_from_scratch_gives(site: Site) -> None:
    """With the seam in the middle: a view that is lost is made anew."""
    seam = HISTORY + 700
    shutil.rmtree(site.folder / "views" / "batch" / "power")
    told = site.recompute("power", start_of(HISTORY), start_of(seam))
    assert told["reconciled"]["unexplained"] == 0
    run = site.reconcile(start=start_of(HISTORY))
    artifact, grid, again = site.artifact("power"), site.readings.grid, from_scratch(site)
    answer = site.query("power", start_of(HISTORY))
    assert answer.attrs["holes"] == 0
    layers = answer["layer"].values
    assert (layers[: seam - HISTORY] == "recomputed").all()
    assert (layers[seam - HISTORY :] == "live").all()
    explained = np.zeros(END - HISTORY, bool)
    for found in run.differences:
        if found["model"] == "power":
            first, end = (grid.tick_of(pd.Timestamp(found[key]).value) - FIRST - HISTORY for key in ("from", "to"))
            explained[first:end] = True
    explained[: seam - HISTORY] = False  # what was recomputed has seen the late readings
    assert 10 < explained.sum() < 400
    reasons = np.array([Reason[name] for name in answer["reason"].values])
    same = ~explained
    assert (reasons[same] == again.reasons[same]).all()
    scale = artifact.card["target_scale"][0]
    apart = np.abs(answer["prediction"].values - again.values) / scale
    assert np.nanmax(apart[same]) <= 1e-5
    assert (np.isnan(answer["prediction"].values) == np.isnan(again.values))[same].all()
    assert np.nanmax(apart[explained]) > 1e-5


# Where a prediction comes from; after the seam moved to row HISTORY + 700


def test_a_prediction_is_explained_and_computed_again(site: Site) -> None:
    row = quiet_row(site, HISTORY + 740)
    told = site.explain("power", start_of(row))
    assert (told["layer"], told["verdict"] in ("equal", "close"), told["equal"], told["differs"]) == (
        "live", True, True, [],
    )  # fmt: skip
    assert told["hash"] == told["again"]["hash"]
    window = told["window"]
    assert [c["name"] for c in window["columns"]] == ["FUEL", "AMBIENT_T", "POWER (past)"]
    assert len(window["rows"]) == LENGTH
    assert window["rows"][-1]["time"] == start_of(row).isoformat()
    whole = readings()
    newest = [whole["FUEL"][row], whole["AMBIENT_T"][row], whole["POWER"][row - 1]]
    assert window["rows"][-1]["values"] == [float(value) for value in newest]
    assert window["rows"][-1]["flags"] == [[], [], []]
    made = told["model_made"]
    assert made["snapshot"] == site.artifact("power").card["trained"]["snapshot"]
    assert made["snapshot_kept"]
    assert not made["in_sample"]
    assert set(made["libraries"]) >= {"python", "numpy", "keras", "tensorflow"}
    assert [move["action"] for move in told["moves"]] == ["deploy"]
    assert told["closed_by"]["reason"] == "watermark"
    (spoken,) = site.query("power", start_of(row), start_of(row + 1))["prediction"].values[:, 0]
    assert told["prediction"]["POWER"] == spoken


def test_a_difference_is_explained_by_name_and_a_recomputed_one_is_right_again(site: Site) -> None:
    run = site.reconcile(start=start_of(HISTORY))
    late = [d for d in run.differences if d["model"] == "power" and "window" in d["differs"]]
    old, new = (
        next(d for d in late if (pd.Timestamp(d["from"]) < start_of(HISTORY + 700)) == recomputed)
        for recomputed in (True, False)
    )
    told = site.explain("power", new["from"])
    assert (told["layer"], told["verdict"]) == ("live", "late")
    assert told["late"]
    assert {r["kind"] for r in told["late"]} == {"import"}
    assert {r["sequence"] for r in told["late"]} <= {r["sequence"] for r in new["late"]}
    flags = {flag for row in told["window"]["rows"] for cell in row["flags"] for flag in cell}
    assert "LATE" in flags
    again = site.explain("power", old["from"], made=True)
    assert (again["layer"], again["equal"]) == ("recomputed", True)
    assert again["said_live"]["version"] == 1


def test_what_cannot_be_explained_says_why(site: Site) -> None:
    with pytest.raises(ModelNotFound, match="Did you mean 'power'"):
        site.explain("powr", start_of(HISTORY + 5))
    odd = (HISTORY + 400) // 2 * 2 + 1 - FIRST % 2
    with pytest.raises(QueryError, match="nearest ones are") as error:
        site.explain("nox", start_of(odd))
    assert start_of(odd - 1).isoformat() in str(error.value)
    assert start_of(odd + 1).isoformat() in str(error.value)
    run = penstock("explain", "nox", str(start_of(odd - 1)), "--site", str(site.folder), mark="thirty")
    assert run.returncode == 0, run.stderr[-3000:]
    for text in ("HEAT = FLAME_T - AMBIENT_T, difference", "trained on", "snapshot", "closed by", "verdict"):
        assert text in run.stdout


# It can fail


@pytest.fixture
def copied(lived: Path, tmp_path: Path) -> Path:
    shutil.copytree(lived, tmp_path / "copy")
    return tmp_path / "copy"


def quiet_row(site: Site, begin: int = HISTORY + 336) -> int:
    """A row from the second week on around which nothing came late and every prediction was said."""
    run = site.reconcile(start=start_of(HISTORY))
    bad = np.zeros(END, bool)
    for found in run.differences:
        first, end = (int((pd.Timestamp(found[key]).value - START_NS) // STATION.period_ns) for key in ("from", "to"))
        bad[first:end] = True
    with contextlib.closing(SpeedView.open(site.folder / "views" / "speed.sqlite")) as view:
        for name in ("power", "nox"):
            rows = view.read(name, 0, 2**62)
            bad[rows.ticks[rows.reasons != Reason.OK] - FIRST] = True
    quiet = [r for r in range(begin, END - 30) if not bad[r - 24 : r + 24].any()]
    return quiet[0] // 2 * 2


def changed_cell(folder: Path, site: Site, row: int) -> None:
    """FUEL of one row, as a fault of the archiver's would have it: one bit of its value and no late list."""
    archive, grid = Archive.open(folder), site.readings.grid
    column = int(site.registry.ids(["FUEL"])[0])
    cells: Cells = archive.read(np.array([column], np.int32), FIRST + row, FIRST + row + 1)
    cells.values.view(np.uint32)[0, 0] ^= 1
    cells.offset[0, 0] += 1
    with archive.committer() as committer:
        committer.merge("float32", column, cells)
        head = committer.head
        committer.commit(head.position, head.closed, head.source_offsets, head.totals)
    assert grid.time(FIRST + row) == start_of(row).value


def test_one_bit_of_the_archive_is_found(copied: Path) -> None:
    with Site.open(copied) as site:
        row = quiet_row(site)
        changed_cell(copied / "archive", site, row)
        run = site.reconcile(start=start_of(row - 20), end=start_of(row + 20))
        found = {m["model"]: m["unexplained"] for m in run.models}
        assert found["power"] == LENGTH
        assert 3 <= found["nox"] <= 5, "its mean reaches further back, and it answers every second row"
        assert {"window"} <= set(run.differences[0]["differs"])
        (status,) = [row for row in site.status() if row["part"] == "reconcile"]
        assert status["state"] == "wrong"
        assert site.reconcile().unexplained == run.unexplained, "what is open is looked at again"


def test_a_changed_prediction_and_a_lost_tick_are_found(copied: Path) -> None:
    with Site.open(copied) as site:
        row = quiet_row(site)
        with contextlib.closing(sqlite3.connect(copied / "views" / "speed.sqlite")) as db, db:
            (values,) = db.execute('SELECT "values" FROM said WHERE tick = ?', (FIRST + row,)).fetchone()
            flipped = np.frombuffer(values, "<u4") ^ np.uint32(1 << 16)
            db.execute('UPDATE said SET "values" = ? WHERE tick = ?', (flipped.astype("<u4").tobytes(), FIRST + row))
            db.execute("DELETE FROM said WHERE tick = ?", (FIRST + row + 4,))
        span = ["--from", str(start_of(row - 20)), "--to", str(start_of(row + 20))]
        words = ["reconcile", "--site", str(copied), *span, "--json"]
        run = penstock(*words, mark="thirty")
        assert run.returncode == 1, run.stderr[-3000:]
        last = site.reconcile(start=start_of(row - 20), end=start_of(row + 20))
        assert last.unexplained == 4
        told = sorted((d["model"], d["ticks"], d["differs"]) for d in last.differences)
        lost = ["the tick has no row"]
        expected = [("nox", 1, ["prediction"]), ("nox", 1, lost), ("power", 1, ["prediction"]), ("power", 1, lost)]
        assert told == expected
