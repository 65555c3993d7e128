"""A replay delivers every row once, in order, from any row on, and never before its time."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
import small_site as small
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.frame import Dense
from penstock.errors import SourceError
from penstock.speed.source import Delivery
from penstock.speed.sources.replay import Replay


def blocks(*lengths: int) -> list[Dense]:
    starts = np.cumsum([0, *lengths])
    return [small.rows(int(a), int(a) + n, 1) for a, n in zip(starts[:-1], lengths, strict=True)]


async def all_of(source: Replay, resume_at: int = 0) -> list[Delivery]:
    return [delivery async for delivery in source.deliveries(resume_at)]


def ticks(deliveries: list[Delivery]) -> list[int]:
    return [int(t) for d in deliveries for t in small.GRID.tick(d.readings.times)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 5), st.integers(0, 30), st.integers(0, 30))
def test_any_row_is_a_place_to_resume(lengths: list[int], group: int, resume: int, rows: int) -> None:
    source = Replay("r", lambda: blocks(*lengths), group=group, rows=rows)
    got = asyncio.run(all_of(source, resume))
    total = min(sum(lengths), rows)
    assert ticks(got) == list(range(resume, total))
    assert all(1 <= len(d.readings.times) <= group for d in got)
    at = resume
    for d in got:
        at += len(d.readings.times)
        assert d.offset == at


def test_a_rate_is_kept() -> None:
    source = Replay("r", lambda: blocks(31), rate=100.0)
    begun = time.monotonic()
    got = asyncio.run(all_of(source))
    assert ticks(got) == list(range(31))
    assert time.monotonic() - begun >= 0.2
    assert max(len(d.readings.times) for d in got) <= 10


def test_disorder_is_refused() -> None:
    source = Replay("r", lambda: list(reversed(blocks(3, 3))))
    with pytest.raises(SourceError, match="row 3"):
        asyncio.run(all_of(source))
    with pytest.raises(SourceError, match="rate"):
        Replay("r", list, rate=0.0)
