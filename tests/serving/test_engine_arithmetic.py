"""The engine's arithmetic without a server: the network and the tick beside slow, obvious models."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import narrow_network
import numpy as np
import pytest
from callers import gone_after_a_piece
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.serving.backend import tick
from penstock.serving.backend.forward import BLOCK, DEPTHS, GRAPH, XLA, Shape, shape_of
from penstock.serving.backend.group import Group
from penstock.serving.backend.host import Stopped
from penstock.serving.backend.tick import EMPTY, FAILED, WRONG_SHAPE, answer_tick
from penstock.serving.backend.variants import KERNEL, ONNX, begin
from penstock.serving.backend.view import Resident, view_of

SHAPES = (Shape(4, 2, (3,), 1), Shape(3, 3, (2, 4), 2))
PER_SHAPE = 3


def weights(shape, seed):
    random = np.random.default_rng(seed)
    return {k: random.normal(0, 0.5, s).astype(np.float32) for k, s in shape.arrays().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow(shape, w, window):
    """docs/architecture.md, "Network", one window, one step, one gate at a time, in float64."""
    x = window.astype(np.float64)
    z = (x - w["relative"] * x[-1:] - w["mean"]) * w["inv"]
    rows = z
    for layer, units in enumerate(shape.units):
        h, c, out = np.zeros(units), np.zeros(units), []
        for row in rows:
            gates = row @ w[f"l{layer}.kernel"] + h @ w[f"l{layer}.recurrent"] + w[f"l{layer}.bias"]
            i, f, g, o = gates[:units], gates[units : 2 * units], gates[2 * units : 3 * units], gates[3 * units :]
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        rows = np.array(out)
    y = rows[-1] @ w["head.kernel"] + w["head.bias"] + z[-1] @ w["linear.kernel"]
    return y * w["out.scale"] + w["out.shift"] + x[-1] @ w["last"]


@pytest.fixture(scope="module", params=[KERNEL, XLA, GRAPH, ONNX])
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def engine(variant):
    """A view of two groups; slot 2 * i + s holds member i of shape s; slot 6 and 7 are empty."""
    groups, residents, arrays = [Group.begin(s, begin(variant, s)) for s in SHAPES], {}, {}
    for i in range(PER_SHAPE):
        for s, shape in enumerate(SHAPES):
            slot = 2 * i + s
            arrays[slot] = weights(shape, slot)
            groups[s], row = groups[s].add(arrays[slot])
            residents[slot] = Resident(
                born=slot + 1,
                slot=slot,
                name=f"m{slot}",
                version=10 + slot,
                digest="",
                card={},
                kind="lstm",
                shape=(shape.rows, shape.features, shape.outputs),
                host=f"g{s}",
                row=row,
                golden=(np.zeros(0), np.zeros(0), np.zeros(0)),
            )
    hosts = {f"g{s}": g for s, g in enumerate(groups)}
    return view_of(8, 77, residents, {}, hosts), arrays


@settings(max_examples=60, deadline=None)
@given(
    slots=st.lists(st.integers(-1, 9), min_size=1, max_size=14),
    wrong=st.sets(st.integers(0, 13)),
    seed=st.integers(0, 9),
)
def test_any_tick_is_answered_slot_by_slot(engine, slots, wrong, seed):
    view, arrays = engine
    random = np.random.default_rng(seed)
    windows, versions, values = [], [], []
    for i, slot in enumerate(slots):
        shape = SHAPES[slot % 2]
        size = (shape.rows + (i in wrong), shape.features)
        windows.append(random.normal(0, 1, size).astype(np.float32))
        version = EMPTY if slot not in arrays else WRONG_SHAPE if i in wrong else 10 + slot
        versions.append(version)
        values.append(slow(shape, arrays[slot], windows[-1]) if version >= 0 else np.zeros(0))
    answer = answer_tick(
        view,
        np.array(slots, np.int32),
        np.array([w.shape for w in windows], np.int32),
        np.concatenate([w.reshape(-1) for w in windows]),
        lambda: False,
    )
    assert answer.versions.tolist() == versions
    assert answer.widths.tolist() == [len(v) for v in values]
    assert np.isnan(answer.values[-1])
    np.testing.assert_allclose(answer.values[:-1], np.concatenate(values), rtol=2e-5, atol=2e-5)


def test_lengths_that_do_not_fit_are_refused(engine):
    view, _ = engine
    for slots, rows in (([0, 1], 8), ([0], 9), ([], 0)):
        with pytest.raises(ValueError, match="do not fit together"):
            answer_tick(view, np.array(slots, np.int32), np.array([[4, 2]]), np.zeros(rows, np.float32), bool)


def test_a_model_that_raises_fails_alone_and_the_log_says_why_once(engine, caplog, monkeypatch):
    class Broken:
        def run(self, rows, windows, cancelled):
            raise RuntimeError("no room left")

    monkeypatch.setattr(tick, "_said", {})
    view, _ = engine
    bad, good = (next(r for r in view.residents.values() if r.host == host) for host in ("g0", "g1"))
    view = replace(view, hosts={**view.hosts, "g0": Broken()})
    slots = np.array([bad.slot, good.slot], np.int32)
    shapes = np.array([bad.shape[:2], good.shape[:2]], np.int32)
    for _ in range(3):
        answer = answer_tick(view, slots, shapes, np.zeros(shapes.prod(axis=1).sum(), np.float32), lambda: False)
        assert answer.versions.tolist() == [FAILED, good.version]
        assert answer.widths.tolist() == [0, good.shape[2]]
    said = [r.getMessage() for r in caplog.records]
    assert said == [f"no prediction of {bad.name}@{bad.version}: RuntimeError: no room left"]


def test_a_caller_who_has_gone_stops_the_tick(engine):
    view, _ = engine
    with pytest.raises(Stopped):
        answer_tick(view, np.array([0]), np.array([[4, 2]]), np.zeros(8, np.float32), lambda: True)


@settings(max_examples=40, deadline=None)
@given(members=st.lists(st.integers(0, 2 * BLOCK + 2), min_size=1, max_size=80), seed=st.integers(0, 3))
def test_any_mixture_of_members_is_answered_each_by_its_own(crowd, members, seed):
    group, arrays = crowd
    shape = SHAPES[0]
    windows = np.random.default_rng(seed).normal(0, 1, (len(members), shape.rows, shape.features)).astype(np.float32)
    said = group.run(np.array(members), windows, lambda: False)
    wanted = np.array([slow(shape, arrays[m], x) for m, x in zip(members, windows, strict=True)])
    np.testing.assert_allclose(said, wanted, rtol=2e-5, atol=2e-5)


@pytest.fixture(scope="module")
def crowd(variant):
    """A group of two full blocks and a third, and the arrays of each member by its row."""
    group, arrays = Group.begin(SHAPES[0], begin(variant, SHAPES[0])), {}
    for seed in range(2 * BLOCK + 3):
        added = weights(SHAPES[0], 100 + seed)
        group, row = group.add(added)
        arrays[row] = added
    return group, arrays


def test_a_member_with_many_windows_takes_several_jobs(crowd):
    group, arrays = crowd
    count = DEPTHS[-1] * BLOCK + 3
    windows = np.random.default_rng(1).normal(0, 1, (count, 4, 2)).astype(np.float32)
    said = group.run_one(BLOCK + 1, windows, lambda: False)
    np.testing.assert_allclose(said[-1], slow(SHAPES[0], arrays[BLOCK + 1], windows[-1]), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(said[7], slow(SHAPES[0], arrays[BLOCK + 1], windows[7]), rtol=2e-5, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    features=st.integers(1, 20),
    units=st.lists(st.integers(1, 19), min_size=1, max_size=3),
    outputs=st.integers(1, 3),
    depth=st.integers(1, 9),
)
def test_machine_code_answers_any_shape_with_the_same_bits_whoever_else_is_asked(rows, features, units, outputs, depth):
    shape = Shape(rows, features, tuple(units), outputs)
    arrays = [weights(shape, seed) for seed in range(3)]
    group = Group.begin(shape, begin(KERNEL, shape))
    for added in arrays:
        group, _ = group.add(added)
    members = np.repeat(np.arange(3), depth)
    windows = np.random.default_rng(5).normal(0, 1, (3 * depth, rows, features)).astype(np.float32)
    said = group.run(members, windows, lambda: False)
    wanted = [slow(shape, arrays[m], x) for m, x in zip(members, windows, strict=True)]
    np.testing.assert_allclose(said, wanted, rtol=2e-5, atol=2e-5)
    for k in range(3 * depth):
        assert (group.run_one(members[k], windows[k : k + 1], lambda: False) == said[k]).all()


def test_processors_with_narrow_vectors_answer_alike(tmp_path):
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma"}
    found = []
    for name, told in (("as it is", {}), ("narrow", narrow)):
        words = [sys.executable, narrow_network.__file__, str(tmp_path / f"{name}.npz")]
        subprocess.run(words, env={**os.environ, **told}, check=True, timeout=300)
        found.append(dict(np.load(tmp_path / f"{name}.npz")))
    assert found[1]["lanes"] == 8
    shape = Shape(narrow_network.ROWS, narrow_network.INPUTS, (narrow_network.UNITS,) * 2, 1)
    arrays = dict(zip(shape.arrays(), (a[1] for a in narrow_network.arrays()), strict=True))
    wanted = [slow(shape, arrays, window) for window in narrow_network.windows()]
    for answers in found:
        np.testing.assert_allclose(answers["together"], wanted, rtol=2e-5, atol=2e-5)
        assert (answers["alone"] == answers["together"]).all()
        assert (answers["rows"] == answers["together"]).all()


def test_a_window_that_holds_no_number_gets_no_number(crowd):
    group, _ = crowd
    windows = np.ones((2, 4, 2), np.float32)
    windows[1, 0, 1] = np.nan
    said = group.run(np.array([0, 1]), windows, lambda: False)
    assert np.isfinite(said[0]).all()
    assert np.isnan(said[1]).all()


def test_whoever_has_gone_is_not_computed_for(crowd):
    group, _ = crowd
    with pytest.raises(Stopped):
        group.run(np.arange(2 * BLOCK + 3), np.zeros((2 * BLOCK + 3, 4, 2), np.float32), lambda: True)
    rows = np.repeat(np.arange(2 * BLOCK + 3), 200)
    with pytest.raises(Stopped):
        group.run(rows, np.zeros((len(rows), 4, 2), np.float32), gone_after_a_piece())


def test_a_new_member_changes_nothing_for_who_holds_the_old_group():
    shape = SHAPES[0]
    old, row = Group.begin(shape).add(weights(shape, 1))
    windows = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    before = old.run_one(row, windows, lambda: False)
    new, other = old.drop(row).add(weights(shape, 2))
    assert other == row
    assert (old.run_one(row, windows, lambda: False) == before).all()
    assert (new.run_one(row, windows, lambda: False) != before).all()


def test_arrays_that_are_missing_are_named():
    arrays = weights(SHAPES[1], 1)
    assert shape_of(arrays, 3) == SHAPES[1]
    del arrays["l1.bias"]
    with pytest.raises(ValueError, match=r"l1\.bias: found nothing, expected \(16,\)"):
        shape_of(arrays, 3)
