"""Health that means something: a real inference whose value is checked.

`model_ready` stays true when the engine's process has died, and a refused load
makes a healthy server "not ready"; so neither is asked here.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import BadAnswer
from penstock.serving.pool import Pool

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What a healthy engine said."""

    pid: int
    """Of the engine's process; it never changes unless the process was replaced."""
    generation: int
    members: int
    checked: str
    """``name@version`` whose golden window was answered right; empty when nothing is deployed."""
    broken: dict[str, str]
    """Deployed members that the engine could not read again when it started, with the reason."""
    waiting: dict[str, str]
    """Isolated members whose own process is down at the moment, with the reason; they come back by themselves."""


def canary(pool: Pool, name: str | None = None) -> Canary:
    """Ask for a golden window of `name` (None: of some member that is not isolated) by the tick route and by its alias.

    Raises ServingError: BadAnswer when a value is wrong, Unavailable when the engine is gone.
    """
    health = pool.admin({"do": "health"})
    told = pool.admin({"do": "canary", "name": name})
    checked = ""
    if told["slot"] >= 0:
        window = np.array(told["window"], np.float32)
        expected, allowed = np.array(told["prediction"]), told["tolerance"] * np.array(told["scale"])
        answer = pool.tick(np.array([told["slot"]], np.int32), window)
        _check(answer.values[0], expected[0], allowed, f"{answer.endpoint}: {told['name']} by tick")
        if answer.members[0] != zlib.crc32(told["name"].encode()):
            raise BadAnswer(f"{answer.endpoint}: slot {told['slot']} does not answer for {told['name']}")
        alias = pool.predict(told["name"], window)
        _check(alias.values[0], expected[0], allowed, f"{answer.endpoint}: {told['name']} by its alias")
        checked = f"{told['name']}@{told['version']}"
    return Canary(
        pid=health["pid"],
        generation=health["generation"],
        members=health["members"],
        checked=checked,
        broken=health["broken"],
        waiting=health.get("waiting", {}),
    )


def _check(found: Array, expected: Array, allowed: Array, what: str) -> None:
    if found.shape != expected.shape or not (np.abs(found - expected) <= allowed).all():
        raise BadAnswer(f"{what}: the golden window gives {found}, expected {expected}: repair or redeploy")
