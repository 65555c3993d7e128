"""A batch view over a site's life, on real Dask and Triton: each run computes what it must, and no more.

readings | imported, no clock ......... | imported behind | streamed ..... | late | and with another version
view     | the last 3 hours, v1         | what it touches | what is new    | both | the last 3 hours v2, the rest v1
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from penstock import pipeline
from penstock.cli import app
from penstock.cluster import local_cluster
from penstock.data.durable import locked
from penstock.data.views.batch_view import BatchView
from penstock.data.views.made import Made
from penstock.data.views.predictions import Predictions
from penstock.data.views.spans import covered, length
from penstock.data.windows import Reason
from penstock.errors import ArchiveBusy, Gap, ModelNotFound
from penstock.serving.deploy import Deployer
from penstock.site import Site

PLANT = """
[plant]
name = "pump"
period = "1min"
[tags]
A = { range = [-9, 9], flat_after = "6min" }
Y = {}
[aggregates]
periods = ["10min", "1h"]
[defaults.model]
target = "Y"
inputs = ["A"]
window = "4min"
lstm = { units = 8, epochs = 2, batch = 32 }
view = { history = "3h", cron = "15 * * * *" }
[model.view-a]
[model.view-b]
every = "5min"
"""
START = pd.Timestamp("2024-01-01", tz="UTC")
HISTORY, STREAMED = 600, 60
BEFORE = 3 + 6
"""Ticks behind a cell whose windows it touches: three rows, and what the rule for standing still looks back."""


def readings(first: int, rows: int, shift: float = 0.0) -> pd.DataFrame:
    k = np.arange(first, first + rows)
    a = np.sin(k / 7) + np.cos(k / 31) + shift
    return pd.DataFrame({"time": START + pd.to_timedelta(k, unit="min"), "A": a, "Y": 2 * a})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, triton) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("views")
    (folder / "plant.toml").write_text(PLANT)
    Site.create(folder / "site", folder / "plant.toml").close()
    with local_cluster(1) as client:
        (folder / "site" / "site.toml").write_text(
            f'triton.endpoints = ["{triton.endpoint}"]\ndask.scheduler = "{client.scheduler.address}"\n'
        )
        with Site.open(folder / "site") as opened:
            opened.load(readings(0, 300).drop(index=range(200, 210)))
            opened.load(readings(300, HISTORY - 300))
            opened.train_all(["view-a", "view-b"])
            opened.deploy("view-a")
            yield opened
    with Deployer(triton.endpoint, drain_s=0.1) as deploys:
        deploys.ensure([])


def tick(site: Site, minute: int) -> int:
    return site.readings.grid.tick_of((START + pd.Timedelta(minute, "min")).value)


def view(site: Site, name: str = "view-a") -> BatchView:
    found = BatchView.open(site.folder / "views" / "batch" / name)
    assert found is not None
    return found


def made(site: Site, name: str = "view-a") -> Made:
    found = view(site, name).made
    assert found is not None
    return found


def from_scratch(site: Site, name: str = "view-a") -> Predictions:
    """All that the view says it has, computed at once from the archive as it is now."""
    versions = {version for _, _, version in made(site, name).spans}
    parts = pipeline.recompute(
        site.parts.client(), site.desk(), {v: site.models.load(name, v) for v in versions}, made(site, name).spans,
        snapshot=site.readings.head().snapshot, endpoints=site.parts.running(),
    )  # fmt: skip
    return Predictions.of([part.rows for part in parts])


def check(site: Site, name: str = "view-a") -> None:
    wanted, found = from_scratch(site, name), view(site, name).read(0, 2**62)
    scale = float(site.artifact(name, 1).card["target_scale"][0])
    for column, values in wanted.columns().items():
        if (
            column == "values" and len(site.models.versions(name)) > 1
        ):  # of a version that is live no more Keras says it
            np.testing.assert_allclose(found.values, values, rtol=0, atol=1e-5 * scale)
        else:
            np.testing.assert_array_equal(found.columns()[column], values, column)


def test_1_the_first_run_is_the_last_history(site: Site) -> None:
    with pytest.raises(ModelNotFound, match="view-b: is not live"):
        site.recompute("view-b")
    assert "not yet: view-a" in {row["part"]: row for row in site.status()}["views"]["what"]
    done = site.recompute("view-a")
    assert (done["recomputed"], done["ticks"], done["changed"]) == ("view-a@1", 180, 0)
    assert made(site).spans == ((tick(site, HISTORY - 180), tick(site, HISTORY), 1),)
    assert (made(site).closed, made(site).position) == (None, site.readings.head().position)
    check(site)
    again = site.recompute("view-a")
    assert (again["ticks"], again["seam"]) == (0, done["seam"])
    answer = site.query("view-a", START + pd.Timedelta(HISTORY - 200, "min"))
    assert answer["layer"].values.tolist() == [""] * 20 + ["recomputed"] * 180
    with pytest.raises(Gap, match="20 of 200 ticks"):
        site.query("view-a", START + pd.Timedelta(HISTORY - 200, "min"), strict=True)


def test_2_an_import_behind_the_seam_is_seen_without_any_clock(site: Site) -> None:
    before = view(site).read(0, 2**62)
    site.load(readings(500, 1, shift=0.5).assign(time=lambda t: t["time"] + pd.Timedelta(30, "s")))
    site.load(readings(200, 10))  # before the view begins
    done = site.recompute("view-a")
    assert (done["ticks"], done["changed"]) == (1 + BEFORE, 1 + BEFORE)
    after = view(site).read(0, 2**62)
    differs = after.ticks[(after.values != before.values).any(axis=1)]
    assert differs.tolist() == list(range(tick(site, 500), tick(site, 504))), "the four windows that hold it"
    check(site)


def test_3_a_streams_ticks_are_taken_up_and_have_the_bits_that_were_said(site: Site) -> None:
    report = site.stream(readings(HISTORY, STREAMED))
    assert report["ticks"] >= STREAMED - 1
    closed = site.readings.head().closed
    assert closed is not None
    live = site.query("view-a", START + pd.Timedelta(HISTORY, "min"))
    assert set(live["layer"].values) == {"live"}
    done = site.recompute("view-a")
    assert (done["ticks"], done["changed"]) == (view(site).seam - tick(site, HISTORY), 0)
    assert view(site).seam == min(closed, site.readings.head().newest)
    again = site.query("view-a", START + pd.Timedelta(HISTORY, "min"), START + pd.Timedelta(HISTORY + STREAMED, "min"))
    assert set(again["layer"].values[: done["ticks"]]) == {"recomputed"}
    assert (live["reason"].values == "OK").sum() > STREAMED - 10
    assert again["prediction"].values[: done["ticks"]].tobytes() == live["prediction"].values[: done["ticks"]].tobytes()
    check(site)


def test_4_a_late_reading_is_found_in_the_ledger(site: Site) -> None:
    site.load(readings(550, 2, shift=0.25).assign(time=lambda t: t["time"] + pd.Timedelta(30, "s")))
    done = site.recompute("view-a")
    assert (done["ticks"], done["changed"]) == (2 + BEFORE, 2 + BEFORE)
    check(site)
    assert site.recompute("view-a")["ticks"] == 0


def test_5_what_was_asked_for_while_it_was_open_is_made_again(site: Site) -> None:
    """An import in front of the clock: the view does not go there by itself, and not for good where it is told to."""
    site.load(readings(HISTORY + STREAMED, 60))
    seam = view(site).seam
    assert site.recompute("view-a")["ticks"] == 0, "the clock has not closed them"
    end = START + pd.Timedelta(HISTORY + STREAMED + 40, "min")
    site.recompute("view-a", START + pd.Timedelta(HISTORY + STREAMED, "min"), end)
    assert view(site).seam == seam + 40
    site.load(readings(HISTORY + STREAMED + 20, 1, shift=1).assign(time=lambda t: t["time"] + pd.Timedelta(30, "s")))
    done = site.recompute("view-a")
    assert (done["ticks"], done["changed"]) == (40, 40)
    check(site)


def test_6_a_new_version_says_the_last_history_and_the_older_one_keeps_the_rest(site: Site) -> None:
    site.train("view-a", lstm={"epochs": 3})
    site.deploy("view-a")
    seam = view(site).seam
    done = site.recompute("view-a")
    complete = site.readings.head().closed
    assert complete is not None
    assert done["recomputed"] == "view-a@2"
    begin = complete - 180
    assert made(site).spans == (
        (tick(site, HISTORY - 180), begin, 1), (begin, complete, 2), (complete, seam, 1),
    )  # fmt: skip
    check(site)
    site.load(readings(450, 1, shift=0.75).assign(time=lambda t: t["time"] + pd.Timedelta(30, "s")))
    late = site.recompute("view-a")
    assert late["changed"] == 1 + BEFORE + 40, "the old part, by its own version, and what is still open"
    rows = view(site).read(tick(site, 450), tick(site, 454))
    assert rows.versions.tolist() == [1] * 4
    assert (rows.reasons == Reason.OK).all()
    check(site)
    answer = site.query("view-a", START + pd.Timedelta(440, "min"), START + pd.Timedelta(600, "min"))
    trained = {v: site.models.card("view-a", v)["trained"] for v in (1, 2)}
    ticks = np.arange(tick(site, 440), tick(site, 600))
    for version in (1, 2):
        own = answer["version"].values == version
        inside = (ticks >= trained[version]["first"]) & (ticks < trained[version]["last"])
        assert (answer["sample"].values[own] == inside[own]).all()
        assert own.any()


def test_7_a_version_that_is_gone_keeps_what_it_said(site: Site) -> None:
    before = view(site).read(0, 2**62)
    site.load(readings(455, 1, shift=-0.5).assign(time=lambda t: t["time"] + pd.Timedelta(45, "s")))
    stored = site.folder / "models" / "view-a" / "1"
    aside = stored.with_name("aside")
    stored.rename(aside)
    try:
        assert site.recompute("view-a")["ticks"] == 0
    finally:
        aside.rename(stored)
    np.testing.assert_array_equal(view(site).read(0, 2**62).values, before.values)


def test_8_the_command(site: Site) -> None:
    site.deploy("view-b")
    runner = CliRunner()
    said = runner.invoke(app, ["recompute", "--all", "--site", str(site.folder), "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.output.splitlines()[-1])
    assert [row["recomputed"] for row in told["models"]] == ["view-a@2", "view-b@1"]
    assert told["failed"] == {}
    assert length(covered(made(site, "view-b").spans)) == 180
    assert (np.diff(view(site, "view-b").read(0, 2**62).ticks) == 5).all()
    check(site, "view-b")
    rows = {row["part"]: row for row in site.status()}
    assert rows["views"]["state"] == "ok"
    assert "2 brought up, the oldest" in rows["views"]["what"]
    assert "view-b@1" in runner.invoke(app, ["recompute", "view-*", "-s", str(site.folder)]).output
    assert runner.invoke(app, ["recompute", "-s", str(site.folder)]).exit_code == 2
    assert isinstance(runner.invoke(app, ["recompute", "x*", "-s", str(site.folder)]).exception, ModelNotFound)
    with (
        locked(site.folder / "views" / "batch" / "view-a" / "run.lock", deadline_s=0),
        pytest.raises(ArchiveBusy, match="another process"),
    ):
        site.recompute("view-a")


def test_9_aggregates_that_were_lost_come_back_with_the_same_bits(site: Site) -> None:
    before = {period: site.aggregates(period=period) for period in ("10min", "1h")}
    shutil.rmtree(site.folder / "views" / "aggregates")
    said = CliRunner().invoke(app, ["recompute", "--aggregates", "--site", str(site.folder), "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.output.splitlines()[-1])
    assert (told["models"], told["aggregates"]["pending"]) == ([], 0)
    for period, kept in before.items():
        found = site.aggregates(period=period)
        for name in kept.data_vars:
            assert found[name].values.tobytes() == kept[name].values.tobytes(), (period, name)
