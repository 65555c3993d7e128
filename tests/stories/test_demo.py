"""A reading's way from the publisher's file to a merged answer, and a training window's way to Triton.

1. `penstock demo` imports 2011-2013, trains, deploys, recomputes the last months, replays 2014.
2. Its report says that nothing was lost and no request failed.
3. The archive, read with numpy and zarr alone, is the source byte for byte.
4. Every window that was said live is the window that batch cuts from the archive, bit for bit.
5. A query across the seam has both layers and no hole.
"""

from __future__ import annotations

import numpy as np
import plain_archive
from conftest import TICKS, Demo
from demo_runs import answer, first_tick, gas_turbine, penstock, source_values

from penstock.batch.history import Source, past
from penstock.data.views.speed_view import SpeedView
from penstock.data.windows import Reason, WindowSpec, window_hash
from penstock.site import Site

MODELS = {"nox", "tey", "nox_ahead"}


def test_the_report_counts_what_the_files_hold(demo: Demo) -> None:
    report = demo.report
    sent = sum(len(source_values(y)) for y in (2011, 2012, 2013)) * 11 + TICKS * 11
    assert report["readings_sent"] == report["readings_archived"] == sent
    assert report["readings_lost"] == 0
    assert report["failed_requests"] == 0
    assert report["ticks"] == TICKS
    assert report["workers"] == 2
    assert report["triton_version"].startswith("2.")
    assert set(report["models"]) == MODELS
    unread = 1  # nox_ahead's newest prediction is for an hour that has not been read yet
    assert report["predictions"] == sum(m["n"] for m in report["models"].values()) + unread


def test_tey_is_better_than_persistence_even_after_two_passes(demo: Demo) -> None:
    tey = demo.report["models"]["tey"]
    assert tey["rmse"] < tey["persistence_rmse"]


def test_the_archive_is_the_source_byte_for_byte(demo: Demo) -> None:
    spans = [(year, 0, 10**6) for year in (2011, 2012, 2013)]
    plain_archive.check_equal(demo.site, [*spans, (2014, 0, TICKS)])


def test_windows_said_live_are_cut_alike_by_batch(demo: Demo) -> None:
    assert gas_turbine() is not None
    first = first_tick(2014)
    with Site.open(demo.site) as site:
        view = SpeedView.open(site.folder / "views" / "speed.sqlite")
        source = Source(folder=site.readings.folder, snapshot=site.readings.head().snapshot)
        for name in MODELS:
            spec = WindowSpec.of(site.plant.model(name), site.plant)
            ids = [int(i) for i in site.registry.ids([t.name for t in spec.stored])]
            batch = past(source, spec, ids, first, first + TICKS + spec.horizon)
            said = view.read(name, first, first + TICKS)
            assert said.ticks.tolist() == batch.ends.tolist()
            assert said.reasons.tolist() == batch.windows.reason.tolist()
            fine = batch.windows.reason == Reason.OK
            assert fine.sum() > 300
            assert np.array_equal(said.hashes[fine], window_hash(batch.windows.take(fine)))
        view.close()


def test_a_query_across_the_seam_has_both_layers_and_says_where_each_speaks(demo: Demo) -> None:
    with Site.open(demo.site) as site:
        answered = site.query("nox", "2013-10-25", "2014-01-05", strict=True)
    seam = np.datetime64("2014-01-01")
    before = answered["time"].values < seam
    assert set(answered["layer"].values[before]) == {"recomputed"}
    assert set(answered["layer"].values[~before]) == {"live"}
    assert answered["sample"].values[answered["reason"].values == "OK"][0]
    assert not answered["sample"].values[~before].any()
    assert set(answered["reason"].values[~before][:24]) <= {"BAD_INPUT", "NO_HISTORY"}
    live_ok = answered["prediction"].values[~before][answered["reason"].values[~before] == "OK"]
    assert np.isfinite(live_ok).all()
    assert len(live_ok) == 96 - 24


def test_the_commands_read_a_site_that_does_not_run(demo: Demo) -> None:
    site = str(demo.site)
    assert len(answer(penstock("models", "--site", site, "--json"))["models"]) == 3
    tags = answer(penstock("tags", "T*", "--site", site, "--json"))["tags"]
    assert [row["tag"] for row in tags] == ["TIT", "TAT", "TEY"]
    last = source_values(2014)[TICKS - 1]
    assert [row["value"] for row in tags] == [float(last[i]) for i in (5, 6, 7)]
    rows = answer(penstock("query", "tey", "--site", site, "--start", "-24h", "--json"))
    assert rows["rows"] == 24
    parts = {row["part"]: row["state"] for row in answer(penstock("status", "--site", site, "--json"))["parts"]}
    idle = {"triton": "idle", "stream": "idle"}
    assert parts == {"archive": "ok", "journal": "ok", "models": "ok", "disk": "ok"} | idle


def test_importing_it_all_again_changes_nothing(demo: Demo) -> None:
    with Site.open(demo.site) as site:
        before = site.readings.head().snapshot
        report = site.load("gas-turbine:2013")
        assert report["accepted"] == 0
        assert report["already"] > 0
        assert site.readings.head().snapshot == before


def test_the_batch_view_says_what_it_was_computed_with(demo: Demo) -> None:
    with Site.open(demo.site) as site:
        for name, model in site.plant.models.items():
            view = site.desk().batch(name)
            assert view is not None
            said = view.attributes
            assert (said["model"], said["version"]) == (name, site.models.champion(name))
            assert said["horizon"] * site.plant.period_ns == model.horizon_ns
            site.readings.commit(said["snapshot"])
