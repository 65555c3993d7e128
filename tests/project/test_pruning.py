"""`keep` at work on a site of four years: what goes, what stays, what is said of it. No server, no workers.

2019        2020        2021        2022        2023     daily; a segment is 366 days from 1970 on
|-----------|-----------|-----------|-----------|
gone ------>| kept: keep = "2y" before the newest
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from penstock.backup import restore
from penstock.cli import app
from penstock.data.models import Draft, Golden
from penstock.data.views.batch_view import BatchView
from penstock.data.views.forgetting import recomputed_before
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.windows import WindowSpec
from penstock.disk import read_usage
from penstock.errors import ModelError, ModelNotFound, QueryError, SiteError
from penstock.pruning import alone, due
from penstock.site import Site
from penstock.tidying import tidying

PLANT = """
[plant]
name = "mill"
period = "1d"
[aggregates]
periods = ["2d", "60d"]
[tags]
T = { range = [-100, 100] }
N = { dtype = "float64" }
[model.m]
target = "T"
inputs = ["N"]
step = "1d"
window = "4d"
every = "1d"
past_target = true
"""
DAYS = 4 * 365


def history(first: int, last: int) -> pd.DataFrame:
    at = np.arange(first, last)
    times = pd.Timestamp("2019-01-01T00:00:00Z") + pd.to_timedelta(at, unit="D")
    return pd.DataFrame({"time": times, "T": np.sin(at / 50).astype(np.float32) * 50, "N": at / 3})


def made(folder: Path, retention: str = "") -> Site:
    (folder / "plant.toml").write_text(PLANT)
    site = Site.create(folder / "site", folder / "plant.toml", site_text=f"[retention]\n{retention}\n")
    site.load(history(0, DAYS))
    return site


def store(site: Site, *, snapshot: str) -> int:
    golden = Golden(windows=np.zeros((1, 4, 2)), predictions=np.zeros((1, 1)), scale=np.ones(1))
    spec = WindowSpec.of(site.plant.models["m"], site.plant)
    trained = {"snapshot": snapshot, "first": 0, "last": 10}
    card = {"spec": spec.to_json(), "trained": trained}
    draft = Draft(name="m", kind="lstm", card=card, keras=b"k" * 5000, golden=golden, serving={"a": np.zeros(1)})
    return site.models.save(draft).version


def say(site: Site, ticks: range, version: int) -> None:
    view = SpeedView.open(site.folder / "views" / "speed.sqlite")
    one, at = np.ones(1), site.journal.tail
    view.write([
        Spoken(tick=t, members=(("m", 1),), values=one.astype("f4") * t, versions=one.astype("i4") * version,
               reasons=one.astype("u1") * 0, filled=one.astype(bool), hashes=one.astype("u8"), position=at)
        for t in ticks
    ])  # fmt: skip
    view.close()


def bytes_in(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def test_readings_go_by_segments_and_never_leave_a_wrong_number(tmp_path: Path) -> None:
    with made(tmp_path, 'keep = "2y"\nsnapshots = "0s"') as site:
        short, long = site.aggregates("T", "2d"), site.aggregates("T", "60d")
        newest, ticks = site.readings.head().span[1], site.readings.segment_ticks
        limit = (newest - 2 * 365) // ticks * ticks
        whole, before = site.archive().load(), bytes_in(site.folder / "archive")
        told = site.prune(dry_run=True)
        assert site.readings.head().pruned is None
        (row,) = told
        assert (row.part, row.held, pd.Timestamp(row.before).value) == ("readings", 0, site.readings.grid.time(limit))
        assert row.count == 2 * len({t // ticks for t in range(newest - DAYS, limit)}), "of two dtypes"
        assert site.prune() == told
        freed = before - bytes_in(site.folder / "archive")
        assert 0.5 * row.bytes < freed < 1.2 * row.bytes  # of so little data half is metadata
        assert site.prune() == []

        head = site.readings.head()
        assert (head.pruned, head.span) == (limit, (limit, newest))
        left = site.archive().load()
        assert left.attrs["pruned"] == str(np.datetime64(site.readings.grid.time(limit), "ns"))
        assert left.equals(whole.sel(time=left.time)), "what stays is as it was"
        assert len(left.time) == newest - limit
        assert not site.archive("2019", "2023-01-01").value.sel(time="2019").notnull().any()
        with pytest.raises(QueryError, match="pruned before 2020-02-08"):
            site.archive("2019", "2020")
        with pytest.raises(ModelError, match="pruned before 2020-02-08"):
            site.train("m", end="2020")

        # What comes late for a pruned year is counted and not stored: a part would stand for the whole.
        site.load(history(100, 160).assign(T=1.0))
        site.load(history(DAYS - 3, DAYS + 60).assign(T=2.0))
        assert site.readings.head().span[0] == limit
        ids = site.registry.ids(["T"])
        assert not site.readings.read(ids, newest - DAYS, limit).quality.any()
        for period, old in (("2d", short), ("60d", long)):
            now, ended = site.aggregates("T", period, start="2018-01-01"), old.time[:-2]  # then the last were not over
            assert len(ended) > 20
            assert now.sel(time=ended).equals(old.sel(time=ended)), "aggregates outlive their readings"
    _made_anew(site.folder, limit)


def _made_anew(folder: Path, limit: int) -> None:
    """Other ranges: all aggregates are computed again, and none from a part of its readings."""
    text = (folder / "plant.toml").read_text()
    (folder / "plant.toml").write_text(text.replace("[-100, 100]", "[-200, 200]"))
    with Site.open(folder) as site:
        site.load(history(DAYS + 60, DAYS + 62))
        for period, ticks in (("2d", 2), ("60d", 60)):
            first, last = -(-limit // ticks), site.readings.head().span[1] // ticks
            counts = site.aggregates("T", period, start="2018-01-01").to_dataframe()["count"]
            told = counts[counts > 0]
            assert (told == ticks).all()
            assert len(told) == last - first


def test_a_model_holds_what_it_was_trained_on(tmp_path: Path) -> None:
    with made(tmp_path, 'keep = "2y"\nkeep_models = 1\nsnapshots = "0s"') as site:
        snapshot = site.readings.head().snapshot
        store(site, snapshot=snapshot)
        site.models.record("m", 1, "deploy", "somebody")
        (row,) = site.prune()
        assert (row.bytes, row.held_by) == (0, ("m@1",))
        assert row.held > 1000
        ids = site.registry.ids(["T"])
        first = site.readings.head().span[1] - DAYS
        assert site.readings.read(ids, first, first + 50, snapshot=snapshot).quality.all(), "its lineage is there"
        assert not site.readings.read(ids, first, first + 50).quality.any()
        site.backup(tmp_path / "copies")
        restore(tmp_path / "copies", tmp_path / "copy")
        with Site.open(tmp_path / "copy") as copy:
            held = copy.readings.read(ids, first, first + 50, snapshot=snapshot)
            assert held.quality.all(), "a copy has what its models name"
            assert copy.readings.head() == site.readings.head()
            assert len(copy.readings.commits()) == 1, "and no other old commit"
            assert copy.models.load("m", 1).files == site.models.load("m", 1).files
            assert copy.models.champions() == {"m": 1}
            assert copy.aggregates("T", "2d").equals(site.aggregates("T", "2d"))
            assert copy.archive().load().identical(site.archive().load())

        held = bytes_in(site.folder / "archive")
        store(site, snapshot=site.readings.head().snapshot)
        assert site.prune() == [], "version 1 answers"
        site.models.record("m", 2, "deploy", "somebody")
        assert site.prune() == [], "and a roll-back may want it"
        store(site, snapshot=site.readings.head().snapshot)
        site.models.record("m", 3, "deploy", "somebody")
        assert site.prune() == [], "what it said is kept for ever"
        (site.folder / "site.toml").write_text(
            '[retention]\nkeep = "2y"\nkeep_models = 1\nsnapshots = "0s"\nkeep_said = "1h"\n'
        )
    later = time.time_ns() + 2 * 3600 * 10**9
    with Site.open(tmp_path / "site") as site:
        say(site, range(18_000, 18_010), 1)
        told = {row.part: row for row in site.prune(now_ns=later, at_once=True)}
        assert (set(told), told["models"].what, told["said"].count) == ({"models", "said"}, "m@1", 8)
        assert bytes_in(site.folder / "archive") < held - 1000, "nobody names its commit any more"
        assert site.models.versions("m") == [2, 3]
        with pytest.raises(ModelNotFound, match="m@1 was removed"):
            site.models.load("m", 1)
        assert site.models.card("m", 1)["trained"]["last"] == 10, "what it said still has a card"
        assert store(site, snapshot="x") == 4
        with Site.open(site.folder) as again:
            told = again.query("m", start=again.readings.grid.time(18_008), end=again.readings.grid.time(18_010))
            assert told.version.values.tolist() == [1] * 2


def test_views_are_shortened_beside_a_writer(tmp_path: Path) -> None:
    with made(tmp_path, 'keep_said = "1000d"\nkeep_views = "30d"\nkeep_rejects = "1d"') as site:
        first = site.readings.head().span[0] - 4000
        say(site, range(first, first + 5000), 1)
        store(site, snapshot="x")
        (site.folder / "rejects").mkdir(exist_ok=True)
        (site.folder / "rejects" / "old.csv").write_text("x")
        rows = Predictions(
            ticks=np.arange(first, first + 6000), values=np.ones((6000, 1), np.float32),
            versions=np.ones(6000, np.int64), reasons=np.zeros(6000, np.uint8), filled=np.zeros(6000, bool),
            sample=np.zeros(6000, bool),
        )  # fmt: skip
        folder = site.folder / "views" / "batch" / "m"
        BatchView.write(folder, rows, first=first, last=first + 6000, attributes={"model": "m"})
        writer = SpeedView.open(site.folder / "views" / "speed.sqlite")
        told = site.prune(now_ns=time.time_ns() + 3 * 86_400 * 10**9)
        assert [row.part for row in told] == ["said", "recomputed m", "rejects"]
        say(site, range(first + 5000, first + 5001), 1)
        kept = writer.read("m", -(2**62), 2**62).ticks
        assert kept[0] == first + 4999 - 1000
        assert (np.diff(kept) == 1).all()
        assert writer.forgotten() == kept[0]
        with closing(sqlite3.connect(site.folder / "views" / "speed.sqlite")) as db:
            assert db.execute("PRAGMA freelist_count").fetchone()[0] == 0
        writer.close()
        view = BatchView.open(folder)
        assert view is not None
        cut = min(site.desk().newest(), 2**62) - 30
        assert view.read(-(2**62), 2**62).ticks.tolist() == list(range(cut, first + 6000))
        assert view.read(cut, cut + 5).values.tolist() == [[1.0]] * 5
        assert (view.attributes["start"], view.seam) == (cut, first + 6000)
        assert not recomputed_before(folder, cut).rows
        site.backup(tmp_path / "copy.tar")
        restore(tmp_path / "copy.tar", tmp_path / "copy")
        again = BatchView.open(tmp_path / "copy" / "views" / "batch" / "m")
        assert again is not None
        assert again.attributes == view.attributes
        assert again.read(cut, cut + 5).values.tolist() == [[1.0]] * 5
        answer = site.query("m", start=site.readings.grid.time(first), end=site.readings.grid.time(first + 9))
        assert answer.attrs["pruned_said"] == str(np.datetime64(site.readings.grid.time(int(kept[0])), "ns"))
        assert not due(site.folder, time.time_ns() + 3 * 86_400 * 10**9)


STEPS = (
    "penstock.data.models:ModelStore.remove", "penstock.pruning:forget_said", "penstock.pruning:forget_recomputed",
    "penstock.data.archive.committer:Committer.prune", "penstock.data.archive.committer:Committer.expire",
    "penstock.pruning:write_durably",
)  # fmt: skip
"""What `prune` changes, in order; a file of rejects goes before the last one."""
DIES = """
import importlib, os, signal, sys
from penstock.site import Site
module, _, path = sys.argv[2].partition(":")
owner, name = importlib.import_module(module), path
if "." in path:
    owner, name = getattr(owner, path.partition(".")[0]), path.partition(".")[2]
