"""Aggregates of a long history, computed by Dask workers: each reads its own cells and returns what they come to.

Who commits them is not asked here (`data/aggregating.py`): workers never write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from distributed import Client, Future

from penstock.batch.history import Source
from penstock.data.aggregating import Across, Job, summary_of
from penstock.data.summary import Summary
from penstock.errors import DeadlineExceeded
from penstock.room import room

IN_FLIGHT = 2
"""Jobs per worker at a time: answers wait here until those before them are put."""
JOB_S = 600.0
"""Longest wait for one job."""


def across(client: Client, source: Source) -> Across:
    """Does jobs on the client's workers; of `source` only the snapshot is another one each time.

    What it gives raises ArchiveError, DeadlineExceeded.
    """

    def spread(snapshot: str, jobs: Sequence[Job]) -> Iterator[Summary]:
        at, place = replace(source, snapshot=snapshot), room(client, "batch")
        left = (client.submit(summarised, at, job, pure=False, resources=place) for job in jobs)
        running: deque[Future] = deque(islice(left, IN_FLIGHT * max(1, len(client.nthreads()))))
        try:
            while running:
                yield _result(running[0])
                running.popleft().release()
                running.extend(islice(left, 1))
        finally:
            client.cancel(list(running), force=True)

    return spread


def summarised(source: Source, job: Job) -> Summary:
    """One job, on a worker."""
    return summary_of(job, lambda tags, first, last: source.cells(tags.tolist(), first, last))


def _result(future: Future) -> Summary:
    try:
        found: Summary = future.result(timeout=JOB_S)
    except TimeoutError as error:
        raise DeadlineExceeded(f"aggregates: a part was not computed within {JOB_S:g} s; add workers") from error
    return found
