"""The ways to execute a group: tried beside a running Triton, the fastest right one kept and remembered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from penstock.errors import BadRequest
from penstock.serving.backend.forward import GRAPH, HALF, XLA, Shape
from penstock.serving.backend.group import Group
from penstock.serving.backend.trials import FILE, begun, optimized, remember
from penstock.serving.backend.variants import KERNEL, NAMES, begin
from penstock.serving.canary import canary
from penstock.serving.optimize import optimize
from penstock.serving.pool import Pool

SHAPE = Shape(5, 3, (8,), 1)


def member(seed):
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 0.5, size).astype(np.float32) for name, size in SHAPE.arrays().items()}


@pytest.fixture
def filled():
    """A group of three members, and the golden windows of each."""
    group, golden = Group.begin(SHAPE, begin(GRAPH, SHAPE)), {}
    for seed in range(3):
        group, row = group.add(member(seed))
        windows = np.random.default_rng(seed).normal(size=(2, 5, 3)).astype(np.float32)
        golden[row] = (windows, group.run_one(row, windows, lambda: False), np.ones(1, np.float32))
    return group, golden


def test_the_fastest_right_way_is_taken_and_answers_alike(filled):
    group, golden = filled
    best, trials = optimized(group, golden)
    assert [t.variant for t in trials] == list(NAMES)
    by_name = {t.variant: t for t in trials}
    assert not by_name[HALF].right
    assert "allowed: 1e-05" in by_name[HALF].why
    right = [t for t in trials if t.right]
    assert {t.variant for t in right} == {KERNEL, XLA, GRAPH}
    assert best.variant.name == min(right, key=lambda t: t.one_us).variant
    for row, (windows, said, _) in golden.items():
        np.testing.assert_allclose(best.run_one(row, windows, lambda: False), said, atol=1e-5)


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
    remember(tmp_path, "shape", group.executed_by(begin(HALF, SHAPE), 0.1), trials)
    again = begun(SHAPE, "shape", tmp_path)
    assert (again.variant.name, again.tolerance) == (HALF, 0.1)
    assert best.tolerance == 0.1


def test_a_choice_made_on_another_machine_counts_no_more(filled, tmp_path):
    group, _ = filled
    remember(tmp_path, "shape", group.executed_by(begin(XLA, SHAPE), 1e-3), [])
    stored = json.loads((tmp_path / FILE).read_text())
    stored["shape"]["machine"] = "another one"
    (tmp_path / FILE).write_text(json.dumps(stored))
    assert begun(SHAPE, "shape", tmp_path).variant.name == KERNEL
    (tmp_path / FILE).write_text("cut sho")
    assert begun(SHAPE, "shape", tmp_path).variant.name == KERNEL


def test_a_running_server_tries_them_and_keeps_answering(triton, deployer, make_artifact):
    artifacts = [make_artifact(name, seed=seed) for name, seed in (("kiln", 3), ("mill", 4))]
    for artifact in artifacts:
        deployer.deploy(artifact)
    with Pool(triton.endpoint, deadline_s=20.0) as pool:
        found = optimize([triton.endpoint])
        assert found
        for group in found:
            assert {t["variant"] for t in group["table"]} == set(NAMES)
            assert group["variant"] in {t["variant"] for t in group["table"] if t["right"]}
        live = {name: version for group in found for name, version in group["live"].items()}
        assert live.items() >= {(a.name, a.version) for a in artifacts}
        for artifact in artifacts:
            assert canary(pool, artifact.name).checked == f"{artifact.name}@{artifact.version}"
    with pytest.raises(BadRequest, match=r"above 0, at most 0\.1"):
        optimize([triton.endpoint], 0.5)
