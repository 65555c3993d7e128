"""What a batch view still needs: against a dictionary by tick that remembers everything.

An imaginary plant has a number per tick, its content; a window's answer is (version, the contents it reads). The view
is brought up by the plan alone, and must then be what somebody says who computes every tick of it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.batch.due import Due, due, pieces, todo_of, touched
from penstock.data.plant import HOUR_NS, ModelSpec, Plant, PrepareStep, Tag
from penstock.data.views.made import Made
from penstock.data.views.spans import both, clipped, covered, length, minus, painted
from penstock.data.window_spec import WindowSpec

ALL = range(-5, 60)
RANGES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=5)


def ticks(ranges: object) -> set[int]:
    return {t for a, b, *_ in ranges for t in range(a, b)}  # type: ignore[attr-defined]


@given(mine=RANGES, others=RANGES)
def test_ranges_are_sets_of_ticks(mine: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    assert ticks(minus(mine, others)) == ticks(mine) - ticks(others)
    assert ticks(both(mine, others)) == ticks(mine) & ticks(others)
    assert length(minus(mine, others)) == len(ticks(mine) - ticks(others)), "no tick stands twice"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 3)), max_size=8), st.integers(0, 50))
def test_spans_are_a_dictionary_by_tick(strokes: list[tuple[int, int, int]], cut: int) -> None:
    spans, model = (), dict[int, int]()
    for first, last, version in strokes:
        spans = painted(spans, first, last, version)
        model |= dict.fromkeys(range(first, last), version)
    assert {t: v for a, b, v in spans for t in range(a, b)} == model
    assert list(spans) == sorted(spans)
    assert all(a[1] < b[0] or a[2] != b[2] for a, b in pairwise(spans)), "neighbours are joined"
    assert ticks(clipped(spans, cut, cut + 9)) == model.keys() & set(range(cut, cut + 9))
    assert ticks(covered(spans, 2)) == {t for t, v in model.items() if v == 2}


BEFORE, BEHIND = 3, 1
"""Ticks that an imaginary window reads besides its own."""


@dataclass
class Site:
    """Contents by tick, the log of what came, the clock, and what was asked of the view."""

    cells: dict[int, int] = field(default_factory=dict)
    came: list[int] = field(default_factory=list)
    closed: int = 0
    champion: int = 1
    gone: set[int] = field(default_factory=set)

    def answer(self, tick: int, version: int) -> tuple[int, ...]:
        return (version, *(self.cells.get(t, 0) for t in range(tick - BEFORE, tick + BEHIND + 1)))


@dataclass
class View:
    """Rows, and what they are of; brought up in pieces, of which a kill may leave some undone."""

    rows: dict[int, tuple[int, ...]] = field(default_factory=dict)
    made: Made | None = None
    seam: int = 0
    asked: dict[int, int] = field(default_factory=dict)
    """The slow model: version by tick."""

    def bring_up(self, site: Site, history: int, piece: int, killed_after: int) -> None:
        complete = site.closed - BEHIND
        begin = max(0, complete - history)
        changed = []
        if self.made is not None:
            changed = [(t - BEHIND, t + 1 + BEFORE) for t in site.came[self.made.position :]]
        stored = {1, 2, 3} - site.gone
        wanted = due(
            self.made, champion=site.champion, begin=begin, complete=complete, changed=tuple(changed), stored=stored
        )
        self.carry_out(site, wanted, Made(position=len(site.came), closed=site.closed), piece, killed_after)

    def carry_out(self, site: Site, wanted: Due, base: Made, piece: int, killed_after: int) -> None:
        work = pieces(wanted, piece)
        made = replace(base, spans=self.made.spans if self.made else (), todo=wanted.changed)
        for k, spans in enumerate(work[:killed_after], start=1):
            for first, last, version in spans:
                assert 0 < last - first <= piece
                for tick in range(first, last):
                    self.rows[tick] = site.answer(tick, version)
                    self.asked[tick] = version
                made = replace(made, spans=painted(made.spans, first, last, version))
                self.seam = max(self.seam, last)
            made = replace(made, todo=todo_of(wanted, work[:k]))
            self.made = made
        if not work and self.made is not None:
            self.made = made


STEPS = st.one_of(
    st.tuples(st.just("new"), st.integers(1, 9), st.integers(0, 99)),
    st.tuples(st.just("late"), st.integers(0, 25), st.integers(0, 99)),
    st.tuples(st.just("champion"), st.integers(1, 3), st.just(0)),
    st.tuples(st.just("up"), st.integers(1, 4), st.sampled_from([0, 1, 2, 1000])),
)


@given(steps=st.lists(STEPS, max_size=25), history=st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_a_view_that_is_brought_up_is_what_would_be_computed_from_scratch(
    steps: list[tuple[str, int, int]], history: int
) -> None:
    site, view = Site(), View()
    for what, number, value in [*steps, ("up", 1000, 1000)]:
        match what:
            case "new":
                for tick in range(site.closed, site.closed + number):
                    site.cells[tick] = value
                site.closed += number
            case "late":
                if number < site.closed:
                    site.cells[number] = value
                    site.came.append(number)
            case "champion":
                site.champion = number
            case _:
                before, was = dict(view.asked), view.seam
                view.bring_up(site, history, number, value if value < 1000 else 10**6)
                assert view.seam <= max(site.closed - BEHIND, was), "the seam never passes a tick that is open"
                if value == 1000:
                    check(site, view, history, before)


def check(site: Site, view: View, history: int, before: dict[int, int]) -> None:
    """All of the last `history` is the champion's; older ticks are whose they were; no value is old."""
    complete = site.closed - BEHIND
    newest = set(range(max(0, complete - history), complete))
    assert {t for t in newest if view.asked.get(t) != site.champion} == set()
    assert {t: v for t, v in view.asked.items() if t not in newest} == {
        t: v for t, v in before.items() if t not in newest
    }
    assert view.rows == {t: site.answer(t, v) for t, v in view.asked.items()}
    assert view.made is None or view.made.todo == ()
    if view.made is not None:
        assert {t: v for a, b, v in view.made.spans for t in range(a, b)} == view.asked


