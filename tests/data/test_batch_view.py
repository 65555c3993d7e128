"""The batch view's repository: spans replaced in one commit, read back exactly."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.views.batch_view import BatchView
from penstock.data.views.predictions import Predictions
from penstock.errors import ArchiveError


def rows(ticks: list[int], version: int = 1, outputs: int = 2) -> Predictions:
    t = np.array(ticks, np.int64)
    return Predictions(
        ticks=t,
        values=(t[:, None] * 10 + version + np.arange(outputs)).astype(np.float32),
        versions=np.full(len(t), version, np.int64),
        reasons=(t % 3).astype(np.uint8),
        filled=t % 2 == 0,
        sample=t < 50,
    )


def same(found: Predictions, expected: Predictions) -> None:
    for name, array in expected.columns().items():
        got = found.columns()[name]
        assert got.dtype == array.dtype, name
        np.testing.assert_array_equal(got, array)


def opened(folder: Path) -> BatchView:
    view = BatchView.open(folder)
    assert view is not None
    return view


def test_nothing_computed_yet(tmp_path: Path) -> None:
    assert BatchView.open(tmp_path / "nox") is None


def test_written_rows_come_back(tmp_path: Path) -> None:
    BatchView.write(tmp_path, rows([2, 5, 9]), first=0, last=12, attributes={"model": "nox", "version": 1})
    view = opened(tmp_path)
    same(view.read(0, 100), rows([2, 5, 9]))
    same(view.read(5, 9), rows([5]))
    same(view.read(6, 6), Predictions.nothing(2))
    same(view.read(9, 2), Predictions.nothing(2))
    assert view.seam == 12
    assert view.attributes == {"model": "nox", "version": 1, "start": 0, "seam": 12}


def test_an_opened_view_does_not_move(tmp_path: Path) -> None:
    BatchView.write(tmp_path, rows([1]), first=0, last=2, attributes={})
    before = opened(tmp_path)
    BatchView.write(tmp_path, rows([3], 2), first=2, last=4, attributes={})
    same(before.read(0, 9), rows([1]))
    assert before.seam == 2
    assert opened(tmp_path).seam == 4


def test_old_commits_go_when_their_time_has_come(tmp_path: Path) -> None:
    many = np.random.default_rng(1).normal(size=(20_000, 2)).astype(np.float32)
    for version in range(1, 9):
        drawn = rows(list(range(len(many))), version)
        noisy = Predictions(**{**drawn.columns(), "values": np.roll(many, version, axis=0)})
        BatchView.write(tmp_path, noisy, first=0, last=len(many), attributes={}, older_than_ns=0)
    before = opened(tmp_path).read(0, 50)
    large = bytes_in(tmp_path)
    BatchView.write(tmp_path, rows([60_000]), first=60_000, last=60_001, attributes={}, older_than_ns=time.time_ns())
    assert bytes_in(tmp_path) < large / 4
    same(opened(tmp_path).read(0, 50), before)
    same(opened(tmp_path).read(60_000, 60_001), rows([60_000]))
    BatchView.write(tmp_path, rows([60_002]), first=60_002, last=60_003, attributes={})
    assert opened(tmp_path).seam == 60_003


def bytes_in(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def test_rows_outside_the_span_or_of_another_width_are_refused(tmp_path: Path) -> None:
    BatchView.write(tmp_path, rows([1]), first=0, last=2, attributes={})
    for ticks in ([5, 4], [1, 20]):
        with pytest.raises(ArchiveError, match="must rise inside"):
            BatchView.write(tmp_path, rows(ticks), first=0, last=10, attributes={})
    with pytest.raises(ArchiveError, match="targets changed"):
        BatchView.write(tmp_path, rows([3], outputs=1), first=2, last=10, attributes={})
    same(opened(tmp_path).read(0, 10), rows([1]))


Span = tuple[int, int, set[int]]


@st.composite
def spans(draw: st.DrawFn) -> Span:
    first = draw(st.integers(0, 40))
    last = draw(st.integers(first, 60))
    return first, last, draw(st.sets(st.integers(first, last - 1))) if last > first else set()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(spans(), min_size=1, max_size=5))
def test_a_view_is_a_dictionary_by_tick(tmp_path_factory: pytest.TempPathFactory, writes: list[Span]) -> None:
    folder = tmp_path_factory.mktemp("view")
    model: dict[int, int] = {}
    for version, (first, last, ticks) in enumerate(writes, start=1):
        BatchView.write(folder, rows(sorted(ticks), version), first=first, last=last, attributes={"version": version})
        model = {t: v for t, v in model.items() if not first <= t < last} | dict.fromkeys(ticks, version)
    found = opened(folder).read(0, 100)
    assert dict(zip(found.ticks.tolist(), found.versions.tolist(), strict=True)) == model
    assert found.ticks.tolist() == sorted(model)
    np.testing.assert_array_equal(found.values[:, 0], found.ticks * 10 + found.versions)
    assert opened(folder).seam == max(last for _, last, _ in writes)


def write_for_ever(folder: Path, life: int) -> None:
    for n in range(1000):
        version = life * 1000 + n
        BatchView.write(folder, rows(list(range(200)), version), first=0, last=200, attributes={"version": version})


def test_kill_9_between_commits_leaves_one_whole_version(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for life, pause in enumerate((0.0, 0.03, 0.07, 0.15), start=1):
        writer = context.Process(target=write_for_ever, args=(tmp_path, life))
        writer.start()
        assert writer.pid is not None
        deadline = time.monotonic() + 30
        while version(tmp_path) < life * 1000 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(10)
        found = opened(tmp_path).read(0, 200)
        assert len(found.ticks) == 200
        assert set(found.versions.tolist()) == {version(tmp_path)}
        assert version(tmp_path) >= life * 1000


def version(folder: Path) -> int:
    view = BatchView.open(folder)
    return 0 if view is None else int(view.attributes["version"])
