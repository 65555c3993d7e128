"""The Dask of a site that is up: found by other commands, and shared without one kind of work stopping the other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from penstock.cluster import local_cluster
from penstock.parts import Parts
from penstock.room import offered, room
from penstock.site_toml import Settings
from penstock.up import record
from penstock.up.record import PartRecord, Record, State

ANSWER_S = 30.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    with local_cluster(1, shared=True) as client:
        yield client


def test_a_step_is_done_while_a_batch_job_runs_and_a_second_job_waits(shared: Client) -> None:
    long = shared.submit(time.sleep, 600, pure=False, resources=room(shared, "batch"))
    step = shared.submit(os.getpid, pure=False, resources=room(shared, "step"))
    pid = step.result(timeout=ANSWER_S)
    second = shared.submit(os.getpid, pure=False, resources=room(shared, "batch"))
    again = shared.submit(os.getpid, pure=False, resources=room(shared, "step"))
    assert again.result(timeout=ANSWER_S) == pid, "the one worker"
    assert (long.status, second.status) == ("pending", "pending")
    shared.cancel([long, second], force=True)


def test_other_clusters_are_used_as_ever() -> None:
    with local_cluster(1) as client:
        assert room(client, "batch") is None
    assert offered({"workers": {}}, "step") is None
    assert offered({"workers": {"a": {"resources": {"GPU": 1}}, "b": {"resources": {"step": 1}}}}, "step") == {
        "step": 1
    }


def test_a_site_that_is_up_lends_its_dask(shared: Client, tmp_path: Path) -> None:
    address = shared.scheduler.address
    dask = PartRecord(
        name="dask", state=State.UP, pid=1, address=address, what="", restarts=0, last_ns=None, why="", again_ns=None,
        log="",
    )  # fmt: skip
    record.write(tmp_path, Record(pid=os.getpid(), started_ns=0, ready=True, parts=(dask,)))
    parts = Parts(tmp_path, Settings())
    with record.held(tmp_path):
        assert parts.client().scheduler.address == address
    parts.close()
    assert shared.submit(abs, -1, pure=False).result(timeout=ANSWER_S) == 1, "it is left running"


def test_a_port_that_is_taken_is_not_insisted_on(shared: Client) -> None:
    taken = int(shared.scheduler.address.rpartition(":")[2])
    with local_cluster(1, ports=[taken]) as client:
        assert client.scheduler.address != shared.scheduler.address
        assert client.submit(abs, -1).result(timeout=ANSWER_S) == 1
