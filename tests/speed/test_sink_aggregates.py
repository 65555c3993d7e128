"""Aggregates at a real broker are what `penstock aggregates` tells, whoever was killed and whatever came late."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_site as small
from mqtt_peer import Broker
from sink_peers import Reader, mqtt, outlet, running, said, sink_spec, wait
from test_aggregates import WANTED, view_of
from test_service import run, setup
from test_sinks import Moody

from penstock.cluster import local_cluster
from penstock.data.aggregating import bring_up
from penstock.data.archive.archiver import drain
from penstock.data.journal import Entry
from penstock.settings import create
from penstock.sinks import outlets
from penstock.site import Site
from penstock.speed.feed_aggregates import AggregateFeed
from penstock.speed.formats.aggregates import Aggregates
from penstock.speed.formats.arrow import batches
from penstock.speed.outlet import Outlet
from penstock.speed.sink import Message, Sink
from penstock.speed.status import read_status

PLANT = """
[plant]
name = "mill"
period = "1s"
[tags]
A = { unit = "degC" }
B = { range = [-25, 25] }
C = {}
[aggregates]
periods = ["5s", "20s", "1min"]
tags = ["*", "!C"]
[sinks.out]
kind = "mqtt"
topic = "out/{plant}/{tag}/{period}/{function}"
aggregates = ["*"]
periods = ["5s", "1min"]
"""
FUNCTIONS = ("count", "mean", "min", "max", "std")
BEGIN = pd.Timestamp("2024-05-01T00:00:00Z")
PIECE_S = 40


def frame(number: int) -> pd.DataFrame:
    """Forty seconds, and one that belongs far back: every third piece brings a reading that nobody had yet."""
    random = np.random.default_rng(number)
    times = BEGIN + pd.to_timedelta(np.arange(number * PIECE_S, (number + 1) * PIECE_S), "s")
    rows = pd.DataFrame({"time": times, **{tag: random.normal(0, 20, PIECE_S).round(1) for tag in "ABC"}})
    if number % 3 == 2:
        late = rows[:1].assign(time=BEGIN + pd.Timedelta(number * 7 + 0.5, "s"))
        rows = pd.concat([rows, late])
    return rows


def site_of(folder: Path, port: int) -> Site:
    if not (folder / "site.toml").exists():
        text = f'[sinks.out]\nurl = "mqtt://127.0.0.1:{port}"\n'
        create(folder, PLANT, created="2024-05-01T00:00:00+00:00", site_text=text)
    return Site.open(folder)


def load(site: Site, number: int) -> None:
    site.load(frame(number))


IMPORTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_sink_aggregates as test
with test.site_of(Path(sys.argv[1]), int(sys.argv[2])) as site:
    (one,) = test.outlets(site)
    one.start()
    print("begun", flush=True)
    for number in range(int(sys.argv[4]), 10_000):
        test.load(site, number)
        one.ring(0)
        print(number, flush=True)
"""


def stopped(broker: Broker) -> None:
    """Not killed: it writes down what it has acknowledged."""
    process, broker._process = broker._process, None
    assert process is not None
    process.terminate()
    process.wait(10)


