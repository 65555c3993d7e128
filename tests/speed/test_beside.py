"""Corrections and intervals: what the stream says beside predictions is what the obvious reading of the log gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from slow_beside import Slow, slowly

from penstock.data.archive.archiver import drain
from penstock.data.journal import Journal
from penstock.data.plant import CorrectSpec, LiveSpec, Plant
from penstock.data.scoring import Member
from penstock.data.views.adjusted import COLUMNS
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import answers_at
from penstock.speed.beside import Beside
from penstock.speed.clock import begin_of

S = small.SECOND
TAGS = small.TAGS | {
    "E": replace(small.TAGS["E"], truth_delay_ns=5 * S, flat_after_ns=6 * S),
    "SUM": replace(small.TAGS["A"], name="SUM", expr="A + B", max_gap_ns=0),
}
MODELS = {
    "late": small._model("late", ("A",)),
    "ahead": replace(small._model("ahead", ("B",)), targets=("A", "D"), horizon_ns=3 * S),
    "seldom": replace(small._model("seldom", ("A",), every=4), targets=("C",)),
    "sum": replace(small._model("sum", ("D",)), targets=("SUM",)),
    "plain": small._model("plain", ("B",)),
}
PLANT = Plant(name="small", period_ns=S, tags=TAGS, models=MODELS)
MEMBERS = tuple(
    Member(name=m.name, version=1, slot=i, spec=WindowSpec.of(m, PLANT)) for i, m in enumerate(MODELS.values())
)
LIVE = {
    "late": LiveSpec(correct=CorrectSpec(by="bias", over_ns=6 * S), interval=0.8),
    "ahead": LiveSpec(correct=CorrectSpec(by="ewm", over_ns=8 * S), interval=0.9, limits=(5.0, None)),
    "seldom": LiveSpec(correct=CorrectSpec(by="bias", over_ns=20 * S), interval=0.6),
    "sum": LiveSpec(correct=CorrectSpec(by="slope", over_ns=50 * S), interval=0.75, limits=(0.0,)),
}


def said_raw(site: Path, seed: int) -> list[Spoken]:
    """A row per closed tick, with the position of the decision that closed it and values from `seed`."""
    journal, rng, told = Journal.open(site / "journal"), np.random.default_rng(seed), list[Spoken]()
    tick: int | None = None
    for record in journal.read(journal.first, journal.tail, -1):
        if record.clock is None:
            continue
        for t in range(begin_of(record.clock) if tick is None else tick, record.clock.closed):
            told.append(row(t, record.sequence, rng, 1 + (t > 70)))
        tick = record.clock.closed
    journal.close()
    return told


def row(tick: int, position: int, rng: np.random.Generator, version: int) -> Spoken:
    members = [m for m in MEMBERS if answers_at(m.spec, np.array([tick]))[0]]
    outputs = sum(len(m.spec.targets) for m in members)
    values = rng.normal(0, 20, outputs).astype(np.float32)
    values[rng.random(outputs) < 0.1] = np.nan
    return Spoken(
        tick=tick, members=tuple((m.name, len(m.spec.targets)) for m in members), values=values,
        versions=np.full(len(members), version, np.int32), reasons=np.zeros(len(members), np.uint8),
        filled=np.zeros(len(members), bool), hashes=np.zeros(len(members), np.uint64), position=position,
    )  # fmt: skip


def beside(site: Path, view: SpeedView) -> Beside:
    def resolve(names: object) -> np.ndarray:
        return small.resolve(names)

    return Beside(LIVE, site, view, resolve, lambda: small.LAYOUT)


def say(site: Path, raw: list[Spoken], cuts: list[int], restarts: set[int]) -> SpeedView:
    """Group by group, with another Beside at `restarts`."""
    view = SpeedView.open(site / "views" / "speed.sqlite")
    fold = beside(site, view)
    for number, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(raw)], strict=True)):
        if number in restarts:
            fold.close()
            fold = beside(site, view)
        if a < b:
            spoken, state = fold.adjust(MEMBERS, raw[a:b])
            view.write(spoken, state)
    fold.close()
    return view


def told_of(view: SpeedView, raw: list[Spoken], slow: list[Slow]) -> np.ndarray:
    told = np.full((len(raw), len(slow), 4), np.nan)
    first = raw[0].tick
    for j, each in enumerate(slow):
        rows = view.read(each.member.name, first, raw[-1].tick + 1)
        assert rows.adjusted is not None
        parts = [getattr(rows.adjusted, name)[:, each.column] for name in COLUMNS]
        told[rows.ticks - first, j] = np.stack(parts, axis=1)
    return told


def slow_outputs() -> list[Slow]:
    return [Slow(m, c, LIVE[m.name]) for m in MEMBERS if m.name in LIVE for c in range(len(m.spec.targets))]


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 10_000), late=st.booleans(), archived=st.booleans())
def test_it_is_what_all_that_was_known_at_each_tick_gives(
    tmp_path_factory: pytest.TempPathFactory, seed: int, late: bool, archived: bool
) -> None:
    site, rng = tmp_path_factory.mktemp("site"), np.random.default_rng(seed)
    journal, archive = small.make_site(site)
    small.append_all(journal, small.unruly(rng, 120, late=late), lateness_s=1.5)
    raw = said_raw(site, seed)
    if archived:
        drain(journal, archive, small.LAYOUT)  # of which only commits at or before the position may be read
    cuts = np.sort(rng.integers(0, len(raw), 12)).tolist()
    view = say(site, raw, cuts, set(rng.integers(0, 12, 4).tolist()))
    slow = slow_outputs()
    expected, got = slowly(site, raw, slow), told_of(view, raw, slow)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)
    assert np.isfinite(expected[:, :, 1]).sum() > 100  # it does say something
    plain = view.read("plain", raw[0].tick, raw[-1].tick + 1).adjusted
    assert plain is not None
    assert all(np.isnan(getattr(plain, name)).all() for name in COLUMNS)
