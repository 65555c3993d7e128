"""Dask: the embedded cluster of processes, or somebody's scheduler by address.

No client becomes Dask's default: it would change what xarray does elsewhere in the program, even
after it is gone. Both layers run on the client that is made here; the settings are those under
which killed workers cost seconds and no work (measured, see each one).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster

from penstock.errors import Unavailable
from penstock.tracker import outliving_tracker

CONFIG: dict[str, Any] = {
    # Deaths of a worker count against the task that ran there. A stream's worker may die often;
    # a job that kills ten workers in turn is itself the reason.
    "distributed.scheduler.allowed-failures": 10,
    # The default of 15 s can close a nanny for good when both workers die together.
    "distributed.deploy.lost-worker-timeout": "1h",
    # Stealing moves a step to a worker that lacks its cache.
    "distributed.scheduler.work-stealing": False,
    # The scheduler's and workers' event logs grow with every task; a stream has tasks without end.
    "distributed.admin.low-level-log-length": 1000,
    "distributed.worker.daemon": True,
    "distributed.comm.timeouts.connect": "30s",
    # TensorFlow keeps the interpreter busy for seconds while it imports and compiles.
    "distributed.admin.tick.limit": "60s",
    # Mapped pages of the journal count as memory and would pause or end a healthy worker.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.preload": ["penstock.worker"],
}
WORKER_ENVIRONMENT: Mapping[str, str] = {
    # One thread per worker: processes are the parallelism.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_START_S = 180.0


@contextmanager
def local_cluster(workers: int = 2) -> Iterator[Client]:
    """A client of an embedded cluster of `workers` processes on loopback; all gone when the block ends.

    The calling program must be importable without side effects (`if __name__ == "__main__"`),
    as with every spawned process. Raises Unavailable when the workers do not start.
    """
    outliving_tracker()
    nanny_environment = {"distributed.nanny.pre-spawn-environ": {**_inherited(), **WORKER_ENVIRONMENT}}
    with dask.config.set({**CONFIG, **nanny_environment}):
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address=None,
                # Without a dashboard it still serves HTTP, on a fixed port that only one cluster can have.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                host="127.0.0.1",
            )
        except (OSError, TimeoutError, RuntimeError) as error:
            raise Unavailable(f"the embedded Dask cluster of {workers} workers did not start: {error}") from error
        try:
            with Client(cluster, set_as_default=False) as client:
                _await(client, workers, "the embedded Dask cluster")
                yield client
        finally:
            cluster.close(timeout=_START_S)


@contextmanager
def client_for(address: str) -> Iterator[Client]:
    """A client of the scheduler at `address`, e.g. ``tcp://10.0.0.5:8786``; its workers stay.

    Raises Unavailable when nothing answers there, or no worker is connected, within three minutes.
    """
    with dask.config.set(CONFIG):
        try:
            client = Client(address, timeout=_START_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise Unavailable(
                f"no Dask scheduler answers at {address}: {error}; check site.toml's scheduler"
            ) from error
        with client:
            _await(client, 1, address)
            yield client


def _await(client: Client, workers: int, where: str) -> None:
    try:
        client.wait_for_workers(workers, timeout=_START_S)
    except TimeoutError as error:
        raise Unavailable(f"{where}: fewer than {workers} workers after {_START_S:g} s; see their logs") from error


def _inherited() -> dict[str, str]:
    """Dask's own variables for new workers, which a set() of ours would otherwise replace."""
    return dict(dask.config.get("distributed.nanny.pre-spawn-environ", {}))
