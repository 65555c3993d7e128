"""What models read together is what each would have read alone, and it is read once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import waterworks

from penstock.batch import plan as planning
from penstock.batch.history import Source, past, shelf_cells
from penstock.batch.plan import History, Wish
from penstock.data.archive import Archive
from penstock.data.plant import HOUR_NS, PrepareStep, RetrainSpec, Tag


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return waterworks.archive(tmp_path_factory.mktemp("site") / "archive")


def models() -> list[planning.ModelSpec]:
    return [
        waterworks.model("flow"),
        waterworks.model("load", targets=("load",), inputs=("valve",), window=3),
        waterworks.model("spare", targets=("spare",), inputs=("flow",), when="load > 50", prepare={
            "flow": (PrepareStep(name="mean", span_ns=20 * HOUR_NS),)
        }),
    ]  # fmt: skip


def test_a_shelf_gives_each_model_its_own_windows(history: History) -> None:
    jobs = waterworks.jobs(history, *models())
    shelf = jobs[0].shelf
    assert shelf is not None
    assert {job.shelf for job in jobs} == {shelf}
    assert shelf.ids == (0, 1, 2, 3)
    assert shelf.first < min(job.first - job.spec.depth + 1 for job in jobs) + 1
    shelf_cells.cache_clear()
    for job in jobs:
        where = (history.source, job.spec, job.ids, job.first, job.last)
        alone, together = past(*where), past(*where, job.shelf)
        np.testing.assert_array_equal(together.windows.x, alone.windows.x)
        np.testing.assert_array_equal(together.windows.reason, alone.windows.reason)
        np.testing.assert_array_equal(together.y, alone.y)
        np.testing.assert_array_equal(together.newest, alone.newest)
        assert (alone.windows.reason == 0).any()
    assert shelf_cells.cache_info().misses == 1


def test_only_neighbours_of_one_span_share_a_shelf(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    flow, load, spare = models()
    (alone,) = waterworks.jobs(history, flow)
    assert alone.shelf is None, "nobody else would use it"
    shorter = replace(load, retrain=RetrainSpec(span_ns=300 * HOUR_NS))
    shelves = {job.name: job.shelf for job in waterworks.jobs(history, flow, shorter, spare)}
    assert shelves["load"] is None
    assert shelves["flow"] == shelves["spare"] is not None
    monkeypatch.setattr(planning, "SHELF_BYTES", 1)
    assert [job.shelf for job in waterworks.jobs(history, flow, load, spare)] == [None] * 3
    assert [j.name for j in waterworks.jobs(history, flow, load, spare, wish=Wish(models=["load"]))] == ["load"]


def test_a_shelf_with_a_counter_leaves_the_others_float32(tmp_path: Path) -> None:
    """`Archive.read` gives float64 as soon as one of its tags is; what a model gets must not depend on that."""
    from penstock.batch.history import Shelf
    from penstock.data.grid import PRESENT, Cells, Grid

    archive = Archive.create(tmp_path / "archive", Grid(period_ns=HOUR_NS))
    with archive.committer() as committer:
        committer.admit(np.array([False, True]))
        for column, dtype in enumerate(("float32", "float64")):
            cells = Cells.empty(1024, 50, 1, np.dtype(dtype))
            cells.values[:, 0] = np.linspace(column + 0.1, column + 9.7, 50)
            cells.quality[:] = PRESENT
            committer.merge(dtype, 0, cells)
        snapshot = committer.commit(1, 1074, {}, {}).snapshot
    source, shelf = Source(folder=tmp_path / "archive", snapshot=snapshot), Shelf(ids=(0, 1), first=900, last=1074)
    plain, counter = Tag(name="plain"), Tag(name="counter", kind="counter", dtype="float64")
    for tag, number in ((plain, 0), (counter, 1)):
        alone = source.block([tag], [number], HOUR_NS, 1030, 1074)
        together = source.block([tag], [number], HOUR_NS, 1030, 1074, shelf)
        np.testing.assert_array_equal(together.values, alone.values)
        np.testing.assert_array_equal(together.flags, alone.flags)
    assert shelf_cells(source, shelf).values.dtype == np.float64
