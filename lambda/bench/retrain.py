"""`penstock bench retrain`: a fleet retrained and judged, beside a plain loop that builds, fits and judges.

Ours is `penstock retrain` whole, through its own code, on two Dask workers: the plan with the newest rows kept back,
reading, cutting, fitting, saving, then the gate - new version, live version, ridge and persistence on those rows - and
its verdict in card and record. Nothing is promoted. Every model begins anew: no warm starts. The loop is measured on a
few models and scaled.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from penstock.batch.history import Source
from penstock.batch.plan import History, Job, Wish, judged_ticks, plan
from penstock.bench.keras_loop import Before, Looped, loop
from penstock.bench.results import Load, Row, answer
from penstock.bench.train import LOOP_S, LOOPED, WINDOWS, Told, scratch_site
from penstock.errors import ModelError
from penstock.retraining import now, retrain
from penstock.site import Site

GOAL = 4.0
FIRST = {"epochs": 1}
"""How the versions were trained that are live before."""


def run(models: int, told: Told = lambda text: None, *, windows: int = WINDOWS) -> dict[str, Any]:
    """The benchmark's JSON; `told` hears what it does. Raises what a site raises, ModelError where a model fails."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        told(f"a scratch site with {models} units")
        with scratch_site(Path(scratch), models, windows) as site:
            names = list(site.plant.models)
            told(f"the first versions of {models} models, which are live")
            _live(site, names)
            site.parts.close()  # what is retrained finds workers as cron does: they have done nothing yet
            looped = min(LOOPED, models)
            told(f"a plain loop of {looped} models")
            peer, peer_load = _loop(site, looped)
            client = site.parts.client()
            told(f"retrain {models} models on {len(client.nthreads())} workers")
            load, begun, steps = Load(), time.monotonic(), dict[str, float]()

            def step(what: str, name: str) -> None:
                steps[what] = time.monotonic()
                told(f"{what} {name}")

            done = retrain(site, names, now=now(), told=step)
            seconds, others = time.monotonic() - begun, load.others()
    untrained = [result.why for result in done.results if result.version is None or result.verdict is None]
    if untrained:
        raise ModelError("\n".join(untrained))
    return answer("retrain", _rows(models, looped, seconds, steps["stored"] - begun, peer), max(others, peer_load))


def _live(site: Site, names: list[str]) -> None:
    outcome = site.train_all(names, lstm=FIRST)
    if outcome.failed:
        raise ModelError("\n".join(outcome.failed.values()))
    for artifact in outcome.trained:
        site.models.record(artifact.name, artifact.version, "deploy", "bench")


def _loop(site: Site, looped: int) -> tuple[Looped, float]:
    """The loop in a fresh process, and what others used meanwhile."""
    jobs = _jobs(site)[:looped]
    head = site.readings.head()
    first, last = head.span
    before = {}
    for job in jobs:
        begin = last - judged_ticks(site.plant.model(job.name).retrain, site.readings.grid, first, last)
        before[job.name] = Before(keras=site.artifact(job.name, 1).keras, first=begin, last=last)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(os.getpid).result(LOOP_S)  # the process is there before its time is taken
        load = Load()
        return pool.submit(loop, jobs, before).result(LOOP_S), load.others()


def _jobs(site: Site) -> list[Job]:
    """What the retrain will do."""
    head = site.readings.head()
    source = Source(folder=site.readings.folder, snapshot=head.snapshot)
    history = History(source=source, grid=site.readings.grid, first=head.span[0], last=head.span[1])
    wish = Wish(held_out=True)
    return plan(site.plant, history, site.registry.lookup(), wish, home=site.folder, created="")


def _rows(models: int, looped: int, seconds: float, trained_s: float, peer: Looped) -> list[Row]:
    measured = f"Keras build + fit + predict, {looped} measured and scaled"
    scaled = peer.import_s + models * fmean(peer.seconds)
    return [
        Row(
            what=f"retrain-{models}-vs-loop", unit="times faster", ours=round(scaled / seconds, 2),
            peers={measured: 1.0}, goal=GOAL, better="higher",
        ),
        Row(what=f"retrain-{models}-s", unit="s", ours=round(seconds, 1), peers={measured: round(scaled, 1)}),
        Row(what=f"retrain-{models}-trained-s", unit="s, of it until all are trained", ours=round(trained_s, 1)),
    ]  # fmt: skip
