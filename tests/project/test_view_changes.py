"""Which ticks of a batch view late readings touch, each by the windows of the version that answers there. No engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from penstock.data.journal import ClockDecision, Entry
from penstock.data.models import Draft, Golden
from penstock.data.views.batch_view import BatchView
from penstock.data.views.made import Made
from penstock.data.views.predictions import Predictions
from penstock.data.windows import WindowSpec
from penstock.site import Site
from penstock.view_changes import changed, complete_until
from penstock.view_runs import before_of

BEGIN = pd.Timestamp("2025-03-01", tz="UTC")
GOLDEN = Golden(windows=np.zeros((1, 3, 1), np.float32), predictions=np.zeros((1, 1)), scale=np.ones(1))


def plant(window: str) -> str:
    return (
        '[plant]\nname = "p"\nperiod = "1s"\n[tags]\nA = {}\nB = {}\nY = {}\n'
        f'[model.m]\ntarget = "Y"\ninputs = ["A"]\nwindow = "{window}"\n'
    )


def readings(tag: str, *seconds: float) -> pd.DataFrame:
    return pd.DataFrame({"time": BEGIN + pd.to_timedelta(seconds, unit="s"), tag: np.array(seconds)})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Version 1 reads nine rows, version 2 three; 30 s of history."""
    (tmp_path / "plant.toml").write_text(plant("9s"))
    Site.create(tmp_path / "site", tmp_path / "plant.toml").close()
    for window in ("9s", "3s"):
        (tmp_path / "site" / "plant.toml").write_text(plant(window))
        with Site.open(tmp_path / "site") as opened:
            spec = WindowSpec.of(opened.plant.model("m"), opened.plant)
            card = {"spec": spec.to_json(), "units": list(spec.target_units), "trained": {}}
            opened.models.save(Draft(name="m", kind="onnx", card=card, keras=b"", golden=GOLDEN, program=b"x"))
    with Site.open(tmp_path / "site") as opened:
        opened.load(readings("A", *range(30)))
        yield opened


def made(site: Site, first: int) -> Made:
    head = site.readings.head()
    spans = ((first, first + 20, 1), (first + 20, first + 30, 2))
    return Made(position=head.position, closed=head.closed, spans=spans)


def test_each_tick_by_the_windows_of_its_own_version_with_a_clock_and_without(site: Site) -> None:
    first = site.readings.head().span[0]
    view = made(site, first)
    assert view.closed is None
    assert changed(site, "m", view, site.readings.head()) == ()
    site.load(readings("A", 5.5, 19.5))
    site.load(readings("B", 3.0))
    head = site.readings.head()
    assert changed(site, "m", view, head) == ((first + 5, first + 14), (first + 19, first + 22))
    assert changed(site, "m", replace(view, spans=((first, first + 30, 3),)), head) == (), "nobody can say version 3"

    decision = ClockDecision(closed=first + 30, reason="end", state={})
    site.journal.append([Entry(source="clock", source_offset=0, parts={}, clock=decision)])
    site.load(readings("B", 4.0))
    view = made(site, first)
    assert view.closed == first + 30
    site.load(readings("A", 15.5, 40))
    head, spec = site.readings.head(), site.spec("m")
    assert changed(site, "m", view, head) == ((first + 15, first + 20),), "what is open is none of the view's"
    assert complete_until(head, spec) == first + 30, "the clock has closed no more"
    ahead = replace(view, spans=(*view.spans, (first + 30, first + 41, 2)))
    assert changed(site, "m", ahead, head)[-1] == (first + 30, first + 41), "what was computed while it was open"


def test_a_view_of_an_older_penstock_is_all_to_be_done_again(site: Site) -> None:
    folder, head, spec = site.folder / "views" / "batch" / "m", site.readings.head(), site.spec("m")
    assert before_of(site, folder, spec, head) is None
    rows = Predictions.nothing(1)
    BatchView.write(folder, rows, first=5, last=9, attributes={"model": "m", "version": 2, "horizon": 0})
    found = before_of(site, folder, spec, head)
    assert found is not None
    assert (found.spans, found.todo, found.position) == (((5, 9, 2),), ((5, 9),), head.position)
    assert before_of(site, folder, replace(spec, horizon=1), head) is None, "its rows are for another time"
    BatchView.write(folder, rows, first=5, last=9, attributes={"version": 2, "horizon": 0, "targets": ["B"]})
    assert before_of(site, folder, spec, head) is None, "its rows are of another target"
