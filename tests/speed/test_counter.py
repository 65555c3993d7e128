"""A float64 counter beside float32 tags: imported, then streamed from long files, and no bit is lost on the way.

The counter stands near 2^40: as float32 it would step by 131,072, so its increments live only if the
difference is taken before the cast. Half of the history is imported, the other half is replayed through
the service on real workers; the first live windows reach back into the imported half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_site as small

from penstock.batch.history import Source, past
from penstock.cluster import local_cluster
from penstock.data.frame import Readings
from penstock.data.importing import importers
from penstock.data.scoring import Member
from penstock.data.views.speed_view import SpeedView
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason, window_hash
from penstock.site import Site
from penstock.speed.clock import SourceClock
from penstock.speed.plan import ReadPlan
from penstock.speed.service import Service, Setup
from penstock.speed.shard import Step, run_step
from penstock.speed.sources.replay import Replay, together

PLANT = """
[plant]
name = "meter"
period = "1s"
[tags]
T = { unit = "degC", max_gap = "2s" }
P = { unit = "bar", max_gap = "2s" }
E = { unit = "kWh", dtype = "float64", kind = "counter" }
V = { unit = "m3", dtype = "float64" }
[model.flow]
target = "T"
inputs = ["P", "E"]
past_target = true
step = "1s"
window = "4s"
every = "1s"
"""
HALF, ALL = 60, 150
FIRST = int(np.datetime64("2024-03-01T00:00:00", "s").astype(np.int64))
RANDOM = np.random.default_rng(5)
INCREMENTS = RANDOM.integers(1, 40, ALL) / 8
COUNTER = 2.0**40 + np.cumsum(INCREMENTS)
PLAIN = RANDOM.normal(20, 5, (ALL, 2)).round(3)


def long_csv(path: Path, first: int, last: int) -> Path:
    lines = ["time,tag,value"]
    for i in range(first, last):
        at = np.datetime64(FIRST + i, "s")
        lines += [f"{at}Z,{tag},{value!r}" for tag, value in (("E", float(COUNTER[i])), ("V", float(COUNTER[i]) / 3))]
        lines += [f"{at}Z,{tag},{value!r}" for tag, value in zip("TP", PLAIN[i].tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Both halves in, the second through the service."""
    folder = tmp_path_factory.mktemp("meter")
    (folder / "plant.toml").write_text(PLANT)
    with Site.create(folder / "site", folder / "plant.toml") as site, local_cluster(2) as client:
        site.load(long_csv(folder / "history.csv", 0, HALF))
        live = long_csv(folder / "live.csv", HALF, ALL)
        spec = WindowSpec.of(site.plant.model("flow"), site.plant)

        def blocks() -> Iterator[Readings]:
            for chunk in importers.read(live, site.plant, site.registry, block_bytes=700):
                yield together(chunk.readings)

        setup = Setup(
            site=site.folder, grid=site.readings.grid, layout=site.layout,
            resolve=lambda names: np.array([site.desk().ids[n] for n in names], np.int32),
            sources=[(Replay("live", blocks, group=7), SourceClock())],
            scoring=small.Means((Member(name="flow", version=1, slot=0, spec=spec),)),
            scheduler=client.scheduler.address, commit_every_s=0.2,
        )  # fmt: skip
        report = asyncio.run(Service(setup).run())
        assert (report.readings, report.ticks, report.late) == (4 * (ALL - HALF), ALL - HALF, 0)
        yield site


def test_every_bit_is_in_the_archive(streamed: Site) -> None:
    ids = streamed.registry.ids(["E", "V", "T", "P"])
    cells = streamed.readings.read(ids, FIRST, FIRST + ALL)
    assert cells.values[:, 0].tobytes() == COUNTER.tobytes()
    assert cells.values[:, 1].tobytes() == (COUNTER / 3).tobytes()
    assert np.array_equal(cells.values[:, 2:].astype(np.float32), PLAIN.astype(np.float32))
    assert streamed.layout().shard_count() == 4


def test_the_difference_comes_before_the_cast_and_both_layers_cut_the_same_windows(streamed: Site) -> None:
    spec = WindowSpec.of(streamed.plant.model("flow"), streamed.plant)
    ids = [streamed.desk().ids[tag.name] for tag in spec.stored]
    source = Source(folder=streamed.readings.folder, snapshot=streamed.readings.head().snapshot)
    training = past(source, spec, ids, FIRST + HALF, FIRST + ALL)
    ok = training.windows.reason == Reason.OK
    assert ok.all()
    column = [f.name for f in spec.features].index("E")
    rows = training.windows.x[:, -1, column]
    assert rows.tobytes() == INCREMENTS[HALF:].astype(np.float32).tobytes()
    said = SpeedView.open(streamed.folder / "views" / "speed.sqlite").read("flow", FIRST + HALF, FIRST + ALL)
    assert np.array_equal(said.ticks, training.ends)
    assert np.array_equal(said.hashes, window_hash(np.ascontiguousarray(training.windows.x)))


def test_shard_rows_are_the_rows_of_the_batch_layer(streamed: Site) -> None:
    desk = streamed.desk()
    spec = WindowSpec.of(streamed.plant.model("flow"), streamed.plant)
    plan = ReadPlan.of(
        [spec], lambda names: np.array([desk.ids[n] for n in names], np.int32), streamed.layout(), desk.grid
    )
    assert {s.dtype for s in plan.shards} == {"float32", "float64"}
    source = Source(folder=streamed.readings.folder, snapshot=streamed.readings.head().snapshot)
    for shard in plan.shards:
        name = shard.save(streamed.folder / "speed")
        step = Step(
            site=str(streamed.folder), shard=shard.shard, start=streamed.journal.first, stop=streamed.journal.tail,
            want=FIRST + HALF, plan=name,
        )  # fmt: skip
        newest = run_step(step)[-1].block
        tags = [c.tag for c in shard.columns]
        batch = source.block(tags, shard.ids.tolist(), desk.grid.period_ns, newest.first, newest.last)
        assert newest.last == FIRST + ALL
        assert newest.values.tobytes() == batch.values.tobytes()
        assert newest.flags.tobytes() == batch.flags.tobytes()
