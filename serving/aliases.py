"""Aliases: the ensembles under which Triton knows each deployed model, made from what the engine holds.

Triton forgets them when it ends; the engine remembers its slots, so they can
always be loaded again. A server of our own finds them in its repository when it
starts, all at once (`repository.lay_out`); what is wrong or missing then is
loaded one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from penstock.errors import BadAnswer, DeadlineExceeded, ServingError, Unavailable
from penstock.serving.kept import Mark
from penstock.serving.pool import Pool
from penstock.serving.repository import alias_config

LOADS = 4
"""Aliases that are loaded at once: Triton takes some milliseconds for each, most of them waiting."""

log = logging.getLogger(__name__)


def restore(pool: Pool) -> list[str]:
    """Load the alias of every published member that has none, or a wrong one; their names."""
    slots = {m.name: (m.version, m.parameters.get("slot")) for m in pool.models()}
    missing = {name: r for name, r in live(pool).items() if slots.get(name) != (r["version"], r["slot"])}
    with ThreadPoolExecutor(LOADS) as side_by_side:
        list(side_by_side.map(partial(load_alias, pool), missing.values()))
    return list(missing)


def complete(pool: Pool, laid: Mapping[str, Mark]) -> list[str]:
    """Make the aliases of a server that has just started those of its engine; the names that had to be loaded.

    `laid` are those that it found in its repository. They are believed where the server says that they are ready and
    the engine holds the same; one that the engine could not read again is taken away. An alias that cannot be loaded
    costs no other: the log tells it, and its member answers by ticks. Raises Unavailable, DeadlineExceeded.
    """
    ready = pool.versions()
    right = {name: mark for name, mark in laid.items() if ready.get(name) == mark[0]}
    wanted = live(pool, {name: digest for name, (_, _, digest) in laid.items()})
    for name in right.keys() - wanted.keys():
        pool.unload(name)
    missing = {name for name, r in wanted.items() if right.get(name) != (r["version"], r["slot"], r["digest"])}
    if missing:
        told = live(pool)  # with their cards
        with ThreadPoolExecutor(LOADS) as side_by_side:
            list(side_by_side.map(partial(_load_or_tell, pool), (told[name] for name in missing & told.keys())))
    return sorted(missing)


def _load_or_tell(pool: Pool, resident: Mapping[str, Any]) -> None:
    try:
        load_alias(pool, resident)
    except (Unavailable, DeadlineExceeded):
        raise  # about the server, not about this alias
    except ServingError as error:
        log.warning("%s cannot be asked by its name, only in ticks; deploy it again: %s", resident["name"], error)


def residents(pool: Pool, have: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Everything in the engine's slots, published or not: slot, name, version, digest, card, kind, shape, live.

    `have`: digest by name; only published members that are not these come with their card then.
    """
    known = {} if have is None else {"have": dict(have)}
    return list(pool.admin({"do": "members", **known})["residents"])


def live(pool: Pool, have: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The published residents by name; `have` as for `residents`."""
    return {r["name"]: r for r in residents(pool, have) if r["live"]}


def load_alias(pool: Pool, resident: Mapping[str, Any]) -> None:
    """Load the ensemble of a resident over gRPC alone. Raises BadAnswer when it is not ready afterwards."""
    name, version = resident["name"], resident["version"]
    config = alias_config(name, resident["slot"], tuple(resident["shape"]), resident["card"])
    pool.load(name, config, {f"file:{version}/keep": b"0"})
    if not pool.ready(name, version):
        raise BadAnswer(f"{pool.endpoints[0]}: {name}@{version} was loaded and is not ready: look into Triton's log")
