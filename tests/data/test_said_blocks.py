"""Closed ticks in blocks: whatever was packed, written late or pruned, a model's answers are read as rows say them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.views.adjusted import COLUMNS, Adjusted
from penstock.data.views.said_blocks import open_spans
from penstock.data.views.said_rows import SaidRows
from penstock.data.views.speed_view import SpeedView, Spoken

LAYOUTS: Sequence[tuple[tuple[str, int], ...]] = (
    (), (("nox", 1),), (("nox", 1), ("tey", 2)), (("tey", 2), ("nox", 1)), (("tey", 1), ("nox", 2)),
)  # fmt: skip
TICKS = st.one_of(*(st.integers(at, at + 7) for at in (-4, 1020, 2044, 3000, 5116)))
"""On both sides of some borders of blocks."""


def spoken(tick: int, layout: int, beside: bool) -> Spoken:
    """Everything in it follows from its tick, layout and `beside`; much of it is the same from tick to tick."""
    members = LAYOUTS[layout]
    m, o = len(members), sum(outputs for _, outputs in members)
    random = np.random.default_rng([tick + 9, layout, beside])
    values = random.normal(size=o).astype(np.float32)
    values[random.random(o) < 0.2] = np.nan
    adjusted = Adjusted(**{name: random.normal(size=o).astype(np.float32) for name in COLUMNS}) if beside else None
    return Spoken(
        tick=tick, members=members, values=values, versions=np.full(m, 1 + tick // 2048, np.int32),
        reasons=(random.random(m) < 0.1).astype(np.uint8) * 3, filled=random.random(m) < 0.1,
        hashes=random.integers(0, 2**64, m, np.uint64), position=tick, adjusted=adjusted,
    )  # fmt: skip


def slow(said: Mapping[int, Spoken], model: str, first: int, last: int) -> SaidRows:
    """Tick by tick, from what was written."""
    some = [s for tick, s in sorted(said.items()) if first <= tick < last]
    found = []
    for s in some:
        names = [name for name, _ in s.members]
        if model in names:
            begin = sum(o for _, o in s.members[: names.index(model)])
            found.append((s, names.index(model), slice(begin, begin + s.members[names.index(model)][1])))
    width = max((cut.stop - cut.start for *_, cut in found), default=0)
    values = np.full((len(found), width), np.nan, np.float32)
    beside = Adjusted.nothing(len(found), width)
    for row, (s, _, cut) in enumerate(found):
        values[row, : cut.stop - cut.start] = s.values[cut]
        for name in COLUMNS if s.adjusted is not None else ():
            getattr(beside, name)[row, : cut.stop - cut.start] = getattr(s.adjusted, name)[cut]
    return SaidRows(
        ticks=np.array([s.tick for s, *_ in found], np.int64),
        values=values,
        versions=np.array([s.versions[i] for s, i, _ in found], np.int32),
        reasons=np.array([s.reasons[i] for s, i, _ in found], np.uint8),
        filled=np.array([s.filled[i] for s, i, _ in found], bool),
        hashes=np.array([s.hashes[i] for s, i, _ in found], np.uint64),
        adjusted=beside if any(s.adjusted is not None for s in some) else None,
    )


def bits(rows: SaidRows) -> dict[str, tuple[object, ...] | None]:
    columns = {n: getattr(rows, n) for n in ("ticks", "values", "versions", "reasons", "filled", "hashes")}
    columns |= {n: None if rows.adjusted is None else getattr(rows.adjusted, n) for n in COLUMNS}
    return {n: None if c is None else (c.shape, c.dtype.str, c.tobytes()) for n, c in columns.items()}


Step = tuple[str, int, int, bool]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), TICKS, st.integers(0, len(LAYOUTS) - 1), st.booleans()),
        st.tuples(st.just("pack"), st.integers(1, 5), st.just(0), st.just(False)),
        st.tuples(st.just("prune"), TICKS, st.just(0), st.just(False)),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, spans=st.lists(st.tuples(TICKS, TICKS), min_size=3, max_size=6))
def test_what_is_read_is_what_was_said(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], spans: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("view") / "speed.sqlite"
    said: dict[int, Spoken] = {}
    with closing(SpeedView.open(path)) as view, closing(sqlite3.connect(path)) as stranger:
        for what, at, layout, beside in steps:
            match what:
                case "say":
                    one = spoken(at, layout, beside)
                    assert view.write([one]) == (at not in said)
                    if at not in said:
                        said[at] = one
                    elif one.adjusted is not None and said[at].members == one.members:
                        said[at] = joined(said[at], one)
                    elif one.adjusted is not None:
                        return  # no writer says other members at a tick that was said
                case "pack":
                    view.pack(at)
                case "prune":  # as whoever shortens the file would, who knows nothing of blocks
                    stranger.execute("DELETE FROM said WHERE tick < ?", (at,))
                    stranger.execute("DELETE FROM adjusted WHERE tick < ?", (at,))
                    stranger.commit()
                    said = {tick: s for tick, s in said.items() if tick >= at}
        for first, last in [*spans, (-(1 << 40), 1 << 40)]:
            for model in ("nox", "tey", "nobody"):
                assert bits(view.read(model, first, last)) == bits(slow(said, model, first, last))
        packed = stranger.execute("SELECT DISTINCT first >> 10 FROM packed").fetchall()
        assert set(packed) <= set(stranger.execute("SELECT block FROM blocks").fetchall()), "nothing is left behind"


def joined(first: Spoken, second: Spoken) -> Spoken:
    """What was said first stays; what stands beside it may come later."""
    return first if first.adjusted is not None else replace(first, adjusted=second.adjusted)


def test_closed_blocks_are_packed_a_few_at_a_time_and_the_open_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "speed.sqlite"
    view = SpeedView.open(path)
    assert view.pack(9) == 0
    view.write([spoken(tick, 2, False) for tick in (*range(1024), *range(5000, 5300), 9000, 9300)])
    told = view.read("tey", 0, 9400)
    assert view.pack(2) == 2
    with closing(sqlite3.connect(path)) as stranger:

        def blocks() -> list[int]:
            return [block for (block,) in stranger.execute("SELECT block FROM blocks ORDER BY block")]

        done = blocks()
        assert 9 not in done  # 9216 and on are still being said
        assert view.pack(9) == 2
        assert blocks() == [0, 4, 5, 8]
        assert view.pack(9) == 0
        assert bits(view.read("tey", 0, 9400)) == bits(told)
        view.write([spoken(5301, 2, False)])
        assert blocks() == [0, 4, 8]
        assert SpeedView.open(path).pack(9) == 1  # another process finds it
        assert blocks() == [0, 4, 5, 8]
        kept = 'SELECT count, length(versions), length("values") FROM packed WHERE model = ? AND first = 0'
        size = stranger.execute(kept, ("tey",)).fetchall()
        assert size == [(1024, 4, 8192)], "what is the same throughout is kept once"


@pytest.mark.parametrize(
    ("whole", "open_"),
    [
        (set(), [(5, 5000)]),
        ({0}, [(1024, 5000)]),
        ({1, 2}, [(5, 1024), (3072, 5000)]),
        ({0, 1, 2, 3, 4}, []),
        ({4}, [(5, 4096)]),
    ],
)
def test_what_no_block_holds_is_read_from_rows(whole: set[int], open_: list[tuple[int, int]]) -> None:
    assert list(open_spans(whole, 5, 5000)) == open_
