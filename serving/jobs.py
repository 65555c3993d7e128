"""A change on an engine: begun by one admin request, done on its worker thread, waited for here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from penstock.errors import DeadlineExceeded, Refused
from penstock.serving.pool import Pool

POLL_S = 0.01


def job(
    pool: Pool, command: dict[str, Any], parts: Mapping[str, bytes] | None = None, *, about: str, deadline_s: float
) -> dict[str, Any]:
    """What the engine says when it is done; `pool` has one endpoint, `about` names what is changed.

    Raises Refused with the engine's reason, DeadlineExceeded.
    """
    endpoint = pool.endpoints[0]
    number = pool.admin(command, None if parts is None else dict(parts))["job"]
    until = time.monotonic() + deadline_s
    while (told := pool.admin({"do": "job", "job": number}))["state"] == "running":
        if time.monotonic() > until:
            raise DeadlineExceeded(f"{endpoint}: {command['do']} took over {deadline_s} s")
        time.sleep(POLL_S)
    if told["state"] == "refused":
        raise Refused(f"{endpoint}: {about}: {told['reason']}")
    return told
