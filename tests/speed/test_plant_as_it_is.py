"""Tags as plants have them, streamed on real workers: the windows are those that a slow, obvious reading finds.

QUIET   reports on change, at least every 10 s          10 ... 10 ... 12 ........ (silent too long) ... 9
VALVE   a state: silence means unchanged, for 20 s
LEVEL   raw numbers, 0.1 % each, from -5 %
GAS     out of its range now and then: 7 stands in
LAB     the target, known 3 s after its time
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_site as small

from penstock.batch.history import Source, past
from penstock.cluster import local_cluster
from penstock.data.frame import Readings
from penstock.data.importing import importers
from penstock.data.scoring import Ask, Member, Said
from penstock.data.views.speed_view import SaidRows, SpeedView
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason, window_hash
from penstock.site import Site
from penstock.speed.clock import SourceClock
from penstock.speed.service import Service, Setup
from penstock.speed.sources.replay import Replay, together

PLANT = """
[plant]
name = "as it is"
period = "1s"
[tags]
QUIET = { reports = "on change", heartbeat = "10s" }
VALVE = { kind = "state", max_gap = "20s" }
LEVEL = { unit = "%", scale = 0.1, offset = -5.0 }
GAS = { range = [0, 50], substitute = 7.0 }
LAB = { truth_delay = "3s" }
[model.lab]
target = "LAB"
inputs = ["QUIET", "VALVE", "LEVEL", "GAS"]
past_target = true
step = "1s"
window = "4s"
every = "1s"
"""
TICKS, LENGTH, DELAY, HEARTBEAT, STATE = 120, 4, 3, 10, 20
FIRST = int(np.datetime64("2024-03-01T00:00:00", "s").astype(np.int64))
RANDOM = np.random.default_rng(6)
REPORTS = [0, 8, 15, 24, 33, 60, 69, 78, 86, 95, 104, 113]
QUIET = dict(zip(REPORTS, [10, 10, 12, 12, 12.5, 9, 9, 9.5, 9.5, 9.5, 9.5, 9.5], strict=True))
"""By tick. Silent from 34 to 59: longer than the heartbeat from 44 on."""
VALVE = {0: 1.0, 12: 0.0, 30: 1.0, 47: 1.0, 66: 0.0, 82: 1.0, 101: 0.0}
LEVEL = RANDOM.integers(0, 1000, TICKS)
GAS = np.where(RANDOM.random(TICKS) < 0.1, 99.0, RANDOM.normal(20, 3, TICKS).round(2))
LAB = RANDOM.normal(50, 9, TICKS).round(2)


def held(reported: dict[int, float], tick: int, longest: int) -> float:
    """The newest report, NaN where it is too old."""
    known = [t for t in reported if t <= tick]
    return reported[known[-1]] if known and tick - known[-1] <= longest else math.nan


def row(tick: int) -> list[float]:
    level, gas = LEVEL[tick] * 0.1 - 5.0, GAS[tick] if GAS[tick] <= 50 else 7.0
    lab = LAB[tick - DELAY] if tick >= DELAY else math.nan
    return [held(QUIET, tick, HEARTBEAT), held(VALVE, tick, STATE), level, gas, lab]


def window(tick: int) -> np.ndarray:
    return np.array([row(t) for t in range(tick - LENGTH + 1, tick + 1)])


def csv(path: Path) -> Path:
    lines = ["time,tag,value"]
    for i in range(TICKS):
        values = {"LEVEL": LEVEL[i], "GAS": GAS[i], "LAB": LAB[i]}
        values |= {"QUIET": QUIET[i]} if i in QUIET else {}
        values |= {"VALVE": VALVE[i]} if i in VALVE else {}
        lines += [f"{np.datetime64(FIRST + i, 's')}Z,{tag},{value}" for tag, value in values.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


class Heard(small.Means):
    """Keeps what it is asked."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        super().__init__(members)
        self.windows: list[np.ndarray] = []

    def score(self, asks: list[Ask]) -> list[Said]:
        self.windows += [a.windows.copy() for a in asks]
        return super().score(asks)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, SaidRows, np.ndarray]]:
    """The site, what was said, and the windows behind it."""
    folder = tmp_path_factory.mktemp("plant")
    (folder / "plant.toml").write_text(PLANT)
    file = csv(folder / "live.csv")
    with Site.create(folder / "site", folder / "plant.toml") as site, local_cluster(2) as client:
        spec = WindowSpec.of(site.plant.model("lab"), site.plant)
        heard = Heard((Member(name="lab", version=1, slot=0, spec=spec),))

        def blocks() -> Iterator[Readings]:
            for chunk in importers.read(file, site.plant, site.registry, block_bytes=900):
                yield together(chunk.readings)

        setup = Setup(
            site=site.folder, grid=site.readings.grid, layout=site.layout,
            resolve=lambda names: np.array([site.desk().ids[n] for n in names], np.int32),
            sources=[(Replay("live", blocks, group=5), SourceClock())], scoring=heard,
            scheduler=client.scheduler.address, commit_every_s=0.2,
        )  # fmt: skip
        assert asyncio.run(Service(setup).run()).ticks == TICKS
        said = SpeedView.open(site.folder / "views" / "speed.sqlite").read("lab", FIRST, FIRST + TICKS)
        yield site, said, np.concatenate(heard.windows)


def test_live_windows_are_those_of_an_obvious_reading(streamed: tuple[Site, SaidRows, np.ndarray]) -> None:
    _, said, windows = streamed
    fit = {t for t in range(DELAY + LENGTH - 1, TICKS) if np.isfinite(window(t)).all()}
    assert {int(t) - FIRST for t in said.ticks[said.reasons == Reason.OK]} == fit
    np.testing.assert_allclose(windows, np.stack([window(t) for t in sorted(fit)]), rtol=1e-6)
    assert {40, 43} <= fit, "a tag that has been silent for seven seconds of its ten is well"
    assert not set(range(44, 60)) & fit, "one that is silent for longer is not"
    assert set(range(44, 60)) <= {int(t) - FIRST for t in said.ticks[said.reasons == Reason.BAD_INPUT]}


def test_only_what_stands_in_is_marked_as_filled(streamed: tuple[Site, SaidRows, np.ndarray]) -> None:
    _, said, _ = streamed
    for tick in said.ticks[said.reasons == Reason.OK] - FIRST:
        stands_in = bool((GAS[tick - LENGTH + 1 : tick + 1] > 50).any())
        assert bool(said.filled[tick]) == stands_in, f"tick {tick}"
    assert said.filled.any()


def test_the_batch_layer_cuts_the_same(streamed: tuple[Site, SaidRows, np.ndarray]) -> None:
    site, said, _ = streamed
    spec = WindowSpec.of(site.plant.model("lab"), site.plant)
    ids = [site.desk().ids[tag.name] for tag in spec.stored]
    source = Source(folder=site.readings.folder, snapshot=site.readings.head().snapshot)
    cut = past(source, spec, ids, FIRST, FIRST + TICKS).windows
    assert np.array_equal(said.ticks, cut.ends)
    ok = cut.reason == Reason.OK
    assert np.array_equal(said.reasons == Reason.OK, ok)
    assert np.array_equal(said.hashes[ok], window_hash(np.ascontiguousarray(cut.x[ok])))
