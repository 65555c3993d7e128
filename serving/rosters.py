"""The rosters of all endpoints of a pool, kept up to date: at once where an answer says so, else beside the ticks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from penstock.data.scoring import Member
from penstock.errors import ServingError, Unavailable
from penstock.serving.pool import Pool
from penstock.serving.roster import Roster, Specs, complete, published_in, roster_of, together

LOOK_S = 1.0
"""Between two looks at an endpoint that lacks members."""
KEPT = 4
"""Specs that are kept for versions of the past, per member."""


class Rosters:
    """Belongs to one thread at a time."""

    def __init__(self, pool: Pool) -> None:
        """The pool stays the caller's to close."""
        self._pool = pool
        self._known: dict[str, Roster] = {}
        self._specs: Specs = {}
        self._looks: dict[str, Future[dict[str, Any]]] = {}
        self._looked_at: dict[str, float] = {}
        self.members: tuple[Member, ...] = ()
        """Of all endpoints; the same object until one of them changes."""

    def all(self) -> list[Roster]:
        """Those that are known, in the order of the pool's endpoints; what was looked for beside is sorted in first."""
        for endpoint in [e for e, look in self._looks.items() if look.done()]:
            self._take(endpoint, self._looks.pop(endpoint))
        return self._known_in_order()

    def ask_all(self) -> None:
        """Look at every endpoint that is not left alone. Raises Unavailable when none answers."""
        stats, errors = self._pool.stats().endpoints, []
        used = [e for e in self._pool.endpoints if stats[e].used] or list(self._pool.endpoints)
        for endpoint in used:
            try:
                self.ask(endpoint)
            except ServingError as error:
                errors.append(error)
        if len(errors) == len(used):
            raise errors[0] if len(errors) == 1 else Unavailable("; ".join(map(str, errors)))

    def ask(self, endpoint: str, *, afresh: bool = False) -> None:
        """Look at one now; `afresh`: also when its generation has not moved, which a new server's may not have.

        Raises ServingError when it does not answer; it has no roster then.
        """
        self._looks.pop(endpoint, None)  # its answer would be older than this one
        try:
            told = self._pool.admin(self._question(endpoint, afresh), at=endpoint)
        except ServingError:
            self._forget(endpoint)
            raise
        self._learn(endpoint, told)

    def begin(self, endpoint: str) -> None:
        """Begin to look at one, beside the ticks."""
        if endpoint not in self._looks:
            self._looked_at[endpoint] = time.monotonic()
            self._looks[endpoint] = self._pool.begin_admin(self._question(endpoint, afresh=False), at=endpoint)

    def look_after(self, wanted: int) -> None:
        """Begin to look, beside the ticks, at endpoints that have less than `wanted` members or that say nothing."""
        now = time.monotonic()
        for endpoint in self._pool.endpoints:
            known = self._known.get(endpoint)
            if (known is None or len(known.members) < wanted) and now >= self._looked_at.get(endpoint, 0.0) + LOOK_S:
                self.begin(endpoint)

    def _question(self, endpoint: str, afresh: bool) -> dict[str, Any]:
        """Cards are not told again: those of hundreds of members are megabytes, on the thread that answers ticks."""
        known = self._known.get(endpoint)
        generation = None if afresh or known is None else known.generation
        return {"do": "members", "known": generation, "have": dict(self._specs.keys())}

    def _take(self, endpoint: str, look: Future[dict[str, Any]]) -> None:
        if look.cancelled() or isinstance(look.exception(), ServingError):
            self._forget(endpoint)
        else:
            self._learn(endpoint, look.result())

    def _learn(self, endpoint: str, told: Mapping[str, Any]) -> None:
        known = self._known.get(endpoint)
        if "residents" not in told:
            if known is None or told["generation"] != known.generation:
                self._forget(endpoint)  # it said so to a question that was asked before we knew better
            return
        if not complete(told, self._specs):
            return  # cards it left out were let go of since it was asked; whoever needs its roster asks again
        self._known[endpoint] = roster_of(endpoint, told, self._specs)
        if len(self._specs) > KEPT * (1 + len(told["residents"])):
            self._specs = {key: self._specs[key] for key in published_in(told)}
        self._join()

    def _forget(self, endpoint: str) -> None:
        if self._known.pop(endpoint, None) is not None and self._known:
            self._join()

    def _join(self) -> None:
        members = together(self._known_in_order())
        if members != self.members:
            self.members = members

    def _known_in_order(self) -> list[Roster]:
        return [self._known[e] for e in self._pool.endpoints if e in self._known]