def test_a_second_run_has_nothing_to_do_and_one_more_tick_is_one_more_tick() -> None:
    made = Made(position=5, closed=100, spans=((0, 40, 1), (40, 100, 2)))
    ask = {"champion": 2, "begin": 40, "stored": {1, 2}}
    assert due(made, complete=100, changed=(), **ask).spans == ()  # type: ignore[arg-type]
    assert due(made, complete=101, changed=(), **ask).spans == ((100, 101, 2),)  # type: ignore[arg-type]
    left = replace(made, todo=((10, 12), (98, 100)))
    assert due(left, complete=100, changed=(), **ask).spans == ((10, 12, 1), (98, 100, 2))  # type: ignore[arg-type]
    late = due(made, complete=100, changed=((38, 43),), **ask)  # type: ignore[arg-type]
    assert late.spans == ((38, 40, 1), (40, 43, 2)), "each by the version that answers there"
    assert due(made, complete=100, changed=((38, 43),), **(ask | {"stored": {2}})).spans == (  # type: ignore[arg-type]
        (40, 43, 2),
    ), "what nobody can compute any more stays as it was said"
    assert due(made, complete=100, changed=(), **(ask | {"champion": 3, "begin": 70, "stored": {3}})).spans == (  # type: ignore[arg-type]
        (70, 100, 3),
    )


@pytest.mark.parametrize("prepare", [(), (PrepareStep(name="lag", span_ns=2 * HOUR_NS),)])
def test_a_cell_touches_the_ticks_whose_windows_read_it(prepare: tuple[PrepareStep, ...]) -> None:
    """Window of 4 rows, 2 ticks apart, a rule that looks back: which ticks read a cell is told by the spec's depth."""
    tags = {"A": Tag(name="A", flat_after_ns=5 * HOUR_NS), "Y": Tag(name="Y")}
    model = ModelSpec(
        name="m", targets=("Y",), inputs=("A",), step_ns=2 * HOUR_NS, window=4, every_ns=HOUR_NS, prepare={"A": prepare}
    )
    spec = WindowSpec.of(model, Plant(name="p", period_ns=HOUR_NS, tags=tags, models={"m": model}))
    ((first, last),) = touched(spec, [(100, 102)])
    assert first == 100
    assert last - 1 >= 101 + 6 + (2 if prepare else 0) + 4, "the flat rule needs the four readings before a row"
    assert touched(spec, [(5, 5)]) == ()
