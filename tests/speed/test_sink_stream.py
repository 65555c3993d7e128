"""The stream's process is killed with a sink at work: every prediction of the speed view is at the broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import small_site as small
from mqtt_peer import Broker
from sink_peers import Reader, mqtt, outlet, said, sink_spec, wait
from test_service import TICKS, setup

from penstock.cluster import local_cluster
from penstock.speed.service import Service
from penstock.speed.status import Report, read_status

STREAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from mqtt_peer import Broker
from test_sink_stream import stream
if __name__ == "__main__":
    print("begun", flush=True)
    stream(Path(sys.argv[1]), sys.argv[2], int(sys.argv[4]), rate=60.0)
"""


class At(Broker):
    """One that another process runs."""

    def __init__(self, port: int) -> None:
        self.port = port


def stream(site: Path, scheduler: str, port: int, rate: float | None) -> Report:
    spec = sink_spec()
    sending = outlet(mqtt(At(port), spec), site, spec)
    given = replace(setup(site, scheduler, small.Means(), rate=rate), outlets=[sending])
    return asyncio.run(Service(given).run())


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


def test_a_killed_stream_leaves_no_prediction_unsent(scheduler: str, tmp_path: Path) -> None:
    broker, site = Broker(tmp_path / "broker"), tmp_path / "site"
    broker.start()
    reader = Reader(broker)
    try:
        command = [sys.executable, "-c", STREAM, str(site), scheduler, str(Path(__file__).parent), str(broker.port)]
        for enough in (20, 60):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "begun\n"
                wait(lambda enough=enough: len(set(reader.heard)) > enough)  # type: ignore[misc]
                child.kill()
        assert stream(site, scheduler, broker.port, None).ended
        wanted = said(site, sink_spec())
        reader.until(wanted)
        assert set(reader.heard) == set(wanted)
        assert len(wanted) > TICKS
        status = read_status(site / "speed")
        assert status is not None
        assert status["sinks"]["out"]["behind_ticks"] == 0
    finally:
        reader.close()
        broker.kill()
