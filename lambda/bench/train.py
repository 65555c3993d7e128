"""`penstock bench train`: a fleet trained over Dask, beside a plain loop of Keras build + fit.

A scratch site with one template and as many units as models: 24 steps of 8 inputs, 32 units, 4,000 windows, 5
epochs. Ours is `train --all` whole: TensorFlow's import on the workers, reading, cutting, fitting, judging against two
baselines, saving; only the workers' start is not counted. The loop is measured on a few models and scaled.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from distributed import Client

from penstock.batch.history import Source
from penstock.batch.plan import History, Job, Wish, plan
from penstock.bench.keras_loop import Looped, loop
from penstock.bench.results import Load, Row, answer
from penstock.data.models import Artifact
from penstock.data.plants.simulated import simulated_plant
from penstock.data.simulator_station import SYSTEMS, Station
from penstock.errors import ModelError
from penstock.site import Site

WINDOWS = 4000
LOOPED = 5
"""Models of the loop that are measured."""
NOISE = 1.05
"""Losses are equal when ours is no larger than this times the largest of the loop's, whose seeds differ."""
LOOP_S = 1200.0
"""Longest wait for the loop."""
MODELS = """
[model.nox]
for_each = "unit"
target = "{unit}.NOX"
inputs = [
    "{unit}.FLAME_T", "{unit}.WATER", "{unit}.SPLIT", "{unit}.HUMIDITY", "{unit}.FUEL", "{unit}.IGV", "{unit}.POWER",
]
past_target = true
step = "1min"
window = "24min"
every = "1min"
prepare = { "*" = ["difference"] }
lstm = { units = 32, layers = 1, epochs = 5, patience = 5, change_from_last = true }
"""
Told = Callable[[str], None]


def run(models: int, told: Told = lambda text: None) -> dict[str, Any]:
    """The benchmark's JSON; `told` hears what it does. Raises what a site raises, ModelError where a model fails."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        told(f"a scratch site with {models} units")
        with scratch_site(Path(scratch), models) as site:
            told(f"a plain loop of {LOOPED} models, twice")
            peers, peers_load = loops(_jobs(site)[:LOOPED])
            client = site.parts.client()
            told(f"train {models} models on {len(client.nthreads())} workers")
            load, begun = Load(), time.monotonic()
            outcome = site.train_all(list(site.plant.models), progress=lambda done, of, text: told(text))
            seconds, others = time.monotonic() - begun, load.others()
            if outcome.failed:
                raise ModelError("\n".join(outcome.failed.values()))
            traced = traced_by(client)
    rows = list(_rows(models, seconds, outcome.trained, peers, traced))
    return answer("train", rows, max(others, peers_load))


def scratch_site(folder: Path, units: int, windows: int = WINDOWS) -> Site:
    """With as many readings as give so many windows per model."""
    station = Station(units=units, tags=len(SYSTEMS))
    path = folder / "plant.toml"
    path.write_text(simulated_plant(station).partition("[defaults.model]")[0] + MODELS)
    site = Site.create(folder / "site", path)
    depth = site.spec(next(iter(site.plant.models))).depth
    site.load(station.text().replace(",", f":0min..{windows + depth - 1}min,", 1))
    return site


def _jobs(site: Site) -> list[Job]:
    """What `train --all` will do."""
    head = site.readings.head()
    source = Source(folder=site.readings.folder, snapshot=head.snapshot)
    history = History(source=source, grid=site.readings.grid, first=head.span[0], last=head.span[1])
    return plan(site.plant, history, site.registry.lookup(), Wish(), home=site.folder, created="")


def loops(jobs: Sequence[Job]) -> tuple[list[Looped], float]:
    """The loop with the jobs' seed and with another one, each in a fresh process; what others used meanwhile."""
    others, found = 0.0, []
    for seed in (1, 2):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(os.getpid).result(LOOP_S)  # the process is there before its time is taken
            load = Load()
            asked = [replace(job, lstm=replace(job.lstm, seed=seed)) for job in jobs]
            found.append(pool.submit(loop, asked).result(LOOP_S))
            others = max(others, load.others())
    return found, others


def traced_by(client: Client) -> list[Mapping[str, int]]:
    """How often each worker traced a training step."""

    def read() -> dict[str, int]:
        from penstock.batch.passes import TRACED

        return dict(TRACED)

    return list(client.run(read).values())


def _rows(
    models: int,
    seconds: float,
    trained: Sequence[Artifact],
    peers: Sequence[Looped],
    traced: Sequence[Mapping[str, int]],
) -> list[Row]:
    measured = f"Keras build + fit, {LOOPED} measured and scaled"
    scaled = peers[0].import_s + models * fmean(peers[0].seconds)
    ours = fmean(float(a.card["fit"]["loss"]) for a in trained if a.name in _first(trained))
    losses = {f"the loop, seed {seed}": round(fmean(peer.losses), 5) for seed, peer in enumerate(peers, 1)}
    return [
        Row(
            what=f"train-{models}-vs-loop", unit="times faster", ours=round(scaled / seconds, 2),
            peers={measured: 1.0}, goal=4.0, better="higher",
        ),
        Row(what=f"train-{models}-s", unit="s", ours=round(seconds, 1), peers={measured: round(scaled, 1)}),
        Row(
            what=f"train-{models}-loss", unit="of the variance", ours=round(ours, 5), peers=losses,
            goal=round(NOISE * max(losses.values()), 5),
        ),
        Row(
            what=f"train-{models}-traces", unit="per worker", ours=max(t.get("step", 0) for t in traced), goal=1.0,
        ),
    ]  # fmt: skip


def _first(trained: Sequence[Artifact]) -> set[str]:
    """The models that the loop was measured on."""
    return set(sorted(artifact.name for artifact in trained)[:LOOPED])
