"""Jobs over Dask's workers, a few at a time: each carries a model's file, and answers are taken as they come.

Knows nothing of what a job is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from distributed import Client, Future, as_completed

from penstock.errors import DeadlineExceeded
from penstock.room import room

IN_FLIGHT = 4
"""Jobs per worker at a time."""
DEADLINE_S = 6 * 3600.0
"""Of all of them."""

K = TypeVar("K")
J = TypeVar("J")
R = TypeVar("R")


def spread(
    client: Client, work: Callable[[J], R], jobs: Iterable[tuple[K, J]], *, what: str, deadline_s: float = DEADLINE_S
) -> Iterator[tuple[K, R]]:
    """What `work` makes of each job, beside the key that the job was given with, in the order in which they are done.

    Jobs that are left when the caller stops are cancelled. Raises what `work` raises, and DeadlineExceeded, which
    names `what`.
    """
    waiting, place = iter(jobs), room(client, "batch")
    keys: dict[str, K] = {}

    def submitted(most: int) -> list[Future]:
        futures = []
        for key, job in islice(waiting, most):
            futures.append(client.submit(work, job, pure=False, resources=place))
            keys[futures[-1].key] = key
        return futures

    running = as_completed(loop=client.loop, timeout=deadline_s)
    running.update(submitted(IN_FLIGHT * max(1, len(client.nthreads()))))
    try:
        for future in running:
            yield keys.pop(future.key), future.result()
            running.update(submitted(1))
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"{what}: not done within {deadline_s:g} s; add workers, or ask for a shorter span"
        ) from error
    finally:
        client.cancel(list(running.futures), force=True)
