"""A solo goes live as the graph that it is, and gets a faster way later, while it answers."""

from __future__ import annotations

import io
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import tensorflow as tf
from saved_models import zipped

from penstock.serving.backend.child import Guest
from penstock.serving.backend.choices import FILE
from penstock.serving.backend.forward import GRAPH, XLA
from penstock.serving.backend.solo import WAYS, Solo
from penstock.serving.backend.solo_trials import optimized, ready, rehearsal
from penstock.serving.optimize import optimize
from penstock.serving.pool import Pool

AGAIN_S = 60.0
"""Longest wait for a way that was chosen before."""
WINDOWS = np.random.default_rng(5).normal(size=(3, 12, 3)).astype(np.float32)


def worded(x):
    """A graph that XLA has no code for: numbers by way of their words."""
    return tf.strings.to_number(tf.strings.as_string(x[:, -1, :1]))


def endless(x):
    """Neither the graph nor its compiled form ends."""
    return tf.while_loop(lambda y: tf.reduce_sum(y) > -1e30, lambda y: (y * 1.0,), (x,))[0][:, -1, :1]


def loaded(graph, folder):
    solo = Solo.load(zipped(graph, folder), folder)
    said = np.asarray(solo.call(tf.constant(WINDOWS))).reshape(len(WINDOWS), -1)
    return solo, (WINDOWS, said, np.ones(1, np.float32))


def packed(golden):
    content = io.BytesIO()
    np.savez(content, windows=golden.windows, predictions=golden.predictions, scale=golden.scale)
    return {"golden.npz": content.getvalue()}


def guest_of(graph, folder):
    return Guest("bad@1", "compiled solo", zipped(graph, folder))


@contextmanager
def asked_all_the_time(endpoint, name, golden):
    """A caller beside what happens inside; gives the list of versions that it was answered with."""
    versions, stop, wrong = [], threading.Event(), []

    def ask():
        with Pool(endpoint, deadline_s=20.0) as pool:
            while not stop.is_set():
                try:
                    said = pool.predict(name, golden.windows)
                    if np.abs(said.values - golden.predictions).max() > 1e-5:
                        wrong.append(said.values)
                    versions.append(said.version)
                except Exception as error:
                    wrong.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        yield versions
    finally:
        stop.set()
        caller.join()
    assert not wrong
    assert versions


def way_of(pool, name):
    return pool.admin({"do": "canary", "name": name})["variant"]


def until_way(pool, name, way):
    until = time.monotonic() + AGAIN_S
    while way_of(pool, name) != way:
        assert time.monotonic() < until, f"{name} is still executed by {way_of(pool, name)}"
        time.sleep(0.05)


def until_kept(path, true):
    """What is chosen is kept a moment after it executes."""
    until = time.monotonic() + AGAIN_S
    while not true(json.loads(path.read_text())):
        assert time.monotonic() < until, path.read_text()
        time.sleep(0.05)


def test_the_fastest_right_way_is_taken_and_what_is_wrong_is_not(tmp_path):
    solo, golden = loaded(lambda x: tf.reduce_mean(tf.tanh(x), axis=1)[:, :1], tmp_path)
    best, trials = optimized(solo, golden, 1e-5, lambda _: "")
    assert [t.variant for t in trials] == list(WAYS)
    assert all(t.right for t in trials)
    assert best.variant == min(trials, key=lambda t: t.tick_us).variant
    np.testing.assert_allclose(best.run_one(0, WINDOWS, lambda: False), golden[1], atol=1e-5)
    stays, trials = optimized(solo, (golden[0], golden[1] + 1, golden[2]), 1e-5, lambda _: "")
    assert not any(t.right for t in trials)
    assert stays is solo
    only, trials = optimized(solo, golden, 1e-5, lambda _: "takes too long")
    assert only.variant == GRAPH
    assert trials[1].why == "takes too long"


def test_a_compiled_solo_says_the_same_for_any_number_of_windows(tmp_path):
    solo, golden = loaded(lambda x: tf.reduce_mean(tf.tanh(x), axis=1)[:, :1], tmp_path)
    compiled = ready(solo, XLA, golden, 1e-5)
    for n in (1, 2, 8, 9, 63, 64, 65, 150):
        windows = np.random.default_rng(n).normal(size=(n, 12, 3)).astype(np.float32)
        found, wanted = (s.run_one(0, windows, lambda: False) for s in (compiled, solo))
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_graph_that_the_compiler_cannot_take_is_told_by_the_process_of_its_own(tmp_path):
    _, golden = loaded(worded, tmp_path)
    assert "AsString" in rehearsal(guest_of(worded, tmp_path), tmp_path, golden, 1e-5)


def test_what_finds_no_end_is_killed(tmp_path):
    golden = (WINDOWS, np.zeros((3, 1), np.float32), np.ones(1, np.float32))
    guest = guest_of(endless, tmp_path)
    begun = time.monotonic()
    assert "takes too long" in rehearsal(guest, tmp_path, golden, 1e-5, within_s=5.0)
    assert time.monotonic() - begun < 60


def test_a_solo_is_made_faster_while_it_answers_and_stays_so(triton, deployer, pool, make_solo):
    """Also after the engine was loaded anew, and as its next version."""
    solo = make_solo("quick")
    deployer.deploy(solo)
    assert way_of(pool, "quick") == GRAPH
    pid = pool.admin({"do": "health"})["pid"]
    with asked_all_the_time(triton.endpoint, "quick", solo.golden):
        (found,) = optimize([triton.endpoint])
    assert (found["group"], found["live"], found["members"]) == ("solo quick", {"quick": solo.version}, 1)
    assert all(t["right"] for t in found["table"]), found["table"]
    assert found["variant"] == min(found["table"], key=lambda t: t["tick_us"])["variant"] == XLA
    assert way_of(pool, "quick") == XLA
    assert pool.admin({"do": "health"})["pid"] == pid
    kept = json.loads((triton.folder / "state" / FILE).read_text())["solo quick"]
    assert (kept["variant"], kept["table"]) == (XLA, found["table"])

    triton.repair()
    with asked_all_the_time(triton.endpoint, "quick", solo.golden):
        until_way(pool, "quick", XLA)

    newer = make_solo("quick")
    deployer.deploy(newer)
    with asked_all_the_time(triton.endpoint, "quick", newer.golden) as versions:
        until_way(pool, "quick", XLA)
    assert set(versions) == {newer.version}
    until_kept(triton.folder / "state" / FILE, lambda kept: kept["solo quick"]["digest"] != found["digest"])


def test_a_solo_that_the_compiler_cannot_take_stays_a_graph_and_harms_nobody(
    triton, deployer, pool, make_solo, tmp_path
):
    good = make_solo("worded")
    said = np.asarray(worded(tf.constant(good.golden.windows)))
    golden = replace(good.golden, predictions=said, scale=np.ones(1, np.float32))
    deployer.deploy(replace(good, files={**good.files, "saved_model.zip": zipped(worded, tmp_path), **packed(golden)}))
    pid = pool.admin({"do": "health"})["pid"]
    with asked_all_the_time(triton.endpoint, "worded", golden):
        (found,) = optimize([triton.endpoint])
    assert found["variant"] == way_of(pool, "worded") == GRAPH
    assert "AsString" in {t["variant"]: t["why"] for t in found["table"]}[XLA]
    assert pool.admin({"do": "health"})["pid"] == pid
