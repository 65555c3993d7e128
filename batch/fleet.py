"""Running batch work on Dask: many jobs, one model each; what comes back are values.

This file only wires: which model to train is `plan`, how is `training`, and
TensorFlow is imported on the workers alone.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, as_completed, get_worker

from penstock.batch.plan import Job
from penstock.data.models import Draft
from penstock.room import room

DEADLINE_S = 24 * 3600.0
"""Longer than any round of training that somebody waits for."""
_TOPIC = "penstock.training"
_IMPORTING = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One epoch of one model is done."""

    name: str
    epoch: int
    epochs: int
    """The most there will be; early stopping may end before."""
    loss: float
    """Mean squared error of the validation part, in units of the change's variance."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A job that ended well."""

    name: str
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A job that did not; the others go on."""

    name: str
    error: str
    """What was wrong, with place and remedy."""


def train(
    jobs: Sequence[Job],
    *,
    client: Client,
    progress: Callable[[Progress], None] | None = None,
    deadline_s: float = DEADLINE_S,
) -> Iterator[Trained | Failed]:
    """Run the jobs, one per free worker, and give each result as it comes.

    A job that fails, or kills every worker it is given to, fails alone. Jobs not done after `deadline_s` are
    cancelled and given as Failed; so are all that still run when the caller stops iterating (without a word).
    `progress` is called from another thread.
    """
    waiting: dict[Any, Job] = {}
    place = room(client, "batch")
    with _told(client, progress):
        try:
            for rank, job in enumerate(jobs):
                key = f"train-{job.name}-{os.urandom(4).hex()}"
                future = client.submit(run, job, key=key, pure=False, priority=len(jobs) - rank, resources=place)
                waiting[future] = job
            for future in _finished(client, list(waiting), deadline_s):
                yield _result(waiting.pop(future).name, future)
            for job in list(waiting.values()):
                yield Failed(name=job.name, error=f"model {job.name!r}: not trained within {deadline_s:g} s")
        finally:
            client.cancel(list(waiting), force=True)


def run(job: Job) -> Draft:
    """One job, on a worker. A model that cannot be trained raises; the caller makes it a Failed."""
    quiet_tensorflow()
    from penstock.batch import training  # TensorFlow: seconds, and only where it is needed

    def report(epoch: int, loss: float) -> None:
        message = {"name": job.name, "epoch": epoch, "epochs": job.lstm.epochs, "loss": loss}
        get_worker().log_event(_TOPIC, message)

    return training.train(job, report)


def quiet_tensorflow() -> None:
    """Import TensorFlow: one thread per worker, unless its environment says otherwise, and without its chatter.

    Some of its lines come before any setting is read, so the file descriptor itself is turned away; an import
    that fails shows them all.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of shapes that are traced anew: ours are meant to.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _IMPORTING:  # a task whose client was killed may still be at it, in another thread of this worker
        if "keras" not in sys.modules:
            with _kept_back(2):
                import keras  # noqa: F401
                import tensorflow  # noqa: F401


@contextmanager
def _kept_back(descriptor: int) -> Iterator[None]:
    """What is written to `descriptor` meanwhile is shown only where the block fails."""
    apart = os.dup(descriptor)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), descriptor)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(apart, kept.read())
            raise
        finally:
            os.dup2(apart, descriptor)
            os.close(apart)


def _finished(client: Client, futures: list[Future], deadline_s: float) -> Iterator[Future]:
    try:
        yield from as_completed(futures, loop=client.loop, timeout=deadline_s)
    except TimeoutError:
        return


def _result(name: str, future: Future) -> Trained | Failed:
    if future.status == "finished":
        return Trained(name=name, draft=future.result())
    if future.status == "cancelled":
        return Failed(name=name, error=f"model {name!r}: cancelled; the scheduler was restarted or told to stop")
    error = future.exception()
    told = str(error) if repr(name) in str(error) else f"model {name!r}: {type(error).__name__}: {error}"
    return Failed(name=name, error=told)


@contextmanager
def _told(client: Client, progress: Callable[[Progress], None] | None) -> Iterator[None]:
    """Workers report epochs as events; what is lost on the way is only a line on a screen."""
    if progress is None:
        yield
        return

    def heard(event: tuple[float, Any]) -> None:
        message = event[1]
        progress(Progress(**{key: message[key] for key in ("name", "epoch", "epochs", "loss")}))

    client.subscribe_topic(_TOPIC, heard)
    try:
        yield
    finally:
        client.unsubscribe_topic(_TOPIC)
