"""What was found out about an array is asked for again only when another array comes."""

from __future__ import annotations

from functools import partial

import numpy as np

from penstock.data.remembered import Remembered


def test_it_goes_by_identity_and_keeps_the_newest() -> None:
    remembered, asked = Remembered[int](kept=2), []

    def find(name: str) -> int:
        asked.append(name)
        return len(asked)

    a, b = np.arange(3), np.arange(3)  # equal, and not the same
    assert [remembered.of(partial(find, n), x) for n, x in (("a", a), ("b", b), ("a", a))] == [1, 2, 1]
    assert remembered.of(partial(find, "ab"), a, b) == 3  # both together are something else; the oldest went
    assert remembered.of(partial(find, "a"), a) == 4
    assert asked == ["a", "b", "ab", "a"]


def test_an_answer_is_never_that_of_an_array_that_is_gone() -> None:
    """Python gives a new array the id of one that was freed; so the arrays asked about stay."""
    remembered = Remembered[int](kept=4)
    for k in range(200):
        assert remembered.of(lambda k=k: k, np.full(1000, k)) == k
