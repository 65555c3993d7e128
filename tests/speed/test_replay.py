"""A replay delivers every row once, in order, from any row on, and never before its time."""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np
import pytest
import small_site as small
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.frame import Dense, Frame, Readings
from penstock.errors import SourceError
from penstock.speed.source import Delivery
from penstock.speed.sources.replay import Replay, together


def blocks(*lengths: int) -> list[Dense]:
    starts = np.cumsum([0, *lengths])
    return [small.rows(int(a), int(a) + n, 1) for a, n in zip(starts[:-1], lengths, strict=True)]


async def all_of(source: Replay, resume_at: int = 0) -> list[Delivery]:
    return [delivery async for delivery in source.deliveries({"": resume_at})]


def ticks(deliveries: list[Delivery]) -> list[int]:
    return [int(t) for d in deliveries for t in small.GRID.tick(d.readings.times)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 5), st.integers(0, 30), st.integers(0, 30))
def test_any_row_is_a_place_to_resume(lengths: list[int], group: int, resume: int, rows: int) -> None:
    source = Replay("r", lambda: blocks(*lengths), group=group, moments=rows)
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


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 5), st.integers(0, 30), st.integers(0, 30))
def test_the_first_moments_may_go_flat_out(lengths: list[int], group: int, resume: int, brisk: int) -> None:
    """A rate at which nothing but the first row of the rest would ever come."""
    source = Replay("r", lambda: blocks(*lengths), group=group, rate=1e-6, brisk=brisk)
    got = asyncio.run(soon(source, resume))
    prompt = max(brisk, resume) + 1  # a row has its turn at once where the rate begins to count
    assert ticks(got) == list(range(resume, min(prompt, sum(lengths))))
    assert all(len(d.readings.times) <= group for d in got)


async def soon(source: Replay, resume_at: int) -> list[Delivery]:
    """What comes without a wait."""
    found, deliveries = [], source.deliveries({"": resume_at})
    with contextlib.suppress(StopAsyncIteration, TimeoutError):
        while True:
            found.append(await asyncio.wait_for(anext(deliveries), 0.3))
    return found


def test_disorder_is_refused() -> None:
    source = Replay("r", lambda: list(reversed(blocks(3, 3))))
    with pytest.raises(SourceError, match="row 3"):
        asyncio.run(all_of(source))
    with pytest.raises(SourceError, match="rate"):
        Replay("r", list, rate=0.0)
    inside = small.rows(0, 9, 1).long()
    newest = int((inside.times == inside.times[-1]).sum())
    with pytest.raises(SourceError, match=f"row {len(inside) + newest} is older"):
        asyncio.run(all_of(Replay("r", lambda: [inside, _turned(inside)])))
    with pytest.raises(SourceError, match=f"row {newest} is older"):
        asyncio.run(all_of(Replay("r", lambda: [together([_turned(inside), inside])])))


def _turned(frame: Frame) -> Frame:
    back = np.arange(len(frame))[::-1]
    return Frame(times=frame.times[back], tags=frame.tags[back], values=frame.values[back], quality=frame.quality[back])


def joined(deliveries: list[Delivery]) -> list[tuple[int, int, float, int]]:
    """Every reading, in order."""
    frames = [d.readings.long() if isinstance(d.readings, Dense) else d.readings for d in deliveries]
    return [
        row
        for f in frames
        for row in zip(f.times.tolist(), f.tags.tolist(), f.values.tolist(), f.quality.tolist(), strict=True)
    ]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_long_frames_are_cut_by_event_time_and_resume_at_any_reading(data: st.DataObject) -> None:
    """Readings of 12 moments, several to a moment, in frames cut anywhere, also inside a moment."""
    long = small.rows(0, 12, 3).long()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(long)), max_size=4)))
    frames: list[Readings] = [
        long.only((np.arange(len(long)) >= a) & (np.arange(len(long)) < b))
        for a, b in zip([0, *cuts], [*cuts, len(long)], strict=True)
    ]
    group, resume = data.draw(st.integers(1, 5)), data.draw(st.integers(0, len(long)))
    moments = data.draw(st.integers(0, 14))
    source = Replay("r", lambda: frames, group=group, moments=moments)
    got = asyncio.run(all_of(source, resume))
    wanted = long.only(np.isin(long.times, np.unique(long.times)[:moments]))
    assert joined(got) == joined([Delivery(offset=0, readings=wanted)])[resume:]
    assert all(1 <= len(np.unique(d.readings.times)) <= group for d in got)
    at = max(0, min(resume, len(wanted)))
    for d in got:
        at += len(d.readings.times)
        assert d.offset == at


def test_a_moment_of_many_readings_is_split_before_it_is_too_large() -> None:
    n = (1 << 19) + 7
    frame = Frame(
        times=np.zeros(n, np.int64), tags=np.arange(n, dtype=np.int32), values=np.ones(n), quality=np.zeros(n, np.uint8)
    )
    got = asyncio.run(all_of(Replay("r", lambda: [frame], moments=1)))
    assert [d.offset for d in got] == [1 << 19, n]


def test_parts_of_two_dtypes_are_one_block_in_order_of_time() -> None:
    narrow = small.rows(0, 6, 2)
    wide = Dense(
        times=narrow.times, tags=narrow.tags + 5, values=narrow.values.astype(np.float64) + 2.0**40,
        quality=narrow.quality,
    )  # fmt: skip
    dense = together([narrow, wide])
    assert isinstance(dense, Dense)
    assert dense.values.astype(np.float32)[:, :5].tobytes() == narrow.values.tobytes()
    assert np.array_equal(dense.values[:, 5:], wide.values, equal_nan=True)
    frame = together([narrow.long(), wide.long()])
    assert isinstance(frame, Frame)
    assert (np.diff(frame.times) >= 0).all()
    assert len(frame) == len(narrow) + len(wide)
    assert together([narrow]) is narrow
    assert len(together([])) == 0
