"""A site's sinks, from plant.toml and site.toml to a real broker, and their rows of `penstock status`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from mqtt_peer import Broker
from sink_peers import Reader, running, spec_of, wait

from penstock.data.artifact import Draft, Golden
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.errors import SinkError
from penstock.settings import create
from penstock.sink_rows import sink_rows
from penstock.sinks import outlets
from penstock.site import Site
from penstock.speed.outlet import OutletTold

PLANT = """
[plant]
name = "small"
period = "1s"
[tags]
A = {}
E = {}
[sinks.out]
kind = "mqtt"
topic = "out/{plant}/{model}/{target}"
"""


def site_of(folder: Path, settings: str) -> Site:
    create(folder, PLANT, created="2024-05-01T00:00:00+00:00", site_text=settings)
    return Site.open(folder)


def saved(site: Site) -> int:
    """A version of `near`; only its card is looked at."""
    spec = spec_of("near", 1)
    assert spec is not None
    none = np.zeros((1, 1), np.float32)
    golden = Golden(windows=none[None], predictions=none, scale=np.ones(1, np.float32))
    card = {"spec": spec.to_json(), "units": [""], "trained": {}}
    return site.models.save(
        Draft(name="near", kind="callable", card=card, keras=b"", golden=golden, program=b"-")
    ).version


def say(folder: Path, tick: int, version: int, members: tuple[tuple[str, int], ...]) -> None:
    n = len(members)
    view = SpeedView.open(folder / "views" / "speed.sqlite")
    row = Spoken(
        tick=tick, members=members, values=np.full(n, 2.5, np.float32), versions=np.full(n, version, np.int32),
        reasons=np.zeros(n, np.uint8), filled=np.zeros(n, bool), hashes=np.zeros(n, np.uint64), position=tick,
    )  # fmt: skip
    view.write([row])
    view.close()


def test_what_a_site_says_is_sent_as_its_two_files_say(tmp_path: Path) -> None:
    broker, folder = Broker(tmp_path / "broker"), tmp_path / "site"
    broker.start()
    reader = Reader(broker)
    with site_of(folder, f'[sinks.out]\nurl = "mqtt://127.0.0.1:{broker.port}"\n') as site:
        (one,) = outlets(site)
        with running(one):
            say(folder, 7, saved(site), (("gone", 1), ("near", 1)))
            one.ring(7)
            wait(lambda: len(reader.heard) == 1)
            wait(lambda: one.told()["behind_ticks"] == 0)
            told = one.told()
        reader.close()
        broker.kill()
    (message,) = reader.heard
    assert message.topic == "out/small/near/E"
    assert json.loads(message.payload)["value"] == 2.5
    (row,) = sink_rows({"sinks": {"out": told}}, time.time_ns(), True)
    assert row["state"] == "wrong"
    assert "1 messages, 1 predictions not sent, gone@1: its card is gone" in row["what"]


def test_what_cannot_be_used_is_told_before_anything_starts(tmp_path: Path) -> None:
    with (
        site_of(tmp_path / "a", '[sinks.out]\nurl = "mqtt://b"\npassword_file = "none"\n') as site,
        pytest.raises(SinkError, match=r"sink out: .*none: cannot be read"),
    ):
        outlets(site)
    with (
        site_of(tmp_path / "b", '[sinks.out]\nurl = "mqtts://b"\nca_file = "none.pem"\n') as site,
        pytest.raises(SinkError, match="sink out: its certificates cannot be read"),
    ):
        outlets(site)


def test_rows_of_status() -> None:
    told = OutletTold(
        up=False, since_ns=0, heard_ns=None, connects=2, garbage=0, trouble="sink out: cannot be reached", unmapped={},
        behind_ticks=1200, behind_ns=0, sent=31, failures=3, skipped=0,
    )  # fmt: skip
    (row,) = sink_rows({"sinks": {"out": told}}, 300 * small.SECOND, True)
    assert (row["part"], row["state"]) == ("sink out", "wrong")
    assert row["what"] == (
        "down for 5 min, 31 messages, 1,200 ticks behind for 5 min, failed 3 times, sink out: cannot be reached"
    )
    (row,) = sink_rows({"sinks": {"out": told}}, 300 * small.SECOND, False)
    assert (row["state"], row["what"]) == ("idle", "no stream runs; 1,200 ticks behind for 5 min")
    assert list(sink_rows({}, 0, True)) == []
