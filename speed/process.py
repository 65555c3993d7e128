"""What a stream service is as a process: alone on its site, stoppable, connected to its scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from distributed import Client, Security

from penstock.errors import SiteError, Unavailable


@contextlib.asynccontextmanager
async def connected(scheduler: str, timeout_s: float, security: Security | None = None) -> AsyncIterator[Client]:
    """An asynchronous client of the scheduler at that address. Raises Unavailable when nothing answers."""
    try:
        client = await Client(scheduler, asynchronous=True, timeout=timeout_s, set_as_default=False, security=security)
    except (OSError, TimeoutError, ValueError) as error:
        raise Unavailable(f"no Dask scheduler answers at {scheduler}: {error}; check site.toml") from error
    async with client:
        yield client


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two services of one site would count every reading twice. Raises SiteError when one runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SiteError(f"{folder.parent}: a stream service already runs here; stop it first") from None
        yield


def occupied(folder: Path) -> bool:
    """Whether a service runs on the site whose ``speed`` folder this is; sure, whatever became of its pid."""
    try:
        with (folder / "lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def signals_to(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `stop` in the running loop."""
    loop = asyncio.get_running_loop()
    caught = (signal.SIGINT, signal.SIGTERM)
    for number in caught:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
