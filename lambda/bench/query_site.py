"""The scratch site of `bench query`: a day and more of one unit at a tick a second, all of it recomputed or said.

The product's own writers make it: an import through journal and archive, the batch view before the seam, the speed
view from there on, packed as a stream's upkeep packs it. Only what the models say is made up: the truth and some noise.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.answers import truth_at
from penstock.batch.fleet import quiet_tensorflow
from penstock.bench.plant_site import make_site
from penstock.data.archive.archiver import drain
from penstock.data.durations import SECOND_NS
from penstock.data.frame import Dense
from penstock.data.journal import ClockDecision, Entry
from penstock.data.models import Draft
from penstock.data.simulator_station import SYSTEMS, Station
from penstock.data.views.batch_view import BatchView
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.windows import Reason
from penstock.site import Site

MODEL = "nox.U001"
LENGTH, INPUTS, UNITS = 24, 5, 16
DRAFTS_S = 300.0
GROUP = 256
"""Ticks that are said together."""
WITHHELD = 997
"""Every so many ticks nothing is predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What there is to ask for: ticks first..last-1, recomputed before the seam and said from there on."""

    first: int
    seam: int
    last: int


def filled(folder: Path, ticks: int, seam: int) -> tuple[Site, Past]:
    """The site, with `ticks` of readings, and answers of every model at all of them; the seam is the `seam`-th."""
    site = make_site(folder, 2)
    _models(site)
    station = Station(units=1, tags=len(SYSTEMS), period_ns=SECOND_NS)
    site.load(station.text().replace(",", f":0s..{ticks}s,", 1))
    first, last = site.readings.span()
    past = Past(first=first, seam=first + seam, last=last)
    said = {name: _said(site, name, np.arange(first, last)) for name in site.plant.models}
    for name, rows in said.items():
        BatchView.write(
            folder_of(site, name), rows.between(first, past.seam), first=first, last=past.seam,
            attributes={"model": name, "version": 1, "snapshot": site.readings.head().snapshot, "horizon": 0},
        )  # fmt: skip
    view = SpeedView.open(site.folder / "views" / "speed.sqlite")
    for begin in range(past.seam, last, GROUP):
        view.write(list(_spoken({n: r.between(begin, min(begin + GROUP, last)) for n, r in said.items()})))
        view.pack(1)
    view.close()
    return site, past


def go_on(site: Site, past: Past) -> Iterator[None]:
    """Says and archives a tick behind `past` at each step, as a stream does, until nobody wants more."""
    layout, grid = site.layout(), site.readings.grid
    tags = np.arange(len(site.registry), dtype=np.int32)
    view = SpeedView.open(site.folder / "views" / "speed.sqlite")
    with closing(view):
        for tick in count(past.last):
            row = Dense(
                times=grid.times(tick, tick + 1), tags=tags, values=np.full((1, len(tags)), tick % 97, np.float32),
                quality=np.zeros((1, len(tags)), np.uint8),
            )  # fmt: skip
            clock = ClockDecision(closed=tick, reason="watermark")
            site.journal.append([Entry(source="go on", source_offset=tick, parts=layout.split(row), clock=clock)])
            drain(site.journal, site.readings, layout)
            said = {name: _said(site, name, np.array([tick])) for name in site.plant.models}
            view.write(list(_spoken(said)))
            view.pack(1)
            yield


def folder_of(site: Site, name: str) -> Path:
    """Of a model's batch view."""
    return site.folder / "views" / "batch" / name


def _models(site: Site) -> None:
    """Version 1 of every model, of random weights, recorded as live."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:  # TensorFlow stays there
        made = pool.submit(_drafts, len(site.plant.models)).result(DRAFTS_S)
    for name, draft in zip(site.plant.models, made, strict=True):
        spec = site.spec(name)
        card = {**draft.card, "spec": spec.to_json(), "units": list(spec.target_units)}
        site.models.save(replace(draft, name=name, card=card))
        site.models.record(name, 1, "deploy", "bench")


def _drafts(count: int) -> list[Draft]:
    quiet_tensorflow()
    from penstock.batch.specimens import Size, drafts  # TensorFlow

    return list(drafts(Size(length=LENGTH, features=INPUTS, units=UNITS), count))


def _said(site: Site, name: str, ticks: NDArray[np.int64]) -> Predictions:
    truth = truth_at(site.desk(), site.spec(name), ticks)
    noise = np.random.default_rng(3).normal(0, 1, truth.shape).astype(np.float32)
    withheld = (ticks % WITHHELD == 0) | np.isnan(truth).any(axis=1)
    return Predictions(
        ticks=ticks,
        values=np.where(withheld[:, None], np.float32(np.nan), truth + noise),
        versions=np.where(withheld, 0, 1),
        reasons=np.where(withheld, Reason.BAD_INPUT, Reason.OK).astype(np.uint8),
        filled=ticks % 61 == 0,
        sample=np.zeros(len(ticks), np.bool_),
    )


def _spoken(said: dict[str, Predictions]) -> Iterator[Spoken]:
    rows = list(said.values())
    members = tuple((name, part.values.shape[1]) for name, part in said.items())
    for k, tick in enumerate(rows[0].ticks.tolist()):
        yield Spoken(
            tick=tick,
            members=members,
            values=np.concatenate([part.values[k] for part in rows]),
            versions=np.array([part.versions[k] for part in rows], np.int32),
            reasons=np.array([part.reasons[k] for part in rows], np.uint8),
            filled=np.array([part.filled[k] for part in rows], np.bool_),
            hashes=np.full(len(rows), tick, np.uint64),
            position=tick,
        )
