"""Aliases: the ensembles under which Triton knows each deployed model, made from what the engine holds.

Triton forgets them when it ends; the engine remembers its slots, so they can
always be loaded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from penstock.errors import BadAnswer
from penstock.serving.pool import Pool
from penstock.serving.repository import alias_config

LOADS = 4
"""Aliases that are loaded at once: Triton takes some milliseconds for each, most of them waiting."""


def restore(pool: Pool) -> list[str]:
    """Load the alias of every published member that has none, or a wrong one; their names."""
    slots = {m.name: (m.version, m.parameters.get("slot")) for m in pool.models()}
    missing = {name: r for name, r in live(pool).items() if slots.get(name) != (r["version"], r["slot"])}
    with ThreadPoolExecutor(LOADS) as side_by_side:
        list(side_by_side.map(partial(load_alias, pool), missing.values()))
    return list(missing)


def residents(pool: Pool) -> list[dict[str, Any]]:
    """Everything in the engine's slots, published or not: slot, name, version, digest, card, kind, shape, live."""
    return list(pool.admin({"do": "members"})["residents"])


def live(pool: Pool) -> dict[str, dict[str, Any]]:
    """The published residents by name."""
    return {r["name"]: r for r in residents(pool) if r["live"]}


def load_alias(pool: Pool, resident: Mapping[str, Any]) -> None:
    """Load the ensemble of a resident over gRPC alone. Raises BadAnswer when it is not ready afterwards."""
    name, version = resident["name"], resident["version"]
    config = alias_config(name, resident["slot"], tuple(resident["shape"]), resident["card"])
    pool.load(name, config, {f"file:{version}/keep": b"0"})
    if not pool.ready(name):
        raise BadAnswer(f"{pool.endpoints[0]}: {name}@{version} was loaded and is not ready: look into Triton's log")
