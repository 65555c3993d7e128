"""The merge beside a slow, obvious one: a dictionary per view, and tick by tick the question who speaks.

Views overlap, have holes in the middle, and end before or behind the seam; models answer every few ticks, for a later
time; versions predict other targets, in another order, or at another horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.grid import Grid
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.predictions import Predictions
from penstock.data.views.speed_view import SaidRows
from penstock.data.windows import Reason
from penstock.errors import Gap, QueryError
from penstock.merge import LIVE, NEITHER, RECOMPUTED, Truth, joined, merged
from penstock.outputs import Outputs, columns, fitted, fitted_said

GRID = Grid(period_ns=3_600_000_000_000)
VERSIONS: dict[int, Outputs | None] = {
    1: (("Y", "Z"), 2), 2: (("Z", "Y"), 2), 3: (("Y",), 2), 4: (("Y", "Z"), 0), 5: (("X", "Y", "Z"), 2), 6: None,
}  # fmt: skip
"""What each predicts; of the last one nobody knows any more."""
ASKED: Outputs = (("Y", "Z"), 2)
WIDTH = 3


@dataclass(frozen=True)
class Row:
    """What somebody said: values by target."""

    version: int
    values: dict[str, float]
    reason: int
    layer: str


def number(layer: str, tick: int, target: str) -> float:
    """Tells who said it."""
    return {LIVE: 1000.0, RECOMPUTED: 2000.0}[layer] + 10 * tick + "XYZ".index(target)


Said = dict[int, Row]


@st.composite
def views(draw: st.DrawFn, layer: str) -> Said:
    """Rows by tick; of a withheld one the batch view does not know the version."""
    found = {}
    for tick in draw(st.sets(st.integers(0, 24), max_size=18)):
        version = draw(st.sampled_from(sorted(VERSIONS)))
        reason = draw(st.sampled_from([Reason.OK, Reason.OK, Reason.BAD_INPUT]))
        targets = (VERSIONS[version] or ASKED)[0]
        values = {t: number(layer, tick, t) if reason == Reason.OK else np.nan for t in targets}
        withheld = layer == RECOMPUTED and reason != Reason.OK
        found[tick] = Row(version=0 if withheld else version, values=values, reason=int(reason), layer=layer)
    return found


def wide(said: Said) -> tuple[np.ndarray, np.ndarray]:
    """Ticks and values [n, WIDTH], columns as the version has them."""
    ticks = np.array(sorted(said), np.int64)
    values = np.full((len(ticks), WIDTH), np.nan, np.float32)
    for i, tick in enumerate(ticks.tolist()):
        row = list(said[tick].values.values())
        values[i, : len(row)] = row
    return ticks, values


def predictions(said: Said) -> Predictions:
    ticks, values = wide(said)
    rows = [said[t] for t in ticks.tolist()]
    return Predictions(
        ticks=ticks, values=values, versions=np.array([r.version for r in rows], np.int64),
        reasons=np.array([r.reason for r in rows], np.uint8), filled=ticks % 2 == 0, sample=ticks % 3 == 0,
    )  # fmt: skip


def who(tick: int, seam: int, batch: Said, speed: Said) -> Row | None:
    """The rule, word by word."""
    for row in (batch.get(tick) if tick < seam else None, speed.get(tick)):
        if row is None:
            continue
        if row.version == 0:
            return row
        outputs = VERSIONS[row.version]
        if outputs is not None and outputs[1] == ASKED[1] and {"Y", "Z"} <= set(outputs[0]):
            return row
    return None


@given(
    batch=views(RECOMPUTED), speed=views(LIVE), seam=st.integers(-2, 27), every=st.integers(1, 4),
    span=st.tuples(st.integers(0, 24), st.integers(0, 24)), strict=st.booleans(),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_every_tick_is_said_by_whom_the_rule_says(
    batch: Said, speed: Said, seam: int, every: int, span: tuple[int, int], strict: bool
) -> None:
    wanted = [t for t in range(min(span), max(span) + 1) if t % every == 0]
    if not wanted:
        return
    rows = {t: who(t, seam, batch, speed) for t in wanted}
    holes = [t for t in wanted if rows[t] is None]

    def ask():  # type: ignore[no-untyped-def]
        parts = [fitted(predictions(said), ASKED, VERSIONS.get) for said in (batch, speed)]
        k, horizon = wanted[-1] - wanted[0] + 1, ASKED[1]
        truth = Truth(
            first=wanted[0] + horizon, values=np.arange(2 * k, dtype=np.float32).reshape(k, 2),
            quality=np.zeros((k, 2), np.uint16), flags=np.zeros((k, 2), np.uint16),
        )  # fmt: skip
        return merged(
            model="m", targets=ASKED[0], units=("", ""), grid=GRID, wanted=np.array(wanted), horizon=horizon, seam=seam,
            batch=parts[0], speed=parts[1], truth=truth, strict=strict,
        )  # fmt: skip

    if strict and holes:
        with pytest.raises(Gap, match=rf"{len(holes)} of {len(wanted)} ticks have no answer"):
            ask()
        return
    got = ask()
    assert got.attrs["holes"] == len(holes)
    assert len(got["time"]) == len(wanted), "a gap is a marked hole, never a smaller number"
    for i, tick in enumerate(wanted):
        row = rows[tick]
        assert got["time"].values[i].astype("datetime64[h]").astype(int) == tick + ASKED[1]
        assert got["layer"].values[i] == (NEITHER if row is None else row.layer)
        assert got["version"].values[i] == (0 if row is None else row.version)
        assert got["reason"].values[i] == (Reason.NO_ANSWER if row is None else Reason(row.reason)).name
        assert bool(got["sample"].values[i]) == (row is not None and tick % 3 == 0)
        expected = [row.values.get(t, np.nan) if row is not None and row.reason == 0 else np.nan for t in ASKED[0]]
        np.testing.assert_array_equal(got["prediction"].values[i], np.array(expected, np.float32))
        assert got["truth"].values[i].tolist() == [2.0 * (tick - wanted[0]), 2.0 * (tick - wanted[0]) + 1]


@given(speed=views(LIVE))
@settings(max_examples=100, deadline=None)
def test_what_was_said_beside_a_value_goes_with_it(speed: Said) -> None:
    """A correction, an interval and a chance of another target's are none of this one's."""
    ticks, values = wide(speed)
    rows = SaidRows(
        ticks=ticks, values=values, versions=np.array([speed[t].version for t in ticks.tolist()], np.int32),
        reasons=np.array([speed[t].reason for t in ticks.tolist()], np.uint8), filled=ticks % 2 == 0,
        hashes=ticks.astype(np.uint64),
        adjusted=Adjusted(corrections=values + 1, lows=values + 2, highs=values + 3, chances=values + 4),
    )  # fmt: skip
    found = fitted_said(rows, ASKED, VERSIONS.get)
    assert found.ticks.tolist() == [t for t in ticks.tolist() if who(t, 0, {}, speed) is not None]
    assert found.adjusted is not None
    for k, part in enumerate(("corrections", "lows", "highs", "chances"), start=1):
        np.testing.assert_array_equal(getattr(found.adjusted, part), found.values + np.float32(k))
    assert found.hashes.tolist() == found.ticks.tolist()


def test_rows_that_fit_are_given_as_they_are() -> None:
    rows = predictions({3: Row(version=1, values={"Y": 1.0, "Z": 2.0, "W": 3.0}, reason=0, layer=LIVE)})
    narrow = Predictions(**{**rows.columns(), "values": rows.values[:, :2]})
    assert fitted(narrow, ASKED, VERSIONS.get) is narrow
    assert fitted(narrow, ASKED, lambda version: None) is narrow, "nobody knows what it predicted: as wide as asked"
    assert len(fitted(rows, ASKED, lambda version: None).ticks) == 0
    assert columns(ASKED, (("X", "Z", "Y"), 2)) == [2, 1]
    assert columns(ASKED, (("X", "Z", "Y"), 3)) is None


def test_rows_of_another_width_never_pass_for_an_answer() -> None:
    """numpy would give one column to both targets."""
    rows = predictions({3: Row(version=3, values={"Y": 1.0}, reason=0, layer=LIVE)})
    narrow = Predictions(**{**rows.columns(), "values": rows.values[:, :1]})
    with pytest.raises(QueryError, match="rows of 1 outputs"):
        joined(np.array([3]), 2, 9, narrow, Predictions.nothing(2))


def test_a_model_that_got_another_target_says_a_hole_where_the_old_one_spoke(tmp_path: Path) -> None:
    """Through the site's files: version 1 said FLOW, version 2 says LEVEL and FLOW; plant.toml asks for both."""
    import pandas as pd

    from penstock.data.models import Draft, Golden
    from penstock.data.views.batch_view import BatchView, Part
    from penstock.data.views.made import Made
    from penstock.data.views.speed_view import SpeedView, Spoken
    from penstock.data.windows import WindowSpec
    from penstock.site import Site

    def plant(targets: str) -> str:
        return (
            '[plant]\nname = "p"\nperiod = "1s"\n[tags]\nA = {}\nFLOW = {}\nLEVEL = {}\n'
            f'[model.m]\ntarget = {targets}\ninputs = ["A"]\nwindow = "3s"\n'
        )

    golden = Golden(windows=np.zeros((1, 3, 1), np.float32), predictions=np.zeros((1, 1)), scale=np.ones(1))
    begin = pd.Timestamp("2025-03-01", tz="UTC")
    (tmp_path / "plant.toml").write_text(plant('"FLOW"'))
    Site.create(tmp_path / "site", tmp_path / "plant.toml").close()
    for targets in ('"FLOW"', '["LEVEL", "FLOW"]', '["FLOW", "LEVEL"]'):
        (tmp_path / "site" / "plant.toml").write_text(plant(targets))
        with Site.open(tmp_path / "site") as site:
            spec = WindowSpec.of(site.plant.model("m"), site.plant)
            card = {"spec": spec.to_json(), "units": list(spec.target_units), "trained": {"first": 0, "last": 1}}
            if len(site.models.versions("m")) < 2:
                site.models.save(Draft(name="m", kind="onnx", card=card, keras=b"", golden=golden, program=b"x"))
    with Site.open(tmp_path / "site") as site:
        site.load(pd.DataFrame({"time": begin + pd.to_timedelta(np.arange(30), unit="s"), "A": np.arange(30.0)}))
        first = site.readings.head().span[0]

        def spoken(tick: int, version: int) -> Spoken:
            values = np.array([5.0] if version == 1 else [7.0, 6.0], np.float32)
            return Spoken(
                tick=tick, members=(("m", version),), values=values, versions=np.array([version], np.int32),
                reasons=np.zeros(1, np.uint8), filled=np.zeros(1, bool), hashes=np.zeros(1, np.uint64), position=1,
            )  # fmt: skip

        view = SpeedView.open(site.folder / "views" / "speed.sqlite")
        view.write([spoken(first + k, 1 if k < 20 else 2) for k in range(30)])
        view.close()
        old = Predictions(
            ticks=np.arange(first, first + 10), values=np.full((10, 1), 4.0, np.float32),
            versions=np.ones(10, np.int64), reasons=np.zeros(10, np.uint8), filled=np.zeros(10, bool),
            sample=np.zeros(10, bool),
        )  # fmt: skip
        BatchView.put(
            site.folder / "views" / "batch" / "m", [Part(first=first, last=first + 10, rows=old)],
            attributes={"model": "m", "version": 1, "horizon": 0, "targets": ["FLOW"]},
            made=Made(position=1, closed=None, spans=((first, first + 10, 1),)),
        )  # fmt: skip
        got = site.query("m", begin)
        assert got["layer"].values.tolist() == [""] * 20 + ["live"] * 10
        assert got["prediction"].values[20:].tolist() == [[6.0, 7.0]] * 10, "by name, not by place"
        assert np.isnan(got["prediction"].values[:20]).all()
        with pytest.raises(Gap, match="20 of 30"):
            site.query("m", begin, strict=True)
    (tmp_path / "site" / "plant.toml").write_text(plant('"FLOW"'))
    with Site.open(tmp_path / "site") as site:
        got = site.query("m", begin)
        assert got["layer"].values.tolist() == ["recomputed"] * 10 + ["live"] * 20
        assert got["prediction"].values[:, 0].tolist() == [4.0] * 10 + [5.0] * 10 + [6.0] * 10
