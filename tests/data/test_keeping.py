"""What stays and what goes, beside slow obvious models: segments, versions, samples of the disk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from penstock.data.archive.pruning import limit_of, segments_before
from penstock.data.archive.repository import SegmentName
from penstock.data.deployments import Deployment, answering, previous
from penstock.data.keeping import answered, versions_kept
from penstock.disk import DAY_NS, SAMPLES, Sample, forecast, growth, thinned

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
ACTIONS = st.sampled_from(["deploy", "promote", "rollback", "undeploy"])
MOVES = st.lists(st.tuples(st.integers(1, 8), ACTIONS), max_size=14)
TICKS = st.integers(-500, 500)


def rows(moves: list[tuple[int, str]]) -> list[Deployment]:
    """One move a day."""
    return [
        Deployment(id=i, name="m", version=v, action=a, who="w", at=(BEGIN + timedelta(days=i)).isoformat())  # type: ignore[arg-type]
        for i, (v, a) in enumerate(moves)
    ]


@given(
    keep=st.integers(1, 300), newest=TICKS, closed=st.none() | TICKS, now=TICKS, needed=TICKS, ticks=st.integers(1, 90),
    present=st.sets(st.integers(-40, 40), max_size=20),
)  # fmt: skip
def test_a_segment_goes_when_each_of_its_ticks_may(
    keep: int, newest: int, closed: int | None, now: int, needed: int, ticks: int, present: set[int]
) -> None:
    limit = limit_of(keep, newest, closed, now, needed, ticks)
    names = [SegmentName(dtype=d, index=i, closed=False) for i in present for d in ("float32", "float64")]
    gone = segments_before(names, limit, ticks)

    def may_go(tick: int) -> bool:
        old = tick < newest - keep and tick < now - keep
        return old and tick < needed and (tick < newest if closed is None else tick < closed)

    every = [n for n in names if all(may_go(t) for t in range(n.index * ticks, (n.index + 1) * ticks))]
    assert set(gone) == set(every)
    assert limit % ticks == 0


@given(moves=MOVES, stored=st.sets(st.integers(1, 8)), keep=st.integers(1, 4), shown=st.sets(st.integers(1, 8)))
def test_what_answers_and_what_a_roll_back_needs_stays(
    moves: list[tuple[int, str]], stored: set[int], keep: int, shown: set[int]
) -> None:
    audit = rows(moves)
    kept = versions_kept(stored, audit, keep, said_since=BEGIN + timedelta(days=1000), shown=shown)
    assert kept <= stored
    assert set(sorted(stored)[-keep:]) <= kept
    assert shown & stored <= kept
    champion = answering(audit).get("m")
    assert champion is None or champion not in stored or champion in kept
    for _ in range(keep):  # as many times as `penstock rollback` is asked
        if (target := previous(audit)) is None:
            break
        assert target not in stored or target in kept
        audit = [*audit, *rows([(target, "rollback")])]


@given(moves=MOVES, since=st.none() | st.integers(-2, 16))
def test_who_answered_since(moves: list[tuple[int, str]], since: int | None) -> None:
    audit = rows(moves)
    moment = None if since is None else BEGIN + timedelta(days=since)
    slow = set()
    for i in range(len(audit)):
        # whoever the i-th move put there spoke until the next one
        until = BEGIN + timedelta(days=10**4) if i + 1 == len(audit) else BEGIN + timedelta(days=i + 1)
        if audit[i].action != "undeploy" and (moment is None or until >= moment):
            slow.add(audit[i].version)
    assert answered(audit, moment) == slow
    assert set(answering(audit).values()) <= answered(audit, None)


@given(st.lists(st.integers(0, 40 * DAY_NS), max_size=60, unique=True))
def test_samples_are_one_a_day_and_the_newest(moments: list[int]) -> None:
    samples = [Sample(at_ns=at, used={"archive": at}) for at in sorted(moments)]
    kept = thinned(samples)
    assert kept == [s for s in samples if s in kept]
    assert {s.at_ns // DAY_NS for s in kept} == {s.at_ns // DAY_NS for s in samples[-SAMPLES:]} or len(kept) == SAMPLES
    assert not samples or kept[-1].at_ns == samples[-1].at_ns
    assert thinned(kept) == kept
    assert len(kept) <= len({s.at_ns // DAY_NS for s in samples}) + 1


@given(st.integers(0, 10**9), st.integers(0, 10**12), st.integers(2, 60), st.integers(1, 10**15))
def test_a_steady_site_is_forecast_exactly(base: int, per_day: int, days: int, free: int) -> None:
    samples = [Sample(at_ns=d * DAY_NS, used={"archive": base + d * per_day, "views": 7}) for d in range(days)]
    told = forecast(samples, span_days=1e6, kept_days=None, free=free)
    assert told.measured
    assert told.per_day == per_day
    assert (told.full_in_days is None) == (per_day == 0)
    assert told.full_in_days is None or abs(told.full_in_days * per_day - free) <= 1e-9 * free
    assert growth(samples[:1]) is None


def test_without_samples_the_readings_tell() -> None:
    sample = Sample(at_ns=0, used={"archive": 900, "views": 100, "models": 5000})
    told = forecast([sample], span_days=10, kept_days=None, free=2000)
    assert (told.per_day, told.measured, told.full_in_days) == (100.0, False, 20.0)
    assert told.wrong, "less than a GiB is free"
    assert forecast([sample], span_days=10, kept_days=9.5, free=1 << 40).per_day == 0.0, "what comes, goes"
    assert forecast([sample], span_days=0.5, kept_days=None, free=1).per_day is None