def newest(heard: list[Message]) -> dict[tuple[str, str], dict[str, Any]]:
    """By tag and time the message of the highest revision; the same revision is the same bytes."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    texts: dict[tuple[str, str, int], bytes] = {}
    for message in heard:
        said = json.loads(message.payload)
        key = (said["tag"], said["time"])
        assert texts.setdefault((*key, said["revision"]), message.payload) == message.payload
        if key not in found or found[key]["revision"] < said["revision"]:
            found[key] = said
    return found


def assert_told(site: Site, heard: list[Message]) -> None:
    """Each value of each period that has a reading, to the bit, and no other."""
    found, wanted = newest(heard), {}
    for period in ("5s", "1min"):
        told = site.aggregates("*", period)
        for tag in "AB":
            some = told.sel(tag=tag).where(told["count"].sel(tag=tag) > 0, drop=True)
            for function in FUNCTIONS:
                times = [f"{pd.Timestamp(t).isoformat()}Z" for t in some.time.values]
                values = zip(times, some[function].values.tolist(), strict=True)
                wanted |= {(f"{tag}.{function}.{period}", time): value for time, value in values}
    assert {key: said["value"] for key, said in found.items()} == wanted


def test_a_killed_import_leaves_no_aggregate_unsent(tmp_path: Path) -> None:
    broker, folder, number = Broker(tmp_path / "broker"), tmp_path / "site", 0
    broker.start()
    site_of(folder, broker.port).close()
    reader = Reader(broker)
    try:
        for enough in (300, 700):
            command = [sys.executable, "-c", IMPORTER, str(folder), str(broker.port), str(Path(__file__).parent)]
            with subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "begun\n"
                while len(set(reader.heard)) < enough:
                    number = int(child.stdout.readline()) + 1
                stopped(broker)  # what is committed from here on cannot be sent
                number = int(child.stdout.readline()) + 1
                number = int(child.stdout.readline()) + 1
                child.kill()
            broker.start()
        with site_of(folder, broker.port) as site, running(*outlets(site)):
            load(site, number)
            load(site, number + 1)
        with site_of(folder, broker.port) as site:
            assert_told(site, reader.heard)
            assert max(json.loads(m.payload)["revision"] for m in reader.heard) > 0
    finally:
        reader.close()
        broker.kill()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


SPEC = sink_spec(
    "sums", topic="sums/{tag}", aggregates=("A", "B"), periods_ns=(4 * small.SECOND, 12 * small.SECOND),
    functions=("mean", "count"), retain=False, tag="{tag}.{function}.{period}", format="arrow",
)  # fmt: skip


def sending(sink: Sink, site: Path) -> Outlet:
    messages = Aggregates(SPEC, small.PLANT, small.GRID)
    feed = AggregateFeed(site, sink.name, messages, lambda: np.array([0, 1], np.int32))
    return Outlet(sink, feed, pause_s=(0.05, 0.5))


def told_of(messages: list[Message]) -> dict[tuple[str, int], tuple[float, int]]:
    """By tag and time in seconds: the value of the highest revision, and the revision."""
    found: dict[tuple[str, int], tuple[float, int]] = {}
    for message in messages:
        for row in [row for batch in batches(message.payload) for row in batch.to_pylist()]:
            key = (row["tag"], pd.Timestamp(row["time"]).value // small.SECOND)
            if key not in found or found[key][1] < row["revision"]:
                found[key] = (row["value"], row["revision"])
    return found


def wanted_of(site: Path, since: int = 0) -> dict[tuple[str, int], float]:
    view, found = view_of(site / "views"), {}
    for length in (4, 12):
        told = view.read(length, np.array([0, 1], np.int32), 0, 100)
        for period, tag in zip(*np.nonzero(told.count), strict=True):
            if (period + 1) * length > since:
                name = f"{'AB'[tag]}.{{}}.{length}s"
                found[name.format("mean"), period * length] = float(told.mean[period, tag])
                found[name.format("count"), period * length] = float(told.count[period, tag])
    return found


def test_a_stream_that_ends_has_sent_its_last_periods_too(scheduler: str, tmp_path: Path) -> None:
    """Beside its predictions; what is aggregated when all is said is sent before the sinks end."""
    broker, site, spec = Broker(tmp_path / "broker"), tmp_path / "site", sink_spec()
    broker.start()
    sums, predictions = Reader(broker, "sums/#", "sums"), Reader(broker)
    try:
        given = setup(site, scheduler, small.Means())
        both = [sending(mqtt(broker, SPEC), site), outlet(mqtt(broker, spec), site, spec)]
        assert run(replace(given, commit_every_s=3600.0, aggregates=lambda: WANTED, outlets=both)).ended
        predictions.until(said(site, spec))
        wait(lambda: len(told_of(sums.heard)) == len(wanted_of(site)))
        assert {key: value for key, (value, _) in told_of(sums.heard).items()} == wanted_of(site)
        status = read_status(site / "speed")
        assert status is not None
        assert status["sinks"]["sums"]["behind_ticks"] == 0
        assert status["sinks"]["sums"]["sent"] == len(sums.heard) > 100
    finally:
        sums.close()
        predictions.close()
        broker.kill()


class Here(Moody):
    name = "sums"


def test_what_changes_is_sent_again_with_its_revision(tmp_path: Path) -> None:
    """By a late reading: its own periods alone. By another range: all that is told since the sink began."""
    journal, archive = small.make_site(tmp_path)
    folder, here = tmp_path / "views" / "aggregates", Here()

    def bring(first: int, last: int, seed: int, wanted: Any = WANTED) -> list[Message]:
        """These rows are aggregated and sent; the messages."""
        before, number = len(here.taken), journal.tail + 1
        split = small.LAYOUT.split(small.rows(first, last, seed))
        journal.append([Entry(source="import:x", source_offset=number, parts=split)])
        drain(journal, archive, small.LAYOUT)
        bring_up(folder, archive, journal, wanted, cells=80)
        with running(sending(here, tmp_path)):
            pass
        return here.taken[before:]

    bring_up(folder, archive, journal, WANTED)
    with running(sending(here, tmp_path)):
        pass
    first = told_of(bring(0, 121, 5))
    assert {revision for _, revision in first.values()} == {0}
    late = told_of(bring(30, 31, 77))
    assert {key[1] for key in late} == {28, 24}, "seconds 28 to 31, and 24 to 35"
    assert {revision for _, revision in late.values()} == {1}
    assert bring(30, 31, 77) == [], "a repetition changes nothing"
    narrow = WANTED.bounds.copy()
    narrow[1] = -5, 5
    bring(130, 131, 5, replace(WANTED, bounds=narrow))
    told = told_of(here.taken)
    wanted = wanted_of(tmp_path)
    assert {key: told[key][0] for key in wanted} == wanted
    journal.close()


def test_a_new_sink_begins_with_periods_that_end_from_then_on(tmp_path: Path) -> None:
    journal, archive = small.make_site(tmp_path)
    here = Here()
    for last in (50, 100):
        split = small.LAYOUT.split(small.rows(last - 50, last, 5))
        journal.append([Entry(source="import:x", source_offset=last, parts=split)])
        drain(journal, archive, small.LAYOUT)
        if last == 50:
            with running(sending(here, tmp_path)):
                pass
        bring_up(tmp_path / "views" / "aggregates", archive, journal, WANTED)
    with running(sending(here, tmp_path)):
        pass
    told = {key: value for key, (value, _) in told_of(here.taken).items()}
    assert told == wanted_of(tmp_path, since=50)
    journal.close()
