"""A plan that is known ahead: imported, trained on, streamed past, revised, and said again.

tick   0 ............ 400 ................ 500 ............ 560
plan   imported once, up to 640            |  510..529 revised
load   imported       streamed             streamed
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from penstock.batch.history import Source, past
from penstock.data.archive.archiver import drain
from penstock.data.frame import Frame
from penstock.data.journal import Entry
from penstock.data.journal.ledger import REVISED, late_list
from penstock.data.views.speed_view import SaidRows, SpeedView
from penstock.data.windows import Reason, Windows
from penstock.site import Site

PLANT = """
[plant]
name = "grid"
period = "1s"
[tags]
LOAD = { unit = "MW" }
PLAN = { unit = "MW", ahead = "1min" }
Z = {}
[model.soon]
target = "LOAD"
inputs = ["PLAN"]
prepare = { PLAN = ["lag -20s"] }
past_target = true
window = "4s"
horizon = "20s"
lstm = { units = 4, epochs = 2 }
"""
BEGIN = pd.Timestamp("2024-05-01", tz="UTC")
FIRST = int(BEGIN.timestamp())
LIVE, REVISION, END, PLANNED, AHEAD = 400, 500, 560, 640, 20
REVISED_TICKS = range(510, 530)


def column(name: str, first: int, last: int, *, more: float = 0.0) -> pd.DataFrame:
    at = np.arange(first, last)
    values = 100 + 30 * np.sin(at / 17) + np.random.default_rng(5).normal(0, 3, PLANNED)[at] * (name == "LOAD")
    times = BEGIN + pd.to_timedelta(at, "s") + pd.Timedelta(300 if more else 0, "ms")
    return pd.DataFrame({"time": times, name: (values + more).round(2)})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ahead")
    (folder / "plant.toml").write_text(PLANT)
    Site.create(folder / "site", folder / "plant.toml").close()
    (folder / "site" / "site.toml").write_text("dask.workers = 1\njournal.segment_mb = 16\n")
    with Site.open(folder / "site") as opened:
        yield opened


def said(site: Site, first: int, last: int) -> SaidRows:
    view = SpeedView.open(site.folder / "views" / "speed.sqlite")
    rows = view.read("soon", FIRST + first, FIRST + last)
    view.close()
    return rows


def recut(site: Site, first: int, last: int) -> Windows:
    """By the batch layer, from the archive as it is now."""
    spec = site.spec("soon")
    ids = [site.desk().ids[tag.name] for tag in spec.stored]
    source = Source(folder=site.readings.folder, snapshot=site.readings.head().snapshot)
    return past(source, spec, ids, FIRST + first, FIRST + last + spec.horizon).windows


def test_a_plan_published_once_is_seen_alike_by_training_and_stream(site: Site) -> None:
    site.load(column("LOAD", 0, LIVE))
    site.load(column("PLAN", 0, PLANNED))
    assert site.readings.span() == (FIRST, FIRST + LIVE), "what lies ahead has not been"
    card = site.train("soon").card
    assert (card["trained"]["first"], card["trained"]["last"]) == (FIRST, FIRST + LIVE)
    site.deploy("soon")
    assert site.stream(column("LOAD", LIVE, REVISION))["ticks"] == REVISION - LIVE
    live, batch = said(site, LIVE, REVISION), recut(site, LIVE, REVISION)
    assert (live.reasons == Reason.OK).all()
    assert live.ticks.tolist() == batch.ends.tolist() == list(range(FIRST + LIVE, FIRST + REVISION))
    assert live.hashes.tolist() == batch.hash.tolist()
    newest = np.asarray(batch.x[-1, -1, 0])
    assert newest == np.float32(column("PLAN", REVISION - 1 + AHEAD, REVISION + AHEAD)["PLAN"][0])
    answer = site.query("soon", start=BEGIN + pd.Timedelta(REVISION - 50, "s"))
    assert answer.attrs["open"] == 0
    assert answer.sizes["time"] == 50 + AHEAD


def test_a_revision_changes_what_is_said_next_and_explains_what_was_said(site: Site) -> None:
    site.load(column("PLAN", REVISED_TICKS.start, REVISED_TICKS.stop, more=40.0))
    site.stream(column("LOAD", REVISION, END))
    (revised,) = late_list(site.folder / "journal", table=REVISED)
    assert (revised.t0 - FIRST, revised.t1 - FIRST, revised.count) == (510, 530, 20)
    live, batch = said(site, LIVE, END), recut(site, LIVE, END)
    different = live.ticks[live.hashes != batch.hash] - FIRST
    assert different.tolist() == list(range(REVISED_TICKS.start - AHEAD, REVISION))
    run = site.reconcile()
    assert (run.unexplained, run.models[0]["late"], run.models[0]["ticks"]) == (0, len(different), END - LIVE)
    assert [r["kind"] for found in run.differences for r in found["late"]] == ["revised"]
    told = site.explain("soon", BEGIN + pd.Timedelta(int(different[0]) + AHEAD, "s"))
    assert (told["verdict"], told["late"][0]["kind"]) == ("late", "revised")
    forget_journal(site)
    found = site.replay(BEGIN + pd.Timedelta(LIVE + 50, "s"), BEGIN + pd.Timedelta(END, "s"))
    assert found.order["archive"] == END - LIVE - 50
    (soon,) = found.models
    assert (soon["unexplained"], soon["late"], soon["equal"]) == (0, len(different), END - LIVE - 50 - len(different))
    (difference,) = found.differences
    assert difference["from"] == (BEGIN + pd.Timedelta(int(different[0]), "s")).isoformat()
    assert [r["readings"] for r in difference["late"]] == [20]


def forget_journal(site: Site) -> None:
    """So many readings of another tag come in that the journal lets go of what was streamed."""
    (z,), many = site.registry.ids(["Z"]), 500_000
    more = Frame(
        times=np.full(many, site.readings.grid.time(FIRST + END + 9)), tags=np.full(many, z, np.int32),
        values=np.ones(many, np.float32), quality=np.zeros(many, np.uint8),
    )  # fmt: skip
    while site.journal.first == 0:
        site.journal.append([Entry(source="import:z", source_offset=1, parts=site.layout().split(more))])
        drain(site.journal, site.readings, site.layout())
        site.journal.trim(site.readings.head().position)
