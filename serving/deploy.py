"""Deploying: from an artifact to a model that answers, over gRPC alone.

    write -> golden check in the engine -> publish -> alias load -> drain -> free the old slot

Until `publish` nothing that answers has changed, so a refusal costs nothing. The
alias follows at once; whoever still names the old slot is answered by the old
version until the drain is over. A roll-back is a deploy of an older artifact.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from penstock.data.scoring import Member
from penstock.data.windows import WindowSpec
from penstock.errors import Refused, ServingError, Unavailable
from penstock.serving.aliases import live, load_alias, restore
from penstock.serving.deployable import Deployable, parts_of, shape_of
from penstock.serving.jobs import job
from penstock.serving.pool import Pool

THERE_S = 10.0
"""Every endpoint must answer so soon before a deploy to several begins."""
DRAIN_LIMIT_S = 30.0
"""Whoever still names an old slot then is told that it is empty."""
TOGETHER = 32
"""So many versions may wait at once to be left: each holds a slot beside that of its successor."""
DRAIN_POLL_S = 0.1
CALL_S = 30.0
"""Deadline of one admin or load call; a job's own deadline is the deployer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A model that is live."""

    name: str
    version: int
    slots: tuple[int, ...]
    """Its slot, per endpoint."""
    generation: int
    """Of the first endpoint, after the publication."""
    seconds: float
    """From the call to the moment it was live everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A slot that was written on one endpoint, not yet published."""

    pool: Pool
    slot: int
    before: int | None
    """The slot that the name was published in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A model that went live; the slots that it left are still filled."""

    header: Mapping[str, Any]
    """Who asks, for the engine."""
    written: Sequence[_Written]
    done: Deployed
    since: float
    """Monotonic seconds when it was live."""

    @property
    def left(self) -> list[tuple[Pool, int | None]]:
        """The slots to free."""
        return [(w.pool, w.before) for w in self.written]


