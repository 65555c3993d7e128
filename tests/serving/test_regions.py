"""Large inputs through shared memory: the same answers, nothing left in /dev/shm, whoever dies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.grpc import aio

from penstock.errors import DeadlineExceeded
from penstock.serving.pool import Pool
from penstock.serving.regions import LEAST_BYTES, MOST_BYTES, SHM, Regions

WINDOWS = 200
"""200 windows of 60 rows of 32 numbers: 1.5 MB."""

CLIENT = """
import sys, os, signal
import numpy as np
from penstock.serving.pool import Pool

pool = Pool(sys.argv[1], deadline_s=30.0)
pool.tick(np.zeros(200, np.int32), np.zeros((200, 60, 32), np.float32))
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def wide(deployer, make_artifact):
    artifact = make_artifact("wide", inputs=32, length=60, seed=3)
    deployer.deploy(artifact)
    return next(m.slot for m in deployer.members())


def registered(triton):
    client = grpc.InferenceServerClient(triton.endpoint)
    try:
        return {name: r.byte_size for name, r in client.get_system_shared_memory_status().regions.items()}
    finally:
        client.close()


def windows(seed):
    return np.random.default_rng(seed).normal(size=(WINDOWS, 60, 32)).astype(np.float32)


def names_in_shm():
    return [p.name for p in Path(SHM).glob("penstock_client_*")]


def test_a_large_request_is_answered_as_many_small_ones(triton, wide, pool):
    before = set(registered(triton))
    x = windows(1)
    slots = np.full(WINDOWS, wide, np.int32)
    at_once = pool.tick(slots, x)
    mapped = set(registered(triton)) - before
    assert len(mapped) == 1
    assert names_in_shm() == []
    in_messages = [pool.tick(slots[:1], x[i : i + 1]).values[0] for i in range(WINDOWS)]
    assert x[:1].nbytes < LEAST_BYTES < x.nbytes
    np.testing.assert_allclose(np.stack(at_once.values), np.stack(in_messages), rtol=1e-5)
    pool.tick(slots, windows(2))
    assert set(registered(triton)) - before == mapped  # the same one again


def test_calls_at_the_same_time_have_regions_of_their_own(triton, wide, pool):
    slots, inputs = np.full(WINDOWS, wide, np.int32), [windows(seed) for seed in range(4)]
    wanted = [np.stack(pool.tick(slots, x).values) for x in inputs]

    async def all_at_once():
        return await asyncio.gather(*(pool.atick(slots, x) for x in inputs))

    for said, want in zip(asyncio.run(all_at_once()), wanted, strict=True):
        np.testing.assert_array_equal(np.stack(said.values), want)


def test_after_a_deadline_the_next_answer_is_right(triton, wide, pool):
    slots = np.full(WINDOWS, wide, np.int32)
    x = windows(5)
    want = np.stack(pool.tick(slots, x).values)
    many = np.tile(windows(6), (40, 1, 1))
    with Pool(triton.endpoint, deadline_s=0.05) as hasty, suppress(DeadlineExceeded):
        for _ in range(10):
            with suppress(DeadlineExceeded):
                hasty.tick(np.full(len(many), wide, np.int32), many)
    np.testing.assert_array_equal(np.stack(pool.tick(slots, x).values), want)
    assert names_in_shm() == []


def test_a_server_started_anew_is_told_again(triton, wide, pool):
    slots, x = np.full(WINDOWS, wide, np.int32), windows(7)
    want = np.stack(pool.tick(slots, x).values)
    triton.restart()
    np.testing.assert_allclose(np.stack(pool.tick(slots, x).values), want, atol=1e-6)
    np.testing.assert_allclose(np.stack(pool.tick(slots, x).values), want, atol=1e-6)
    assert registered(triton)


def test_a_killed_client_leaves_no_name_and_the_next_one_frees_its_memory(triton, wide):
    died = subprocess.run([sys.executable, "-c", CLIENT, triton.endpoint], capture_output=True, text=True, timeout=120)
    pid = int(died.stdout)
    assert any(f"_{pid}_" in name for name in registered(triton))
    assert names_in_shm() == []
    with Pool(triton.endpoint, deadline_s=30.0) as pool:
        pool.tick(np.full(WINDOWS, wide, np.int32), windows(8))
        assert not any(f"_{pid}_" in name for name in registered(triton))


@pytest.mark.parametrize(("endpoint", "size"), [("10.0.0.5:8001", 1 << 20), ("127.0.0.1:8001", MOST_BYTES + 1)])
def test_another_machine_or_too_much_goes_inside_the_message(endpoint, size):
    async def lent():
        client = aio.InferenceServerClient(endpoint)
        try:
            return await Regions(endpoint, client).lend(size, 1.0)
        finally:
            await client.close()

    assert asyncio.run(lent()) is None
