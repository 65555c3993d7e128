"""A demo's fleets: which models belong together, who of them is fit to be deployed, and what a tick of all costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.site import Site


def fleets(names: Iterable[str]) -> dict[str, list[str]]:
    """Members by template: ``nox.U001`` and ``nox.U002`` are of ``nox``; a name without a point stands alone."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return found


def unfit(site: Site, name: str) -> str | None:
    """Why a model is not deployed: it was not trained, or is no better than persistence; None where it is fit."""
    versions = site.models.versions(name)
    if not versions:
        reasons = (run.failed[name] for run in site.runs.all() if name in run.failed)
        return next(reasons, "not trained")
    for target, row in site.models.card(name, versions[-1])["metrics"].items():
        bar = row.get("persistence_rmse")
        if bar is not None and not row["rmse"] < bar:
            return (
                f"{target}: RMSE {row['rmse']:.4g} on its validation span is not below persistence's {bar:.4g}; "
                "train it longer, or on more history"
            )
    return None


def told(site: Site, streamed: Mapping[str, Any]) -> dict[str, Any]:
    """``fleets`` and ``not_deployed`` of the report. One request asks all members: its time is every fleet's."""
    live = site.models.champions()
    ticks = streamed["tick_ms"]
    return {
        "fleets": {
            fleet: {
                "members": sum(name in live for name in members),
                "tick_p50_ms": ticks["p50"],
                "tick_p99_ms": ticks["p99"],
            }
            for fleet, members in fleets(site.plant.models).items()
        },
        "not_deployed": {name: unfit(site, name) or "undeployed" for name in site.plant.models if name not in live},
    }