class Deployer:
    """Deploys to every endpoint, or to none.

    While an endpoint is away nothing is changed: it holds on its own disk what it held when it went, and would say
    the old version once it is back, so that an answer would depend on which endpoint is asked.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        *,
        deadline_s: float = 120.0,
        drain_s: float = 1.0,
        token: str | None = None,
        told: Callable[[str, str], None] = lambda step, name: None,
    ) -> None:
        """`drain_s`: an old slot answers until nobody has asked for it this long.

        `token`: who deploys. While a deploy is under way the engine refuses everybody else's of that name, for two
        minutes also where its deployer was killed; one of the same token takes it over. None: nobody that was before.
        `told` hears of each step that was done, and whose: written, published, loaded, left, finished; withdrawn.
        """
        addresses = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        self._pools = [Pool(a, deadline_s=CALL_S, in_flight=4) for a in addresses]
        self.deadline_s, self.drain_s, self.token, self._told = deadline_s, drain_s, token, told

    def __enter__(self) -> Deployer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools:
            pool.close()

    def deploy(self, artifact: Deployable) -> Deployed:
        """`artifact` answers under its name when this returns, on every endpoint.

        Raises Refused with the reason, the version before it still answering;
        ServingError when an endpoint cannot be reached: nothing has changed then.
        """
        change = self._live(artifact)
        try:
            self._drain(change.left, change.header, change.since)
        except BaseException:
            self._undo(change.written, change.header)
            raise
        self._told("left", artifact.name)
        self._settle(change)
        self._told("finished", artifact.name)
        return change.done

    def deploy_all(self, artifacts: Iterable[Deployable]) -> Iterator[Deployed | Refused]:
        """`deploy` of many: each goes live by itself; the versions before them are waited out together, not in turn.

        One that is refused is given as its Refused, with the version before it still answering; the others go on.
        Raises ServingError when an endpoint cannot be reached: what was given before is live.
        """
        changes: list[_Change] = []
        try:
            for artifact in artifacts:
                try:
                    changes.append(self._live(artifact))
                except Refused as refused:
                    yield refused
                    continue
                yield changes[-1].done
                if len(changes) >= TOGETHER:
                    self._leave(changes)
        finally:
            self._leave(changes)

    def _live(self, artifact: Deployable) -> _Change:
        """Write, check, publish; the version before still answers who names its slot."""
        begun, token = time.monotonic(), self.token or uuid.uuid4().hex
        parts, header = parts_of(artifact)
        self._all_there(f"{artifact.name}@{artifact.version} is not deployed")
        header |= {"token": token}
        written: list[_Written] = []
        try:
            for pool in self._pools:
                told = self._job(pool, {"do": "write", **header}, parts)
                written.append(_Written(pool=pool, slot=told["slot"], before=told["before"]))
                self._told("written", artifact.name)
            generations = [self._go_live(w, artifact, header) for w in written]
        except BaseException:
            self._undo(written, header)
            raise
        done = Deployed(
            name=artifact.name,
            version=artifact.version,
            slots=tuple(w.slot for w in written),
            generation=generations[0],
            seconds=time.monotonic() - begun,
        )
        return _Change(header=_who(header), written=written, done=done, since=time.monotonic())

    def _leave(self, changes: list[_Change]) -> None:
        """Free the slots of the versions before, which have had the same time to be left; `changes` is empty then."""
        while changes:
            change = changes.pop(0)
            self._drain(change.left, change.header, change.since)
            self._settle(change)

    def _settle(self, change: _Change) -> None:
        for w in change.written:
            self._job(w.pool, {"do": "settle", **change.header})

    def undeploy(self, name: str) -> None:
        """`name` answers no more. One that is not deployed stays so. Raises ServingError as `deploy` does."""
        self._all_there(f"{name} stays deployed")
        header = {"name": name, "token": self.token or uuid.uuid4().hex}
        old = []
        for pool in self._pools:
            told = self._job(pool, {"do": "withdraw", **header})
            old.append((pool, told["before"]))
            self._told("withdrawn", name)
            pool.unload(name)
        self._drain(old, header, time.monotonic())
        for pool in self._pools:
            self._job(pool, {"do": "settle", **header})

    def held(self) -> set[str]:
        """Names that answer on some endpoint. Raises ServingError when one cannot be reached."""
        return {name for pool in self._pools for name in live(pool)}

    def members(self) -> list[Member]:
        """What answers on the first endpoint, by name."""
        return members_of(self._pools[0].admin({"do": "members"}))

    def restored(self) -> set[str]:
        """Names that answer on every endpoint, once aliases that a server has forgotten are loaded again."""
        for pool in self._pools:
            restore(pool)
        return set.intersection(*(set(live(pool)) for pool in self._pools))

    def ensure(self, artifacts: Sequence[Deployable]) -> list[Deployed]:
        """Make every endpoint hold exactly these; what is there already is left alone.

        Raises Refused, naming the first artifact that was refused.
        """
        wanted = {a.name: a for a in artifacts}
        done = []
        for pool in self._pools:
            restore(pool)
        held = [live(pool) for pool in self._pools]
        for name in {name for on_one in held for name in on_one} - set(wanted):
            self.undeploy(name)
        for name, artifact in wanted.items():
            digest = parts_of(artifact)[1]["digest"]
            if any(on_one.get(name, {}).get("digest") != digest for on_one in held):
                done.append(self.deploy(artifact))
        return done

    def _all_there(self, outcome: str) -> None:
        """Raises Unavailable, naming every endpoint that is away, before anything was changed."""
        if len(self._pools) < 2:
            return  # whatever comes first says the same
        asked = [pool.begin_admin({"do": "health"}, at=pool.endpoints[0]) for pool in self._pools]
        wait(asked, THERE_S)
        away = [str(a.exception()) if a.done() else "no answer in time" for a in asked if not a.done() or a.exception()]
        if away:
            raise Unavailable(
                f"{outcome}: {'; '.join(away)}. A change goes to every endpoint or to none: "
                "start that server again, or take it out of triton.endpoints (and restart the stream)"
            )

    def _go_live(self, written: _Written, artifact: Deployable, header: Mapping[str, Any]) -> int:
        told = self._job(written.pool, {"do": "publish", "slot": written.slot, **_who(header)})
        self._told("published", artifact.name)
        resident = {"name": artifact.name, "version": artifact.version, "slot": written.slot, "card": artifact.card}
        load_alias(written.pool, resident | {"shape": shape_of(artifact)})
        self._told("loaded", artifact.name)
        return int(told["generation"])

    def _drain(self, old: Sequence[tuple[Pool, int | None]], header: Mapping[str, Any], since: float) -> None:
        """Free slots left at `since` (monotonic) once nobody has asked for them for `drain_s`, at the latest after
        `DRAIN_LIMIT_S`. Whoever has read the old list may be on the way even where nobody asked lately."""
        for pool, slot in old:
            while slot is not None:
                time.sleep(max(0.0, since + self.drain_s - time.monotonic()))
                quiet_s = self.drain_s if time.monotonic() < since + DRAIN_LIMIT_S else 0.0
                if self._free(pool, slot, header, quiet_s):
                    break
                time.sleep(min(self.drain_s, DRAIN_POLL_S))

    def _free(self, pool: Pool, slot: int, header: Mapping[str, Any], quiet_s: float) -> bool:
        return bool(self._job(pool, {"do": "free", "slot": slot, "quiet_s": quiet_s, **_who(header)})["freed"])

    def _undo(self, written: Sequence[_Written], header: Mapping[str, Any]) -> None:
        """Back to what answered before, as far as an endpoint can be reached; the reason is raised by the caller."""
        for w in written:
            # One that is gone now restores what it had published when it comes back.
            with suppress(ServingError, Refused):
                self._put_back(w, header)
        for pool in self._pools:
            with suppress(ServingError, Refused):
                self._job(pool, {"do": "settle", **_who(header)})

    def _put_back(self, w: _Written, header: Mapping[str, Any]) -> None:
        if w.slot in (r["slot"] for r in live(w.pool).values()):
            if w.before is None:
                self._job(w.pool, {"do": "withdraw", **_who(header)})
            else:
                self._job(w.pool, {"do": "publish", "slot": w.before, **_who(header)})
            restore(w.pool)
        self._free(w.pool, w.slot, header, quiet_s=0.0)

    def _job(self, pool: Pool, command: dict[str, Any], parts: dict[str, bytes] | None = None) -> dict[str, Any]:
        """Run a change on the engine's worker thread and wait for it.

        Raises Refused with the engine's reason, DeadlineExceeded.
        """
        return job(pool, command, parts, about=command["name"], deadline_s=self.deadline_s)


def members_of(told: Mapping[str, Any]) -> list[Member]:
    """The published members in an answer to the admin request ``members``, by name."""
    published = sorted((r for r in told["residents"] if r["live"]), key=lambda r: str(r["name"]))
    return [
        Member(name=r["name"], version=r["version"], slot=r["slot"], spec=WindowSpec.from_json(r["card"]["spec"]))
        for r in published
    ]


def _who(header: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": header["name"], "token": header["token"]}
