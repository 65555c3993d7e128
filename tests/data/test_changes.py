"""What commits changed is never told to be less than it was, and stays bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.data.views.changes import Changes, joined, with_commit

RANGES = st.lists(st.tuples(st.integers(-40, 40), st.integers(1, 9)).map(lambda r: (r[0], r[0] + r[1])), max_size=6)


def periods(ranges: object) -> set[int]:
    return {p for first, last in ranges for p in range(first, last)}  # type: ignore[attr-defined]


@given(st.lists(RANGES, max_size=12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 12))
def test_behind_each_commit_there_is_all_that_later_ones_changed(
    commits: list[list[tuple[int, int]]], most: int, stretches: int, after: int
) -> None:
    changes: Changes = ()
    for number, ranges in enumerate(commits, 1):
        changes = with_commit(changes, number, ranges, commits=most, stretches=stretches)
    wanted = set().union(*(periods(ranges) for ranges in commits[after:]))
    found = [(commit, ranges) for commit, ranges in changes if commit > after]
    assert wanted <= set().union(*(periods(ranges) for _, ranges in found))
    assert len(changes) <= most
    assert all(len(ranges) <= stretches and ranges == joined(ranges) for _, ranges in changes)
    assert [commit for commit, _ in changes] == sorted({commit for commit, _ in changes})


def test_while_few_are_known_each_is_told_as_it_was() -> None:
    changes = with_commit(with_commit(with_commit((), 7, [(0, 60)]), 8, []), 9, [(64, 70), (58, 64)])
    assert changes == ((7, ((0, 60),)), (9, ((58, 70),)))
    assert with_commit(changes, 10, [(1, 2), (20, 21), (25, 26)], commits=2, stretches=2) == (
        (9, ((0, 70),)), (10, ((1, 2), (20, 26))),
    )  # fmt: skip