do = getattr(owner, name)
def last(*args, **words):
    do(*args, **words)
    os.kill(os.getpid(), signal.SIGKILL)
with Site.open(sys.argv[1]) as site:
    setattr(owner, name, last)
    site.prune(now_ns=int(sys.argv[3]))
"""


def test_it_may_be_killed_behind_each_of_its_steps(tmp_path: Path) -> None:
    """And after each kill the site answers as before for all that is kept, and the next run finishes."""
    keep = (
        'keep = "2y"\nkeep_said = "1000d"\nkeep_views = "30d"\nkeep_models = 1\nkeep_rejects = "1d"\nsnapshots = "0s"'
    )
    with made(tmp_path, keep) as site:
        first, last = site.readings.span()
        snapshot = site.readings.head().snapshot
        for _ in range(3):
            store(site, snapshot="none")
        site.models.record("m", 3, "deploy", "test")
        say(site, range(first, last, 7), 3)
        ticks = np.arange(first, last, 3)
        n = len(ticks)
        rows = Predictions(
            ticks=ticks, values=np.zeros((n, 1), np.float32), versions=np.full(n, 3), reasons=np.zeros(n, np.uint8),
            filled=np.zeros(n, bool), sample=np.zeros(n, bool),
        )  # fmt: skip
        about = {"model": "m", "version": 3, "snapshot": snapshot, "horizon": 0}
        BatchView.write(site.folder / "views" / "batch" / "m", rows, first=first, last=last, attributes=about)
        (site.folder / "rejects").mkdir(exist_ok=True)
        (site.folder / "rejects" / "old.csv").write_text("x")
        now_ns = time.time_ns() + 2 * 86_400_000_000_000
        wanted = site.prune(dry_run=True, now_ns=now_ns)
        assert {row.part for row in wanted} == {
            "models", "said", "recomputed m", "readings", "rejects",
        }  # fmt: skip
        kept = site.archive(start="-600d").load()
    whole = shutil.copytree(tmp_path / "site", tmp_path / "whole")
    for number, step in enumerate(STEPS):
        folder = shutil.copytree(whole, tmp_path / f"killed-{number}")
        words = [sys.executable, "-c", DIES, str(folder), step, str(now_ns)]
        killed = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL, (step, killed.stderr)
        with Site.open(folder) as site:
            assert site.archive(start="-600d").load().equals(kept), step
            assert site.models.versions("m")[-1] == 3, step
            site.prune(now_ns=now_ns)
            assert site.prune(dry_run=True, now_ns=now_ns) == [], step
            assert site.archive(start="-600d").load().equals(kept), step
            assert site.models.versions("m") == [3], step
            assert not (folder / "rejects" / "old.csv").exists(), step
            assert not due(folder, now_ns), step


def test_the_command(tmp_path: Path) -> None:
    with made(tmp_path, 'keep = "1y"') as site:
        folder = str(site.folder)
    with Site.open(folder) as site, alone(site.folder, 0.0):
        tidying(site)()
        assert site.readings.head().pruned is None, "another process is at it: a stream is not troubled by that"
        assert len(read_usage(site.folder)) == 1
    runner = CliRunner()
    assert "1 y" not in runner.invoke(app, ["prune", "--site", folder], input="n\n").output
    with Site.open(folder) as site:
        assert site.readings.head().pruned is None, "a no is a no"
        with alone(site.folder, 0.0), pytest.raises(SiteError, match="another process"), alone(site.folder, 0.0):
            pass
    assert runner.invoke(app, ["prune", "--site", folder, "--json"]).exit_code == 2
    asked = json.loads(runner.invoke(app, ["prune", "--site", folder, "--dry-run", "--json"]).output.splitlines()[-1])
    done = json.loads(runner.invoke(app, ["prune", "--site", folder, "--yes", "--json"]).output.splitlines()[-1])
    assert done["rows"] == asked["rows"]
    (Path(folder) / "site.toml").write_text('[retention]\nkeep = "200d"\nsnapshots = "0s"\n')
    with Site.open(folder) as site:
        tidy, before = tidying(site), site.readings.head().pruned
        tidy()
        assert site.readings.head().pruned == before, "that was today"
        (site.folder / "pruned.json").unlink()
        tidying(site)()
        assert site.readings.head().pruned > before
        assert not due(site.folder, time.time_ns())
        assert due(site.folder, time.time_ns() + 86_401 * 10**9)
    assert done["bytes"] > 0
    rows = json.loads(runner.invoke(app, ["status", "--site", folder, "--json"]).output.splitlines()[-1])["parts"]
    (disk,) = [row for row in rows if row["part"] == "disk"]
    assert disk["state"] in ("ok", "wrong")
    assert "archive" in disk["what"]
    assert "free" in disk["what"]
