"""Which way executes each group of models, and each solo, fastest: every endpoint is asked, tries it and keeps it.

Models answer meanwhile as they did. A group is a shape: rows, columns and units; all its members change together.
A solo is tried by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.errors import BadRequest
from penstock.serving.jobs import job
from penstock.serving.pool import Pool

CALL_S = 30.0
"""Deadline of one admin call."""
TRIALS_S = 600.0
"""Of all groups' trials on one endpoint, and of each solo's: XLA compiles each shape for seconds."""
STANDARD = 1e-5
"""Tolerance of every deploy, in units of the target's scale."""
MOST = 0.1
"""A tenth of the target's scale: what is further away is another model."""


def optimize(endpoints: Sequence[str], tolerance: float = STANDARD) -> list[dict[str, Any]]:
    """Per endpoint, and group or solo: what was chosen, and the table of what was tried.

    `tolerance`: largest difference from Keras' golden predictions, in units of the target's scale; it stays that of
    the group's later deploys. Raises BadRequest for one that is none, ServingError.
    """
    if not 0 < tolerance <= MOST:
        raise BadRequest(f"tolerance {tolerance:g}: give a share of the target's scale, above 0, at most {MOST:g}")
    found = []
    for endpoint in endpoints:
        with Pool(endpoint, deadline_s=CALL_S) as pool:
            command = {"do": "optimize", "tolerance": tolerance}
            told = job(pool, command, about="optimize", deadline_s=TRIALS_S)
            taken = dict(told["chosen"])
            for name in told["solos"]:  # one after the other, so that deploys come between
                taken |= job(pool, command | {"name": name}, about=name, deadline_s=TRIALS_S)["chosen"]
        found += [{"endpoint": endpoint, "group": key, **chosen} for key, chosen in taken.items()]
    return found
