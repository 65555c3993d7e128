"""A stream on a cluster started by hand, with TLS, whose workers run as another user who cannot read the site."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_site as small
from certificates import Authority
from distributed import Client, Security
from hand_cluster import Cluster, by_hand
from test_service import TICKS, assert_said, run, setup

from penstock.batch.history import Source, past
from penstock.cluster import client_for
from penstock.data.archive import Archive
from penstock.data.hatch.server import opened
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.windows import Reason, window_hash
from penstock.errors import SiteError, Unavailable
from penstock.secure import listening, own_address, security
from penstock.serving.triton import Triton
from penstock.site import Site
from penstock.speed.shard import Failure, Step, attempt

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="by-hand-"))  # pytest's own folders are closed to others
    folder.chmod(0o755)
    try:
        with by_hand(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Path:
    """Closed to others."""
    folder = tmp_path / "site"
    folder.mkdir(mode=0o700)
    os.chown(folder, cluster.other.owner, -1)
    return folder


@pytest.fixture
def ours(cluster: Cluster) -> Security:
    cert, key = cluster.authority.certificate("stream")
    return security(cluster.authority.ca, cert, key)


def workers_of(client: Client) -> set[str]:
    return {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}


def awaited(found: Callable[[], bool], cluster: Cluster) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not found():
        assert time.monotonic() < deadline, {name: cluster.words(name)[-2000:] for name in cluster.processes}
        time.sleep(0.05)


def test_a_stream_runs_on_workers_that_cannot_read_the_site(cluster: Cluster, site: Path, ours: Security) -> None:
    """One of them is killed on the way, another one comes instead; every window is the one that is cut here."""
    events: list[str] = []

    def on_tick(spoken: Spoken) -> None:
        """The stream waits for nothing of this: it is only where the kill and the new worker come in."""
        if spoken.tick >= 60 and not events:
            events.append("killed")
            cluster.kill("w0")
        if spoken.tick >= 120 and len(events) == 1:
            events.append("added")
            cluster.start_worker("w2")

    with client_for(cluster.address, ours) as client:
        awaited(lambda: len(workers_of(client)) == 2, cluster)
        assert set(client.run(os.access, str(site), os.R_OK).values()) == {False}
        with opened(site, own_address(client.scheduler.address), listening(ours)) as hatch:
            assert hatch.address.startswith("127.0.0.1:")
            given = replace(
                setup(site, client.scheduler.address, small.Means(), rate=60.0),
                security=client.security, hatch=hatch, on_tick=on_tick,
            )  # fmt: skip
            report = run(given)
        assert events == ["killed", "added"]
        awaited(lambda: workers_of(client) == {"w1", "w2"}, cluster)
    assert (report.ended, report.ticks, report.readings) == (True, TICKS, len(small.rows(0, TICKS, 11)))
    assert_said(site)
    assert Archive.open(site / "archive").head().position > 0
    assert list((site / "records").iterdir()) == [], "the mark is gone with the hatch"


PUMP = """
[plant]
name = "pump"
period = "1min"
[tags]
speed = { unit = "rpm", range = [0, 3000], max_gap = "5min" }
flow = { unit = "m3/h", range = [0, 400], max_gap = "5min" }
[model.flow]
target = "flow"
inputs = ["speed"]
window = "6min"
lstm = { units = 4, epochs = 1 }
"""
BEGIN = pd.Timestamp("2025-03-01", tz="UTC")


def pump(first: int, last: int) -> pd.DataFrame:
    k = np.arange(first, last)
    columns = {"speed": 1500 + 300 * np.sin(k / 90), "flow": 150 + 40 * np.sin(k / 50)}
    return pd.DataFrame({"time": BEGIN + pd.to_timedelta(k, unit="min"), **columns})


def test_a_site_trains_and_streams_with_them(cluster: Cluster, site: Path, triton: Triton, tmp_path: Path) -> None:
    """As site.toml names them, from the history on, against the real Triton."""
    (tmp_path / "pump.toml").write_text(PUMP)
    with Site.create(site, tmp_path / "pump.toml"):
        pass
    cert, key = cluster.authority.certificate("stream")
    shutil.copy(cert, site / "own.pem")
    shutil.copy(key, site / "own.key")
    (site / "site.toml").write_text(
        f'triton.endpoints = ["{triton.endpoint}"]\n[dask]\nscheduler = "{cluster.address}"\n'
        f'ca_file = "{cluster.authority.ca}"\ncert_file = "own.pem"\nkey_file = "own.key"\nrecords = "127.0.0.1:0"\n'
    )
    with Site.open(site) as made:
        made.load(pump(0, 2000))
        made.deploy(made.train("flow"))
        assert made.stream(pump(2000, 2100))["ticks"] == 100
        grid, spec = made.readings.grid, made.spec("flow")
        first = grid.tick_of(BEGIN.value) + 2000
        source = Source(folder=made.readings.folder, snapshot=made.readings.head().snapshot)
        here = past(source, spec, made.registry.ids([t.name for t in spec.stored]).tolist(), first, first + 100)
    view = SpeedView.open(site / "views" / "speed.sqlite")
    said = view.read("flow", first, first + 100)
    view.close()
    assert np.array_equal(said.reasons, here.windows.reason)
    fine = said.reasons == Reason.OK
    assert np.array_equal(said.hashes[fine], window_hash(here.windows.x[fine]))
    assert fine.sum() > 90


def test_the_readme_shows_the_commands_that_are_run_here(cluster: Cluster) -> None:
    """Options of a test alone: its folders and names, and no pages for people."""
    page = (Path(__file__).parents[2] / "README.md").read_text().replace("\\\n", " ")
    alone = {"--scheduler-file", "--dashboard-address", "--no-dashboard", "--name", "--local-directory"}
    for kind, name in (("scheduler", "scheduler"), ("worker", "w1")):
        (line,) = re.findall(rf"^dask {kind} .*$", page, re.M)
        run_here = {str(word) for word in cluster.processes[name].args if str(word).startswith("--")}  # type: ignore[union-attr]
        setpriv = {word for word in cluster.other.command if word.startswith("--")}
        shown = set(re.findall(r"--[a-z-]+", line)) | ({"--host"} if kind == "worker" else set())
        assert shown == run_here - alone - setpriv


def test_without_a_hatch_the_remedy_is_told(cluster: Cluster, site: Path, ours: Security) -> None:
    with client_for(cluster.address, ours) as client:
        small.make_site(site)
        answer = client.submit(attempt, Step(site=str(site), shard=0, start=0, stop=1, plan="")).result(DEADLINE_S)
    assert isinstance(answer, Failure)
    assert "cannot read the site" in answer.reason
    assert "tls://" in answer.reason


def test_a_scheduler_that_does_not_know_our_authority_says_so(cluster: Cluster, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    cert, key = stranger.certificate("stream")
    for ca, found in ((cluster.authority.ca, "TLS"), (stranger.ca, "its certificate is refused")):
        begun = time.monotonic()
        with pytest.raises(Unavailable, match=found), client_for(cluster.address, security(ca, cert, key)):
            pass
        assert time.monotonic() - begun < DEADLINE_S


def test_certificates_that_are_not_there_are_named(cluster: Cluster, tmp_path: Path) -> None:
    cert, key = cluster.authority.certificate("stream")
    with pytest.raises(SiteError, match=r"nothing\.pem.*dask\.ca_file"):
        security(tmp_path / "nothing.pem", cert, key)
    other = cluster.authority.certificate("worker")[1]
    with pytest.raises(SiteError, match="cert_file"):
        security(cluster.authority.ca, cert, other)
    with pytest.raises(SiteError, match="missing"):
        security(None, None, None)
