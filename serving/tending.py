"""Endpoints that somebody else runs, kept complete while a stream runs: a server that comes back empty gets its models.

    look (health) ── Seen ──► Care.next ── act? ──► restore its aliases, deploy what it lacks

`Care` is arithmetic and `Tending` the loop around it. Only what is missing is brought: a version that differs is
another process' deploy, which goes to every endpoint or to none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum

from penstock.errors import DeadlineExceeded, ModelError, ServingError, Unavailable
from penstock.serving.deploy import Deployer
from penstock.serving.deployable import Deployable
from penstock.serving.pool import Pool

EVERY_S = 2.0
"""Between two looks."""
ASK_S = 5.0
"""Deadline of a look."""
SURE = 2
"""Looks in a row that must find models missing: an undeploy takes one away a moment before the site's books say so."""
BACKOFF_S = (2.0, 60.0)
"""Before the second try in a row, and at most; doubled each time."""

Wanted = Callable[[], Mapping[str, int]]
"""The site's live models now: version by name."""
Artifacts = Callable[[str, int], Deployable]

log = logging.getLogger(__name__)


class Seen(Enum):
    """What a look at an endpoint found."""

    AWAY = "away"
    BUSY = "a deploy is under way"
    NEW = "another process than before answers"
    LACKING = "fewer models than are live"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """Where one endpoint stands. Times are monotonic seconds."""

    back: bool = False
    """It was away, or is another process: what it holds must be looked through."""
    lacking: int = 0
    """Looks in a row."""
    tries: int = 0
    """In a row, without a look that found it whole."""
    not_before: float = 0.0
    """The next try."""

    def next(self, seen: Seen, now: float) -> tuple[Care, bool]:
        """The care after a look, and whether to complete the endpoint now."""
        match seen:
            case Seen.AWAY:
                return replace(self, back=True, lacking=0), False
            case Seen.BUSY:
                return self, False
            case Seen.WHOLE if not self.back:
                return Care(), False
        care = replace(self, back=self.back or seen is Seen.NEW, lacking=self.lacking + 1)
        if now < care.not_before or not (care.back or care.lacking >= SURE):
            return care, False
        wait_s = min(BACKOFF_S[1], BACKOFF_S[0] * 2.0 ** min(care.tries, 30))
        return Care(tries=care.tries + 1, not_before=now + wait_s), True


class Tended:
    """One endpoint, looked at from one thread."""

    def __init__(self, endpoint: str, wanted: Wanted, artifact: Artifacts) -> None:
        self.endpoint = endpoint
        self._wanted, self._artifact = wanted, artifact
        self._pool = Pool(endpoint, deadline_s=ASK_S, in_flight=2)
        self._care = Care()
        self._pid: int | None = None

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def look(self, now: float) -> None:
        """Look, and complete it where that is due; what goes wrong is logged and tried again later."""
        try:
            self._care, act = self._care.next(self._seen(), now)
            brought = complete(self.endpoint, self._wanted(), self._artifact) if act else []
        except (ServingError, ModelError) as error:
            log.error("%s: lacks models and could not be given them: %s", self.endpoint, error)
        else:
            if brought:
                log.warning("%s: was given what it lacked: %s", self.endpoint, ", ".join(brought))

    def _seen(self) -> Seen:
        try:
            told = self._pool.admin({"do": "health"})
        except ServingError:
            return Seen.AWAY
        if told["deploying"]:
            return Seen.BUSY
        before, self._pid = self._pid, told["pid"]
        if before not in (None, self._pid):
            return Seen.NEW
        return Seen.LACKING if told["members"] < len(self._wanted()) else Seen.WHOLE


def complete(endpoint: str, wanted: Mapping[str, int], artifact: Artifacts) -> list[str]:
    """Deploy to one endpoint what it lacks of `wanted`, by name; what was brought. Raises ServingError, ModelError."""
    with Deployer(endpoint) as deployer:
        held = deployer.restored()
        missing = {name: version for name, version in wanted.items() if name not in held}
        return [f"{d.name}@{d.version}" for d in (deployer.deploy(artifact(n, v)) for n, v in missing.items())]


def begin(endpoints: Sequence[str], artifacts: Sequence[Deployable]) -> list[str]:
    """Make every endpoint that is there hold exactly these; those that are away, which `tended` completes later.

    Raises Unavailable when none is there, Refused when one does not take a model.
    """

    def ensure(endpoint: str) -> Unavailable | DeadlineExceeded | None:
        try:
            with Deployer(endpoint) as deployer:
                deployer.ensure(artifacts)
        except (Unavailable, DeadlineExceeded) as error:
            return error
        return None

    with ThreadPoolExecutor(len(endpoints)) as side_by_side:
        found = dict(zip(endpoints, side_by_side.map(ensure, endpoints), strict=True))
    away = {endpoint: error for endpoint, error in found.items() if error is not None}
    if len(away) == len(endpoints):
        raise next(iter(away.values())) if len(away) == 1 else Unavailable("; ".join(map(str, away.values())))
    for endpoint, error in away.items():
        log.warning("%s: is away and is left out until it comes back: %s", endpoint, error)
    return list(away)


@contextmanager
def tended(endpoints: Sequence[str], wanted: Wanted, artifact: Artifacts, every_s: float = EVERY_S) -> Iterator[None]:
    """The endpoints are kept complete, each from a thread of its own, while the block runs."""
    stop = threading.Event()

    def tend(endpoint: str) -> None:
        care = Tended(endpoint, wanted, artifact)
        try:
            while not stop.wait(every_s):
                care.look(time.monotonic())
        finally:
            care.close()

    threads = [threading.Thread(target=tend, args=(e,), name=f"tend {e}", daemon=True) for e in endpoints]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(ASK_S)
