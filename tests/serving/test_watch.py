"""When the watch mends what: one look after another, no server, no clock."""

from __future__ import annotations

from itertools import pairwise

from penstock.serving.watch import (
    BACKOFF_S,
    LIMIT,
    PATIENCE,
    STEADY_S,
    Act,
    Course,
    Finding,
    Watched,
    read_watched,
    write_watched,
)


def acts(findings, course=None):
    """One look a second; every mending takes no time and fails or not without a word."""
    course, said = course or Course(), []
    for now, finding in enumerate(findings):
        course, act = course.next(finding, float(now))
        if act is not Act.NOTHING:
            course = course.mended(float(now))
        said.append(act)
    return course, said


def test_what_has_gone_is_mended_at_once():
    assert acts([Finding.RIGHT, Finding.ENGINE_GONE])[1] == [Act.NOTHING, Act.REPAIR]
    assert acts([Finding.RIGHT, Finding.SERVER_GONE])[1] == [Act.NOTHING, Act.RESTART]


def test_a_living_engine_may_be_wrong_for_a_while():
    wrong, right = Finding.WRONG, Finding.RIGHT
    assert set(acts([*[wrong] * (PATIENCE - 1), right] * 5)[1]) == {Act.NOTHING}
    assert acts([wrong] * PATIENCE)[1] == [Act.NOTHING] * (PATIENCE - 1) + [Act.REPAIR]


def test_while_somebody_deploys_or_mends_nothing_is_counted():
    assert set(acts([Finding.WRONG, Finding.BUSY] * (PATIENCE - 1) + [Finding.BUSY] * 100)[1]) == {Act.NOTHING}


def test_a_repair_that_does_not_last_is_followed_by_a_restart_later_and_later_and_then_by_nothing():
    course, said = acts([Finding.ENGINE_GONE] * 1000)
    at = [i for i, act in enumerate(said) if act is not Act.NOTHING]
    assert [said[i] for i in at] == [Act.REPAIR] + [Act.RESTART] * (LIMIT - 1)
    pauses = [b - a for a, b in pairwise(at)]
    assert pauses == [min(BACKOFF_S[1], BACKOFF_S[0] * 2**i) for i in range(LIMIT - 1)]
    assert course.given_up


def test_after_a_rest_a_mending_is_a_first_one_again():
    tired, _ = acts([Finding.ENGINE_GONE] * 1000)
    restless, _ = acts([Finding.RIGHT] * int(STEADY_S), tired)
    assert restless.given_up
    rested, said = acts([*[Finding.RIGHT] * (int(STEADY_S) + 2), *[Finding.BUSY] * 1000, Finding.ENGINE_GONE], tired)
    assert said[-1] is Act.REPAIR
    assert rested.mendings == 1


def test_the_report_is_about_one_server(tmp_path):
    watched = Watched(endpoint="127.0.0.1:1", repaired=2, restarted=1, last_ns=5, trouble="why")
    write_watched(tmp_path, watched)
    assert read_watched(tmp_path, "127.0.0.1:1") == watched
    assert read_watched(tmp_path, "127.0.0.1:2") is None
    assert read_watched(tmp_path / "nowhere", "127.0.0.1:1") is None
