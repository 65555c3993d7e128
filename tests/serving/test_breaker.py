"""Breaker, choice of endpoint and care of endpoints: arithmetic, time is an argument."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import BadAnswer, BadRequest, DeadlineExceeded, Overloaded, Unavailable
from penstock.serving.balance import FIRST_SHARE, Station, due, next_of, share_s
from penstock.serving.breaker import BACKOFF_S, PATIENCE, Breaker
from penstock.serving.outcomes import joined
from penstock.serving.tending import SURE, Care, Seen


def tripped(at: float) -> Breaker:
    breaker = Breaker()
    for _ in range(PATIENCE):
        breaker = breaker.failed(at)
    return breaker


def test_it_takes_failures_in_a_row() -> None:
    """
    failed failed answered failed failed | failed
    closed closed closed   closed closed | open
    """
    breaker = Breaker()
    for failed in (True, True, False, True, True):
        breaker = breaker.failed(1.0) if failed else breaker.answered()
        assert breaker.closed
    assert not breaker.failed(1.0).closed


def test_the_wait_doubles_up_to_a_bound_and_one_probe_goes_at_a_time() -> None:
    breaker, now, waits = tripped(0.0), 0.0, []
    for _ in range(12):
        assert not breaker.due(breaker.not_before - 0.001)
        waits.append(breaker.not_before - now)
        now = breaker.not_before
        assert breaker.due(now)
        breaker = breaker.probed()
        assert not breaker.due(now + 1000), "somebody probes already"
        breaker = breaker.probe_failed(now)
    assert waits[:4] == [BACKOFF_S[0] * 2**k for k in range(4)]
    assert waits[-1] == BACKOFF_S[1]
    assert breaker.answered() == Breaker()


def test_calls_that_were_under_way_when_a_server_died_count_once() -> None:
    breaker = tripped(5.0)
    for _ in range(60):
        breaker = breaker.failed(5.1)
    assert breaker == tripped(5.0)


@given(st.lists(st.tuples(st.sampled_from(["failed", "answered", "probe", "probe failed"]), st.floats(0, 100))))
def test_it_never_waits_longer_than_the_bound_and_an_answer_always_closes_it(events) -> None:
    breaker, now = Breaker(), 0.0
    for what, later in events:
        now += later
        match what:
            case "failed":
                breaker = breaker.failed(now)
            case "answered":
                breaker = breaker.answered()
                assert breaker.closed
            case "probe" if breaker.due(now):
                breaker = breaker.probed()
            case "probe failed" if breaker.probing:
                breaker = breaker.probe_failed(now)
        assert breaker.not_before <= now + BACKOFF_S[1]
        assert breaker.closed or breaker.probing or breaker.due(now + BACKOFF_S[1])


def test_the_least_loaded_is_asked_and_of_equals_the_one_that_answered_last() -> None:
    a, b, c = (Station(endpoint=name) for name in "abc")
    a.in_flight, b.in_flight, c.in_flight = 2, 1, 1
    b.answered_at, c.answered_at = 10.0, 20.0
    assert next_of([a, b, c]) is c
    c.in_flight = 3
    assert next_of([a, b, c]) is b
    b.breaker = tripped(0.0)
    assert next_of([a, b, c]) is a, "one that is left alone is not asked"
    a.breaker, c.breaker = tripped(3.0), tripped(2.0)
    assert next_of([a, b, c]) is b, "nobody else is left: the one whose time comes first"


def test_a_probe_goes_beside_the_calls_only_while_somebody_else_answers_them() -> None:
    a, b = Station(endpoint="a"), Station(endpoint="b")
    b.breaker = tripped(0.0)
    assert due([a, b], 0.4) == []
    assert due([a, b], 0.5) == [b]
    a.breaker = tripped(0.0)
    assert due([a, b], 0.5) == []


def test_time_is_kept_for_endpoints_that_may_answer() -> None:
    well, away = Station(endpoint="a"), Station(endpoint="b", breaker=tripped(0.0))
    assert share_s(1.0, well, [Station(endpoint="c")]) == FIRST_SHARE
    assert share_s(1.0, well, [away]) == 1.0
    assert share_s(1.0, well, []) == 1.0
    assert share_s(1.0, away, [Station(endpoint="d", breaker=tripped(0.0))]) == FIRST_SHARE


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([Unavailable("a: away"), Unavailable("b: away")], Unavailable),
        ([Unavailable("a: away"), BadRequest("b: no such model")], BadRequest),
        ([DeadlineExceeded("a: late"), Unavailable("b: away")], DeadlineExceeded),
        ([Overloaded("a: full"), BadAnswer("b: short")], Overloaded),
        ([], DeadlineExceeded),
    ],
)
def test_of_several_errors_the_most_telling_is_raised_with_all_reasons(errors, expected) -> None:
    error = joined(errors, ["a:1", "b:1"])
    assert type(error) is expected
    assert all(str(e) in str(error) for e in errors)


def test_care_completes_one_that_came_back_at_once_and_one_that_lacks_models_when_it_is_sure() -> None:
    """
    whole lacking whole lacking lacking(=act) | away away whole(=act: aliases) whole | new(=act)
    """
    story = [
        (Seen.WHOLE, False), (Seen.LACKING, False), (Seen.WHOLE, False), (Seen.LACKING, False), (Seen.LACKING, True),
        (Seen.WHOLE, False), (Seen.AWAY, False), (Seen.AWAY, False), (Seen.WHOLE, True), (Seen.WHOLE, False),
        (Seen.NEW, True),
    ]  # fmt: skip
    care, acts = Care(), []
    for step, (seen, _) in enumerate(story):
        care, act = care.next(seen, 100.0 * step)
        acts.append(act)
    assert SURE == 2
    assert acts == [act for _, act in story]


def test_care_keeps_off_a_deploy_and_waits_longer_after_each_try() -> None:
    care, tries, now = Care(), [], 0.0
    assert care.next(Seen.BUSY, 0.0) == (care, False)
    for _ in range(400):
        now += 1.0
        care, act = care.next(Seen.LACKING, now)
        if act:
            tries.append(now)
    between = [b - a for a, b in pairwise(tries)]
    assert between == sorted(between)
    assert between[:3] == [2.0, 4.0, 8.0]
    assert max(between) == 60.0
