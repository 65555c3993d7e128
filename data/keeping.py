"""Which versions of a model stay when old ones are to go. Pure: it reads and removes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from penstock.data.deployments import Deployment, answering, line_of


def versions_kept(
    stored: Iterable[int], rows: Sequence[Deployment], keep: int, *, said_since: datetime | None, shown: Collection[int]
) -> set[int]:
    """Of one model: which of its `stored` versions stay.

    The newest `keep`; the champion and those that `keep` roll-backs in a row would reach; those that have `answered`
    since `said_since` (None: ever), as the speed view still has what they said; and those of a batch view (`shown`).
    `rows`: the model's deployments, oldest first.
    """
    stored = sorted(stored)
    needed = {*stored[-keep:], *answering(rows).values(), *line_of(rows)[-keep - 1 :], *shown}
    return {version for version in stored if version in needed | answered(rows, said_since)}


def answered(rows: Sequence[Deployment], since: datetime | None) -> set[int]:
    """The versions of one model that answered at some time from `since` on; None: at any time."""
    moves = pairwise([*rows, None])
    return {
        row.version
        for row, after in moves
        if row is not None and row.action != "undeploy"
        and (since is None or after is None or datetime.fromisoformat(after.at) >= since)
    }  # fmt: skip
