"""Moving champions on purpose: promotion of a judged version, roll-back to the one before, and what the log says of it.

The record (`data/deployments.py`) is written after Triton has answered: a kill between the two leaves the former
champion in it, which the next start of a stream puts back, or the same command finishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock import deploying
from penstock.data.deployments import BESIDE, Deployment, answering, previous
from penstock.errors import ModelError, ModelNotFound, Refused

if TYPE_CHECKING:
    from penstock.site import Site


def promote(site: Site, name: str, version: int | None = None, why: str = "") -> dict[str, Any]:
    """The newest version answers, where the gate has let it pass; a `version` that is named does, whatever was found.

    Raises Refused with the gate's reason, ModelNotFound, and what a deploy raises; the version before then still
    answers.
    """
    artifact = site.artifact(name, version)
    gate = artifact.card.get("gate")
    if version is None and not _passed(gate or {}):
        raise Refused(
            f"{name}@{artifact.version}: {_judged(gate)}; to have it all the same: "
            f"penstock promote {name}@{artifact.version}"
        )
    if site.models.champion(name) == artifact.version:
        raise ModelError(f"{name}@{artifact.version}: is live already; see: penstock audit {name}")
    return deploying.one(site, artifact, "promote", why or _judged(gate))


def rollback(site: Site, name: str, why: str = "") -> dict[str, Any]:
    """The version that answered before the champion does so again. Raises ModelNotFound where there is none."""
    history = site.models.history(name)
    champion, target = answering(history).get(name), previous(history)
    if champion is None:
        raise ModelNotFound(f"{name}: is not live; see: penstock models")
    if target is None:
        raise ModelNotFound(f"{name}: nothing answered before {name}@{champion}; see: penstock audit {name}")
    return deploying.one(site, site.artifact(name, target), "rollback", why)


def audit(site: Site, name: str | None = None) -> list[dict[str, Any]]:
    """Every move of every champion and challenger, or of one model's, oldest first; see `Deployment`.

    `from`, `to`: versions; a challenger comes from nowhere, and goes there.
    """
    if name is not None:
        site.spec(name)  # a wrong name is told
    return [_told(row) for row in site.models.history(name)]


def _passed(gate: Mapping[str, Any]) -> bool:
    """By its live trial, where that came to an end, else by history."""
    live = gate.get("live") or {}
    return bool(gate.get("passed") if live.get("passed") is None else live["passed"])


def _told(row: Deployment) -> dict[str, Any]:
    off, beside = row.action in ("undeploy", "dismiss"), row.action in BESIDE
    return {
        "id": row.id,
        "at": row.at,
        "who": row.who,
        "action": row.action,
        "model": row.name,
        "from": row.version if off else None if beside else row.before,
        "to": None if off else row.version,
        "snapshot": row.snapshot,
        "why": row.why,
    }


def _judged(gate: Mapping[str, Any] | None) -> str:
    live = (gate or {}).get("live") or {}
    if live.get("verdict") is not None:
        return f"live: {live['why']}"
    why = (gate or {}).get("why")
    return "was not judged by the gate" if why is None else f"the gate says: {why}"
