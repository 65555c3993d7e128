"""The server's life: killed in parts and whole, started again, locked, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from penstock.errors import Refused, ServingError, SiteError, Unavailable
from penstock.serving.deploy import Deployer
from penstock.serving.keeper import SHM, clean_shm
from penstock.serving.launch import shm_prefix
from penstock.serving.pool import Pool
from penstock.serving.triton import Triton
from penstock.serving.watch import Watch

PARENT = """
import sys, time
from pathlib import Path
from penstock.data.models import ModelStore
from penstock.serving.deploy import Deployer
from penstock.serving.triton import Triton

server = Triton.start(Path(sys.argv[1]), capacity=4)
with Deployer(server.endpoint) as deployer:
    deployer.deploy(ModelStore(Path(sys.argv[2])).load("kept", int(sys.argv[3])))
print("live", flush=True)
time.sleep(600)
"""


PROMPT_S = 20.0
"""The server's own time to end, and a busy machine."""


def wait_for(true, within_s):
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def gone(pids, prefix, within_s):
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not any(psutil.pid_exists(p) for p in pids) and not list(SHM.glob(f"{prefix}*")):
            return True
        time.sleep(0.1)
    return False


def test_a_killed_engine_is_noticed_and_repaired(triton, deployer, pool, make_artifact):
    artifact = make_artifact("mended", seed=1)
    deployer.deploy(artifact)
    killed = triton.canary().pid
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(ServingError):
        triton.canary()
    assert triton.alive()
    healthy = triton.repair()
    assert healthy.pid != killed
    assert healthy.checked == "mended@1"
    said = pool.predict("mended", artifact.golden.windows)
    assert np.abs(said.values - artifact.golden.predictions).max() <= 1e-5 * artifact.golden.scale[0]


@pytest.mark.parametrize("who", ["server", "keeper"])
def test_a_killed_server_is_started_anew_at_the_same_address(triton, deployer, pool, make_artifact, who):
    artifact = make_artifact("revived", seed=2)
    deployer.deploy(artifact)
    before = Triton.running(triton.folder)
    assert before is not None
    os.kill(getattr(before, who), signal.SIGKILL)
    wait_for(lambda: not triton.alive(), within_s=10)
    with pytest.raises(Unavailable):
        triton.canary()
    assert triton.restart().checked.startswith("revived@")
    after = Triton.running(triton.folder)
    assert after is not None
    assert (after.endpoint, after.server != before.server) == (before.endpoint, True)
    said = pool.predict("revived", artifact.golden.windows, artifact.version)  # the pool of before has connected again
    assert np.abs(said.values - artifact.golden.predictions).max() <= 1e-5 * artifact.golden.scale[0]


def test_a_taken_port_costs_another_try_and_nobody_answers_for_us(triton, tmp_path):
    taken = int(triton.endpoint.rpartition(":")[2])
    with Triton.start(tmp_path / "triton", capacity=1, ports=[taken]) as second:
        assert second.endpoint != triton.endpoint
        assert second.canary().pid != triton.canary().pid


def test_a_stop_does_not_wait_for_a_start_or_a_mending(tmp_path):
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(ServingError, match="told to end while it started"):
        Triton.start(tmp_path / "triton", capacity=1, stop=stop)
    assert time.monotonic() - begun < PROMPT_S
    with Triton.start(tmp_path / "triton", capacity=1) as server:
        watch = threading.Thread(target=Watch(server).run, args=(stop := threading.Event(), 0.1))
        os.kill(server.canary().pid, signal.SIGKILL)
        watch.start()
        wait_for(server.mending, within_s=10)  # known by its process: `PATIENCE` wrong looks take longer
        begun = time.monotonic()
        stop.set()
        server.end()
        watch.join(PROMPT_S)
        assert not watch.is_alive()
    assert time.monotonic() - begun < PROMPT_S
    with pytest.raises(ServingError, match="told to end"):
        server.restart()
    assert Triton.running(tmp_path / "triton") is None
    assert not list(SHM.glob(f"{shm_prefix(tmp_path / 'triton')}*"))


def test_kill_9_of_the_parent_leaves_nothing_and_a_restart_serves_what_was_deployed(tmp_path, make_artifact):
    artifact = make_artifact("kept", seed=5)
    folder = tmp_path / "triton"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), str(artifact.folder.parent.parent), str(artifact.version)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    with parent.stdout as out:
        assert out.readline() == b"live\n"
    running = Triton.running(folder)
    assert running is not None
    engine = [p.pid for p in psutil.Process(running.server).children(recursive=True)]
    with pytest.raises(SiteError, match=running.endpoint):
        Triton.start(folder)
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait()
    with Triton.start(folder, capacity=2) as again, Pool(again.endpoint, deadline_s=10.0) as pool:
        assert not any(psutil.pid_exists(p) for p in engine)
        said = pool.predict("kept", artifact.golden.windows)
        assert said.version == artifact.version
        assert np.abs(said.values - artifact.golden.predictions).max() <= 1e-5 * artifact.golden.scale[0]
        now = Triton.running(folder)
        assert now is not None
        mine = [p.pid for p in psutil.Process(now.server).children(recursive=True)]
        os.kill(now.keeper, signal.SIGKILL)  # the keeper alone: the server ends by its death signal
        assert gone([now.server, *mine], shm_prefix(folder), within_s=20)
    assert Triton.running(folder) is None


def test_clean_shm_keeps_what_a_live_process_maps():
    import mmap

    mapped, orphan = SHM / "penstock_test_mapped", SHM / "penstock_test_orphan"
    for path in (mapped, orphan):
        path.write_bytes(bytes(4096))
    try:
        with open(mapped, "r+b") as file, mmap.mmap(file.fileno(), 4096):
            assert clean_shm("penstock_test_") == [orphan.name]
        assert clean_shm("penstock_test_") == [mapped.name]
    finally:
        for path in (mapped, orphan):
            with suppress(FileNotFoundError):
                path.unlink()


def test_a_server_that_cannot_start_says_why(tmp_path):
    from penstock.serving.provision import Installation, provision

    found = provision()
    wrong = Installation(server=found.server, backends=tmp_path, libraries=found.libraries)
    with pytest.raises(ServingError, match=r"could not load its engine(.|\n)*triton\.log"):
        Triton.start(tmp_path / "triton", installation=wrong)
    assert not list(SHM.glob(f"{shm_prefix(tmp_path / 'triton')}*"))


def test_nobody_there_is_unavailable():
    with Pool("127.0.0.1:9", deadline_s=1.0) as pool, pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        pool.admin({"do": "health"})


def test_a_second_deploy_of_the_same_name_waits_its_turn(triton, deployer, pool, make_artifact):
    pool.admin({"do": "settle", "name": "claimed", "token": "x"})
    pool.admin({"do": "withdraw", "name": "claimed", "token": "somebody else"})
    try:
        with pytest.raises(Refused, match="another deploy of claimed is under way"):
            deployer.deploy(make_artifact("claimed", seed=1))
    finally:
        pool.admin({"do": "settle", "name": "claimed", "token": "somebody else"})
    assert Path(triton.folder, "triton.log").exists()
    with Deployer(triton.endpoint, drain_s=0.1) as other:
        other.deploy(make_artifact("claimed", seed=1))
