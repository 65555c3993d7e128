"""Of a champion's and a challenger's rows those of one version, beside a plain look at every tick."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.by_version import said_by
from penstock.data.views.adjusted import COLUMNS, Adjusted
from penstock.data.views.speed_view import SaidRows

TICKS = 30


def said(spoke: list[int], value: float, *, beside: bool) -> SaidRows:
    """At tick t the version spoke[t], 0: nobody."""
    ticks = np.array([t for t, v in enumerate(spoke) if v], np.int64)
    values = np.array([[value + t] for t in ticks], np.float32).reshape(-1, 1)
    some = Adjusted(**{name: values + k for k, name in enumerate(COLUMNS)}) if beside else None
    return SaidRows(
        ticks=ticks, values=values, versions=np.array([spoke[t] for t in ticks], np.int32),
        reasons=np.zeros(len(ticks), np.uint8), filled=np.zeros(len(ticks), bool),
        hashes=ticks.astype(np.uint64), adjusted=some,
    )  # fmt: skip


SPOKE = st.lists(st.integers(0, 3), min_size=TICKS, max_size=TICKS)


@given(SPOKE, SPOKE, st.integers(1, 4))
def test_each_tick_at_which_the_version_spoke_once_in_order(first: list[int], second: list[int], version: int) -> None:
    found = said_by(said(first, 0.0, beside=True), said(second, 1000.0, beside=False), version)
    expected = {t: (t if first[t] == version else 1000 + t) for t in range(TICKS) if version in (first[t], second[t])}
    if found is None:
        assert expected == {}
        return
    assert dict(zip(found.ticks.tolist(), found.values[:, 0].tolist(), strict=True)) == expected
    assert found.ticks.tolist() == sorted(expected)
    assert set(found.versions.tolist()) == {version}
    assert found.hashes.tolist() == found.ticks.tolist()
    lows = np.full(len(found.ticks), np.nan) if found.adjusted is None else found.adjusted.lows[:, 0]
    own = np.array([first[t] == version for t in found.ticks])
    assert np.isnan(lows[~own]).all(), "nothing stands beside a challenger"
    np.testing.assert_array_equal(lows[own], found.ticks[own] + COLUMNS.index("lows"))


def test_where_nothing_was_said() -> None:
    assert said_by(None, None, 1) is None
    assert said_by(None, said([2] * TICKS, 0.0, beside=False), 1) is None
