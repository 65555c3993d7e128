"""Room on shared Dask workers: a stream's steps and batch jobs hold no thread of each other's.

A worker of a shared cluster has a thread and a Dask resource for either kind, so that a training of minutes does
not stop the stream, and two trainings, or two steps, are never at once in one process. A cluster without these
resources (an embedded one, somebody's own) is used as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

KINDS = ("step", "batch")

Kind = Literal["step", "batch"]


def room(client: Any, kind: Kind) -> dict[str, int] | None:
    """What a task of that kind asks for with `submit(..., resources=)`, from a synchronous client's scheduler.

    None where no worker offers it.
    """
    return offered(client.scheduler_info(), kind)


def offered(scheduler: Mapping[str, Any], kind: Kind) -> dict[str, int] | None:
    """The same from what a scheduler says of itself and its workers (`identity`)."""
    workers = scheduler["workers"].values()
    return {kind: 1} if any(kind in worker.get("resources", {}) for worker in workers) else None
