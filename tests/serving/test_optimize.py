"""The ways to execute a group: tried beside a running Triton, the fastest right one kept and remembered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from penstock.errors import BadRequest
from penstock.serving.backend.choices import FILE, remember
from penstock.serving.backend.forward import GRAPH, HALF, XLA, Shape
from penstock.serving.backend.group import Group
from penstock.serving.backend.trials import begun, entry_of, optimized
from penstock.serving.backend.variants import KERNEL, NAMES, ONNX, begin
from penstock.serving.canary import canary
from penstock.serving.optimize import optimize
from penstock.serving.pool import Pool

SHAPE = Shape(5, 3, (8,), 1)


def member(seed, relative):
    random = np.random.default_rng(seed)
    arrays = {name: random.normal(0, 0.5, size).astype(np.float32) for name, size in SHAPE.arrays().items()}
    return arrays | {"relative": np.float32([0, 0, relative])}


def three(relative=0.5):
    """A group of three members, and the golden windows of each."""
    group, golden = Group.begin(SHAPE, begin(GRAPH, SHAPE)), {}
    for seed in range(3):
        group, row = group.add(member(seed, relative))
        windows = np.random.default_rng(seed).normal(size=(2, 5, 3)).astype(np.float32)
        golden[row] = (windows, group.run_one(row, windows, lambda: False), np.ones(1, np.float32))
    return group, golden


@pytest.fixture
def filled():
    return three()


def noted(folder, group, tolerance, trials=()):
    remember(folder, "shape", entry_of(group.variant.name, tolerance, len(group.used), list(trials)))


def test_the_fastest_right_way_is_taken_and_answers_alike(filled):
    group, golden = filled
    best, trials = optimized(group, golden)
    assert [t.variant for t in trials] == list(NAMES)
    by_name = {t.variant: t for t in trials}
    assert not by_name[HALF].right
    assert "allowed: 1e-05" in by_name[HALF].why
    right = [t for t in trials if t.right]
    assert {t.variant for t in right} == {KERNEL, XLA, GRAPH, ONNX}
    assert best.variant.name == min(right, key=lambda t: t.tick_us).variant
    for row, (windows, said, _) in golden.items():
        np.testing.assert_allclose(best.run_one(row, windows, lambda: False), said, atol=1e-5)


def test_what_counts_is_the_live_tick_by_rows_where_members_have_states(filled):
    by_windows = {t.variant: t for t in optimized(*filled)[1]}
    by_rows = {t.variant: t for t in optimized(*three(relative=0))[1]}
    assert by_windows[KERNEL].tick_us == by_windows[KERNEL].one_us
    assert by_rows[KERNEL].tick_us != by_rows[KERNEL].one_us
    assert all(by_rows[name].tick_us == by_rows[name].one_us for name in (XLA, GRAPH, ONNX))


def test_one_member_that_a_way_answers_wrong_rules_it_out(filled):
    group, golden = filled
    windows, said, scale = golden[2]
    best, trials = optimized(group, {**golden, 2: (windows, said + 1, scale)})
    assert not any(t.right for t in trials)
    assert best is group


def test_a_wider_tolerance_lets_half_precision_in_and_is_kept_for_later_members(filled, tmp_path):
    group, golden = filled
    best, trials = optimized(group, golden, 0.1)
    assert all(t.right for t in trials)
    noted(tmp_path, group.executed_by(begin(HALF, SHAPE), 0.1), 0.1, trials)
    again = begun(SHAPE, "shape", tmp_path)
    assert (again.variant.name, again.tolerance) == (HALF, 0.1)
    assert best.tolerance == 0.1


def test_a_choice_made_on_another_machine_counts_no_more(filled, tmp_path):
    group, _ = filled
    noted(tmp_path, group.executed_by(begin(XLA, SHAPE), 1e-3), 1e-3)
    assert begun(SHAPE, "shape", tmp_path).variant.name == XLA
    stored = json.loads((tmp_path / FILE).read_text())
    stored["shape"]["machine"] = "another one"
    (tmp_path / FILE).write_text(json.dumps(stored))
    assert begun(SHAPE, "shape", tmp_path).variant.name == KERNEL
    (tmp_path / FILE).write_text("cut sho")
    assert begun(SHAPE, "shape", tmp_path).variant.name == KERNEL


def test_a_member_that_comes_makes_no_session_of_the_others_anew():
    group = Group.begin(SHAPE, begin(ONNX, SHAPE))
    group, first = group.add(member(1, 0))
    before = group.blocks[0].ready
    group, second = group.add(member(2, 0))
    after = group.blocks[0].ready
    assert after[first] is before[first]
    assert after[second] is not before[second]
    assert len({id(session) for session in after}) == 3, "two members, and the rows of nobody"


def test_a_way_whose_packages_are_missing_is_told_with_the_remedy(monkeypatch, filled):
    monkeypatch.setattr("penstock.serving.backend.variants.find_spec", lambda name: None)
    best, trials = optimized(*filled)
    told = {t.variant: t.why for t in trials}
    assert told[ONNX] == "not installed where Triton runs: pip install onnx onnxruntime"
    assert told[KERNEL] == "not installed where Triton runs: pip install numba"
    assert best.variant.name in (XLA, GRAPH)


def test_a_running_server_tries_them_and_keeps_answering(triton, deployer, make_artifact):
    artifacts = [make_artifact(name, seed=seed) for name, seed in (("kiln", 3), ("mill", 4))]
    for artifact in artifacts:
        deployer.deploy(artifact)
    with Pool(triton.endpoint, deadline_s=20.0) as pool:
        found = optimize([triton.endpoint])
        assert found
        for group in found:
            assert [t["variant"] for t in group["table"]] == list(NAMES)
            assert {t["variant"] for t in group["table"] if t["right"]} == {KERNEL, XLA, GRAPH, ONNX}
            assert group["variant"] in {t["variant"] for t in group["table"] if t["right"]}
        live = {name: version for group in found for name, version in group["live"].items()}
        assert live.items() >= {(a.name, a.version) for a in artifacts}
        for artifact in artifacts:
            assert canary(pool, artifact.name).checked == f"{artifact.name}@{artifact.version}"
    with pytest.raises(BadRequest, match=r"above 0, at most 0\.1"):
        optimize([triton.endpoint], 0.5)
