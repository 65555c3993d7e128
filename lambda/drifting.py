"""Which models are to be trained again since they have drifted, and why: plant.toml's `retrain.on_drift`.

Never after a sensor's fault: what a broken sensor says teaches nothing. Never again within the pause after the last
retrain, whatever it was for: its version may still be on trial, or the drift may be one that no training mends.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from penstock.data.drift import Kind
from penstock.data.durations import duration_text
from penstock.data.plant import DriftSpec
from penstock.data.runs import Run
from penstock.drift import drift
from penstock.errors import ModelError, QueryError

if TYPE_CHECKING:
    from penstock.site import Site

MOST = 3
"""Findings that a reason tells."""

log = logging.getLogger(__name__)


def drifted(site: Site, names: Sequence[str], now: str) -> dict[str, str]:
    """What was found, by model, of those of `names` that are to be trained again now; `now`: UTC, ISO 8601.

    Those of an interrupted retrain for drift are given as it was begun, so that it is gone on with.
    """
    runs, champions = site.runs.all(), site.models.champions()
    left = next((run for run in runs if run.kind == "retrain" and run.reasons and run.ended is None), None)
    if left is not None and set(left.models) <= set(names):
        return {name: left.reasons.get(name, "") for name in left.models}
    found = {}
    for name in names:
        spec = site.plant.model(name).retrain.drift
        if spec is None or name not in champions or rests(name, spec, runs, now):
            continue
        if reason := _reason(site, name, spec):
            found[name] = reason
    return found


def rests(name: str, spec: DriftSpec, runs: Sequence[Run], now: str) -> bool:
    """Whether the model was retrained so lately that it is not trained again for drift. `runs`: newest first."""
    last = next((run for run in runs if run.kind == "retrain" and name in run.models), None)
    if last is None:
        return False
    passed = datetime.fromisoformat(now) - datetime.fromisoformat(last.begun)
    return passed.total_seconds() * 1e9 < spec.pause_ns


def _reason(site: Site, name: str, spec: DriftSpec) -> str:
    """What of its drift has it trained again; none: ""."""
    try:
        findings = drift(site, name, f"-{duration_text(spec.over_ns)}", None)["findings"]
    except (ModelError, QueryError) as error:
        log.warning("%s: its drift cannot be told: %s", name, error)
        return ""
    if any(found["kind"] == Kind.FAULT for found in findings):
        log.warning("%s: is not trained again for drift, as a sensor is at fault: %s", name, findings[0]["told"])
        return ""
    wanted = [f"{found['kind']}: {found['what']}" for found in findings if found["kind"] in spec.kinds]
    return ", ".join([*wanted[:MOST], *([f"{len(wanted) - MOST} more"] if len(wanted) > MOST else [])])
