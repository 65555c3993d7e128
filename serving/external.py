"""Whether Triton servers that somebody else runs are there and answer right: asked, not believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.errors import ServingError
from penstock.serving.canary import canary
from penstock.serving.pool import Pool

ASK_S = 3.0
"""Deadline of a question to one server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one server said."""

    endpoint: str
    members: int
    """Models that answer there."""
    trouble: str
    """Why it does not answer, or not right; empty where all is well."""
    version: str = ""
    """Of the server, such as 2.51.0; empty where it does not answer."""


def heard(endpoints: Sequence[str], ask_s: float = ASK_S) -> list[Heard]:
    """One golden window for each server, with its answer checked; a server that is away costs `ask_s`."""
    return [_asked(endpoint, ask_s) for endpoint in endpoints]


def _asked(endpoint: str, ask_s: float) -> Heard:
    with Pool(endpoint, deadline_s=ask_s) as pool:
        try:
            members = canary(pool).members
            return Heard(endpoint=endpoint, members=members, trouble="", version=pool.server_version())
        except ServingError as error:
            return Heard(endpoint=endpoint, members=0, trouble=str(error))
