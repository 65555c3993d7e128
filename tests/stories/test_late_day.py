"""A day that was missing is imported while the stream runs.

1. A site streams rows of 2014 from a file that lacks one day.
2. Meanwhile `penstock import` brings that day: accepted, archived, marked late; the stream does not stop.
3. The late list is the same when the journal is read again from its start.
4. So are the watermarks and the windows: a shard that folds the journal anew cuts what was said.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import plain_archive
from conftest import TICKS, Demo
from demo_runs import MARK, answer, first_tick, gas_turbine, penstock

from penstock.data.journal.ledger import late_list, late_ranges
from penstock.data.scoring import Member
from penstock.data.views.speed_view import SpeedView
from penstock.data.windows import WindowSpec
from penstock.site import Site
from penstock.speed.cutting import cut_all
from penstock.speed.plan import ReadPlan
from penstock.speed.rows import Newest
from penstock.speed.shard import Step, run_step

LAST = TICKS + 200
DAY = range(TICKS + 40, TICKS + 64)
"""Rows of 2014 that the stream does not bring."""


def write_rows(path: Path, rows: list[int]) -> None:
    folder = gas_turbine()
    assert folder is not None
    with (folder / "gt_2014.csv").open() as source, path.open("w", newline="") as out:
        lines = list(csv.reader(source))
        writer = csv.writer(out)
        writer.writerow(["time", *lines[0]])
        start = np.datetime64("2014-01-01T00", "h")
        writer.writerows([[f"{start + row}:00:00Z".replace("T", " "), *lines[row + 1]] for row in rows])


def wait_for_tick(site: Path, tick: int, deadline_s: float = 120.0) -> None:
    until = time.monotonic() + deadline_s
    view = SpeedView.open(site / "views" / "speed.sqlite")
    while (view.last_tick() or 0) < tick:
        assert time.monotonic() < until, "the stream does not get there"
        time.sleep(0.05)
    view.close()


def test_a_missing_day_comes_in_while_the_stream_runs(demo: Demo, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(demo.site, site)
    stream_csv, day_csv = tmp_path / "stream.csv", tmp_path / "day.csv"
    write_rows(stream_csv, [r for r in range(TICKS, LAST) if r not in DAY])
    write_rows(day_csv, list(DAY))
    first = first_tick(2014)

    stream = subprocess.Popen(
        [
            *(sys.executable, "-m", "penstock", "stream", "-s", str(site), "--replay", str(stream_csv)),
            *("--rate", str(20 * 3600), "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: "late"},
    )
    wait_for_tick(site, first + DAY.stop + 10)
    imported = answer(penstock("import", str(day_csv), "-s", str(site), "--json"))
    assert stream.poll() is None, "the stream stopped"
    out, err = stream.communicate(timeout=180)
    assert stream.returncode == 0, err[-4000:]
    told = json.loads(out.splitlines()[-1])

    assert imported["accepted"] == len(DAY) * 11
    assert told["late"] == len(DAY) * 11
    assert told["failed_requests"] == 0
    spans = [(year, 0, 10**6) for year in (2011, 2012, 2013)]
    late = range(first + DAY.start, first + DAY.stop)
    plain_archive.check_equal(site, [*spans, (2014, 0, LAST)], late)
    check_log_tells_the_same(site, first + TICKS, first + LAST)


def check_log_tells_the_same(folder: Path, first: int, last: int) -> None:
    with Site.open(folder) as site:
        journal, layout, grid = site.journal, site.layout(), site.readings.grid
        assert journal.first == 0
        written = late_list(folder / "journal")
        assert written == late_ranges(journal, 0, journal.tail, layout, grid)
        assert sum(row.count for row in written) == len(DAY) * 11
        members = [
            Member(name=name, version=1, slot=0, spec=WindowSpec.of(model, site.plant))
            for name, model in site.plant.models.items()
        ]
        plan = ReadPlan.of([m.spec for m in members], site.registry.ids, layout, grid)
        newest = Newest(plan)
        for part in plan.shards:
            whole = Step(
                site=str(folder),
                shard=part.shard,
                start=0,
                stop=journal.tail,
                want=first - plan.depth + 1,
                plan=part.save(folder / "speed"),
            )
            newest.add(part.shard, run_step(whole))
        check_windows(folder, members, newest, first, last)


def check_windows(folder: Path, members: list[Member], newest: Newest, first: int, last: int) -> None:
    view = SpeedView.open(folder / "views" / "speed.sqlite")
    said = {m.name: view.read(m.name, first, last) for m in members}
    view.close()
    tick = first
    while tick < last:
        assert newest.ready(tick)
        ready = min(newest.bring_up(tick), last)
        for name, again in cut_all(members, newest, tick, ready).items():
            rows = said[name]
            at = np.searchsorted(rows.ticks, again.ticks)
            assert rows.ticks[at].tolist() == again.ticks.tolist()
            assert rows.reasons[at].tolist() == again.reasons.tolist()
            assert rows.hashes[at].tolist() == again.hashes.tolist()
        tick = ready
