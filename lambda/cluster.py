"""Dask: the embedded cluster of processes, or somebody's scheduler by address.

No client becomes Dask's default: it would change what xarray does elsewhere in the program, even
after it is gone. Both layers run on the client that is made here; the settings are those under
which killed workers cost seconds and no work (measured, see each one).
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster, Security

from penstock.errors import Unavailable
from penstock.room import KINDS
from penstock.secure import refusal
from penstock.tracker import outliving_tracker

log = logging.getLogger(__name__)

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
    # Looking at themselves many times a second took the scheduler, nannies and workers a tenth of a core, idle.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "5s",
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
_SOON_S = 5.0
"""After so long without an answer it is said that it is waited for."""
_CHECK = "is it running there? see dask.scheduler in site.toml"


@contextmanager
def local_cluster(workers: int = 2, *, ports: Sequence[int] = (), shared: bool = False) -> Iterator[Client]:
    """A client of an embedded cluster of `workers` processes on loopback; all gone when the block ends.

    `ports` are tried for the scheduler before any other. `shared`: a stream and training run on it at once, each on
    a thread of its own in every worker (`room.py`).

    The calling program must be importable without side effects (`if __name__ == "__main__"`),
    as with every spawned process. Raises Unavailable when the workers do not start.
    """
    outliving_tracker()
    nanny_environment = {"distributed.nanny.pre-spawn-environ": {**_inherited(), **WORKER_ENVIRONMENT}}
    with dask.config.set({**CONFIG, **nanny_environment}), _interrupts_held_back() as let_through:
        cluster = _begun(workers, ports, shared)
        try:
            let_through()
            with Client(cluster, set_as_default=False) as client:
                _await(client, workers, "the embedded Dask cluster")
                yield client
        finally:
            cluster.close(timeout=_START_S)


@contextmanager
def _interrupts_held_back() -> Iterator[Callable[[], None]]:
    """Ctrl-C waits until what it gives is called: a cluster interrupted while it begins falls apart in tracebacks.

    Threads and processes that begin meanwhile never see one; it is for us to end them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def let_through() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield let_through
    finally:
        let_through()


def _begun(workers: int, ports: Sequence[int], shared: bool) -> LocalCluster:
    """A cluster whose scheduler has the first of `ports` that is free, or else any. Raises Unavailable."""
    try:
        return _cluster(workers, next(filter(_free, ports), 0), shared)
    except (OSError, TimeoutError, RuntimeError) as error:
        raise Unavailable(f"the embedded Dask cluster of {workers} workers did not start: {error}") from error


def _free(port: int) -> bool:
    """Whether nobody listens there; Dask would leave a socket open where it fails to."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _cluster(workers: int, port: int, shared: bool) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=len(KINDS) if shared else 1,
        processes=True,
        memory_limit=0,
        dashboard_address=None,
        # Without a dashboard it still serves HTTP, on a fixed port that only one cluster can have.
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        host="127.0.0.1",
        scheduler_port=port,
        resources=dict.fromkeys(KINDS, 1) if shared else None,
    )


@contextmanager
def client_for(address: str, security: Security | None = None) -> Iterator[Client]:
    """A client of the scheduler at `address`, e.g. ``tcp://10.0.0.5:8786``; its workers stay.

    `security`: what a ``tls://`` address asks for.
    Raises Unavailable when nothing answers there, or no worker is connected, within three minutes.
    """
    with dask.config.set(CONFIG), _connected(address, security) as client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            log.warning("the Dask scheduler at %s has no workers yet: waiting up to %g s for one", address, _START_S)
        _await(client, 1, address)
        yield client


def _connected(address: str, security: Security | None) -> Client:
    """A client; where nothing answers soon it is told that it is waited for."""
    for patience_s in (_SOON_S, _START_S):
        try:
            return Client(address, timeout=patience_s, set_as_default=False, security=security)
        except (OSError, TimeoutError) as error:
            if security is not None and (why := refusal(address, security)):
                raise Unavailable(f"the Dask scheduler at {address} and we do not agree on TLS: {why}") from error
            if patience_s == _START_S:
                raise Unavailable(f"no Dask scheduler answers at {address}: {error}; {_CHECK}") from error
            log.warning("no Dask scheduler answers at %s: waiting up to %g s more; %s", address, _START_S, _CHECK)
        except ValueError as error:
            raise Unavailable(f"{address!r} is no address of a Dask scheduler: {error}; {_CHECK}") from error
    raise AssertionError("the last attempt returns or raises")


def _await(client: Client, workers: int, where: str) -> None:
    try:
        client.wait_for_workers(workers, timeout=_START_S)
    except TimeoutError as error:
        raise Unavailable(f"{where}: fewer than {workers} workers after {_START_S:g} s; see their logs") from error


def _inherited() -> dict[str, str]:
    """Dask's own variables for new workers, which a set() of ours would otherwise replace."""
    return dict(dask.config.get("distributed.nanny.pre-spawn-environ", {}))
