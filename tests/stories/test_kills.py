"""kill -9, again and again; what comes out is what an uninterrupted run gives.

1. A demo is killed at ten random moments: during import, training, deploy and while it streams;
   in turn the parent alone and its whole process group.
2. Each time it is started again with the same command, the last time to its end.
3. The archive is the source byte for byte, and no tick was said twice or not at all.
4. Every prediction equals the uninterrupted run's within 1e-5 of the target's scale.
5. No process, port or /dev/shm entry stays behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import leftovers
import numpy as np
import plain_archive
import pytest
from conftest import EPOCHS, TICKS, Demo
from demo_runs import MARK, answer, demo_words, first_tick, penstock

from penstock.data.models import ModelStore
from penstock.data.views.speed_view import SpeedView
from penstock.serving.triton import Triton

KILLS, EARLY = 10, 4
RATE = 36 * 3600.0
"""Event seconds per second while it may be killed: 400 ticks last 11 s."""
DEADLINE_S = 240.0


def said(site: Path) -> int:
    """Ticks in the speed view, read as a stranger would."""
    path = site / "views" / "speed.sqlite"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM said").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def moments(seed: int) -> list[tuple[float, int]]:
    """(seconds after the start, ticks said) at which each run dies: whichever is later; early ones by time alone."""
    dice = random.Random(seed)
    early = [(dice.uniform(1.0, 25.0), 0) for _ in range(EARLY)]
    late = sorted(dice.randrange(1, TICKS - 20) for _ in range(KILLS - EARLY))
    return early + [(dice.uniform(0.0, 0.5), ticks) for ticks in late]


def die(site: Path, mark: str, moment: tuple[float, int], whole_group: bool) -> str | None:
    """One run, killed at its moment; the endpoint of its Triton, if it had one by then."""
    told = site.with_suffix(".log")
    with told.open("wb") as out:
        run = subprocess.Popen(
            [sys.executable, "-m", "penstock", *demo_words(site, TICKS, EPOCHS, RATE)],
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, MARK: mark},
        )
    seconds, ticks = moment
    begun = time.monotonic()
    while said(site) < ticks and run.poll() is None and time.monotonic() < begun + DEADLINE_S:
        time.sleep(0.02)
    time.sleep(seconds)
    assert run.poll() is None, f"it ended before it was killed: {told.read_text()[-4000:]}"
    running = Triton.running(site / "triton")
    if whole_group:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        run.kill()
    run.wait(30)
    return running.endpoint if running else None


@pytest.mark.timeout(1500)
def test_killed_ten_times_it_says_what_it_would_have_said(demo: Demo, tmp_path: Path) -> None:
    site, mark = tmp_path / "site", uuid.uuid4().hex
    before = leftovers.shared_memory()
    endpoints = [die(site, mark, m, whole_group=i % 2 == 1) for i, m in enumerate(moments(seed=20140101))]
    report = answer(penstock(*demo_words(site, TICKS, EPOCHS), mark=mark))

    assert report["readings_lost"] == 0
    assert report["ticks"] == TICKS
    spans = [(year, 0, 10**6) for year in (2011, 2012, 2013)]
    plain_archive.check_equal(site, [*spans, (2014, 0, TICKS)])
    check_predictions(demo.site, site)

    assert leftovers.wait_until_gone(mark) == []
    assert not [e for e in endpoints if e and leftovers.listening(e)]
    assert leftovers.left_in_memory(before) == set()


def check_predictions(uninterrupted: Path, killed: Path) -> None:
    first = first_tick(2014)
    ours, theirs = (SpeedView.open(p / "views" / "speed.sqlite") for p in (killed, uninterrupted))
    for name in ("nox", "tey", "nox_ahead"):
        scale = ModelStore(uninterrupted / "models").load(name, 1).card["target_scale"][0]
        a, b = (view.read(name, first, first + TICKS) for view in (ours, theirs))
        assert a.ticks.tolist() == b.ticks.tolist()
        assert a.reasons.tolist() == b.reasons.tolist()
        assert np.array_equal(a.hashes, b.hashes)
        assert np.array_equal(np.isnan(a.values), np.isnan(b.values))
        assert np.nanmax(np.abs(a.values - b.values)) <= 1e-5 * scale
    ours.close()
    theirs.close()
