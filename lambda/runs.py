"""Which run a training belongs to: a new one, or the interrupted one that the same command goes on with.

The same command on the same plant.toml has the same key. A run with no model finished is not worth going on
with: a new one sees the newest readings. What is finished is told by the store and not by the record alone, as a
kill may come between the two: a card names its run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from penstock.batch.plan import Wish
from penstock.data.archive import Archive
from penstock.data.models import ModelStore
from penstock.data.plant import LiveSpec, Plant, ViewSpec
from penstock.data.runs import Kind, Run, Runs
from penstock.errors import ArchiveError

log = logging.getLogger(__name__)


def key_of(plant: Plant, names: Sequence[str], words: Mapping[str, Any]) -> str:
    """A digest of what was asked: `words` as the user wrote them, and the models as plant.toml has them."""
    models = {
        name: repr(replace(plant.models[name], live=LiveSpec(), view=ViewSpec())) for name in sorted(names)
    }  # neither teaches anything
    tags = {tag.name: repr(tag) for tag in plant.tags.values()}
    told = json.dumps([models, tags, {k: str(v) for k, v in words.items()}], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


@contextmanager
def run_for(
    runs: Runs,
    store: ModelStore,
    archive: Archive,
    wish: Wish,
    *,
    key: str,
    now: str,
    anew: bool = False,
    kind: Kind = "train",
    reasons: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """The run to work on, held against other processes; ended only when the block ends well.

    Raises ModelError where another process works on it.
    """
    with runs.held(key):
        before = runs.unfinished(key)
        going = None if before is None else _going_on(runs, store, archive, before, anew)
        run = going or _begun(runs, archive, wish, key, now, kind, reasons or {})
        if going is not None:
            done, of = len(going.done), len(going.models)
            when = run.begun[:16].replace("T", " ")
            log.warning("going on with the run of %s UTC: %d of %d done; --anew starts over", when, done, of)
        yield run
        runs.end(run.id)


def _going_on(runs: Runs, store: ModelStore, archive: Archive, run: Run, anew: bool) -> Run | None:
    """`run` with what the store has of it; None where it is given up."""
    done = {name: version for name in run.models if (version := _version(store, name, run.id)) is not None}
    if not done or anew or not _kept(archive, run):
        runs.end(run.id)
        return None
    for name in done.keys() - run.done.keys():
        runs.trained(run.id, name, done[name])
    return replace(run, done=done)


def _version(store: ModelStore, name: str, run: str) -> int | None:
    """The version of `name` that this run has stored."""
    versions = reversed(store.versions(name))
    return next((version for version in versions if store.card(name, version).get("run") == run), None)


def _kept(archive: Archive, run: Run) -> bool:
    """Whether the run's state of the archive is still there."""
    try:
        archive.commit(run.snapshot)
    except ArchiveError as error:
        log.warning("the run of %s cannot go on, a new one begins: %s", run.begun, error)
        return False
    return True


def _begun(
    runs: Runs, archive: Archive, wish: Wish, key: str, now: str, kind: Kind, reasons: Mapping[str, str]
) -> Run:  # fmt: skip
    stamp = "".join(letter for letter in now[:19] if letter not in "-:")
    run = Run(
        id=f"{stamp}-{secrets.token_hex(3)}",
        begun=now,
        key=key,
        models=tuple(wish.models or ()),
        start_ns=wish.start_ns,
        end_ns=wish.end_ns,
        lstm=dict(wish.lstm or {}),
        snapshot=archive.head().snapshot,
        kind=kind,
        reasons=reasons,
    )
    runs.begin(run)
    return run
