"""Every tag has one shard and one column, for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_strategies import readings

from penstock.data.frame import Dense, Frame, Readings
from penstock.data.layout import Layout
from penstock.errors import SiteError

dtypes = st.lists(st.sampled_from(["float32", "float64"]), min_size=1, max_size=9)
TAGS = 6


def rows(given: Readings) -> list[tuple[int, int, str, int]]:
    frame = given.long() if isinstance(given, Dense) else given
    return sorted(
        (int(t), int(tag), float(v).hex(), int(q))
        for t, tag, v, q in zip(frame.times, frame.tags, frame.values, frame.quality, strict=True)
    )


@given(dtypes, st.integers(1, 4))
@settings(deadline=None)
def test_shards_share_out_all_tags(names: list[str], shards: int) -> None:
    layout = Layout(names, shards)
    assert layout.shard_count() == shards * (2 if "float64" in names else 1)
    seen = []
    for shard in range(layout.shard_count()):
        tags = layout.tags(shard)
        assert all(names[t] == layout.dtype(shard) for t in tags)
        assert (layout.shard_of()[tags] == shard).all()
        assert layout.column_of(shard)[tags].tolist() == list(range(len(tags)))
        assert (np.delete(layout.column_of(shard), tags) == -1).all()
        seen += tags.tolist()
    assert sorted(seen) == list(range(len(names)))


@given(dtypes, dtypes, st.integers(1, 4))
@settings(deadline=None)
def test_appended_tags_move_no_tag(names: list[str], more: list[str], shards: int) -> None:
    before, after = Layout(names, shards), Layout(names + more, shards)
    assert after.shard_of()[: len(names)].tolist() == before.shard_of().tolist()
    assert after.index_of()[: len(names)].tolist() == before.index_of().tolist()
    for shard in range(before.shard_count()):
        assert after.column_of(shard)[: len(names)].tolist() == before.column_of(shard).tolist()


@given(readings(tags=TAGS, ticks=3), st.integers(1, 3))
@settings(deadline=None)
def test_split_loses_nothing(block: Readings, shards: int) -> None:
    layout = Layout(["float32", "float64"] * (TAGS // 2), shards)
    parts = layout.split(block)
    assert sorted(r for part in parts.values() for r in rows(part)) == rows(block)
    for shard, part in parts.items():
        assert len(part) > 0
        assert part.values.dtype == layout.dtype(shard)
        assert (layout.shard_of()[part.tags] == shard).all()


@settings(deadline=None)
@given(block=readings(tags=12, ticks=3), shards=st.integers(1, 4), counted=st.booleans())
def test_parts_hold_as_many_readings_as_a_slow_count_says(block: Readings, shards: int, counted: bool) -> None:
    if counted:
        assert len(block) == _slow_count(block)
    for part in Layout(["float32"] * 12, shards).split(block).values():
        assert len(part) == _slow_count(part)


def _slow_count(block: Readings) -> int:
    if isinstance(block, Frame):
        return len(block.times)
    pairs = zip(block.values.flat, block.quality.flat, strict=True)
    return sum(not (np.isnan(value) and quality == 0) for value, quality in pairs)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SiteError, match="neither float32 nor float64"):
        Layout(["int8"], 1)
    with pytest.raises(SiteError, match="0 shards"):
        Layout(["float32"], 0)
    stranger = Frame(
        times=np.zeros(1, np.int64), tags=np.array([3], np.int32), values=np.ones(1, np.float32),
        quality=np.zeros(1, np.uint8),
    )  # fmt: skip
    with pytest.raises(SiteError, match="rebuild it from the tag registry"):
        Layout(["float32"], 1).split(stranger)
