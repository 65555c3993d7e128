"""`penstock retrain`: train again, judge, promote; one command that cron may call, and a kill may end anywhere.

    lock ─► run ─► train what is not stored ─► judge what is not judged ─► promote, or try live, what passed ─► end

Every step looks for what it would leave behind - the version in the store, the verdict in its card, the move in the
record of deployments - before it does anything, so the next call goes on with an interrupted run and does nothing
twice. The champion answers all the while: only the promotion touches it, and that is a deploy like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock import challenging, deploying, known, pipeline, trials
from penstock.batch.plan import Wish
from penstock.data.models import Artifact
from penstock.data.runs import Outcome, Run
from penstock.errors import ModelError, Refused
from penstock.judging import judged
from penstock.retrain_lock import LOCK, alone, now
from penstock.runs import key_of, run_for

if TYPE_CHECKING:
    from penstock.site import Site

__all__ = ["LOCK", "Result", "Retrained", "alone", "now", "retrain"]

Told = Callable[[str, str], None]
"""Hears what was just done, and for which model: stored, trained, judged, noted, challenging, promoted, settled; begun
and ended for none; and what a `Deployer` and `trials` tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one model."""

    model: str
    version: int | None
    """None: it could not be trained."""
    verdict: str | None
    outcome: Outcome | None
    why: str
    """The gate's reason, or what went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    """What a run came to."""

    run: str
    results: tuple[Result, ...]
    """In the order asked for."""


def retrain(
    site: Site,
    names: Sequence[str],
    *,
    now: str,
    anew: bool = False,
    reasons: Mapping[str, str] | None = None,
    progress: pipeline.Progress | None = None,
    told: Told = lambda step, name: None,
) -> Retrained:
    """Retrain, judge and, where plant.toml says ``promote = "auto"``, promote these models of plant.toml.

    Challengers of them that have been scored for long enough are judged before. `now`: UTC, ISO 8601. `anew`: an
    interrupted run is given up. `reasons`: by model, what it drifted to. Raises RetrainBusy where another process is at
    it, ModelNotFound, ModelError; ServingError where a promotion found no Triton: the next call goes on with it.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        known.trainable(site.plant, site.models, name)
    if not len(range(*site.readings.head().span)):
        raise ModelError(f"there is no history to train on; bring it in: penstock import FILE --site {site.folder}")
    key = key_of(site.plant, names, {"command": "retrain"})
    wish = Wish(models=names)
    with alone(site.runs.folder, now):
        trials.end_due(site, names, told)
        with run_for(
            site.runs, site.models, site.readings, wish, key=key, now=now, anew=anew, kind="retrain", reasons=reasons
        ) as run:
            told("begun", "")
            failed = _trained(site, run, progress, told)
            results = tuple(_result(site, run, name, failed, told) for name in names)
        told("ended", "")
    return Retrained(run=run.id, results=results)


def _trained(site: Site, run: Run, progress: pipeline.Progress | None, told: Told) -> Mapping[str, str]:
    """Train what the run has not; reason by model that could not be."""
    if all(name in run.done for name in run.models):
        told("trained", "")
        return {}
    outcome = pipeline.train(
        site.parts.client(), site.desk(), site.plant, site.runs, run, home=site.folder, progress=progress,
        hatch=site.parts.hatch(), stored=lambda name: told("stored", name),
    )  # fmt: skip
    told("trained", "")
    return outcome.failed


def _result(site: Site, run: Run, name: str, failed: Mapping[str, str], told: Told) -> Result:
    """Judge and settle one model that was trained."""
    if name in failed:
        return Result(model=name, version=None, verdict=None, outcome=None, why=failed[name])
    version = next(v for v in reversed(site.models.versions(name)) if site.models.card(name, v).get("run") == run.id)
    if name in run.outcomes:
        gate = site.models.card(name, version)["gate"]
        return Result(model=name, version=version, verdict=gate["verdict"], outcome=run.outcomes[name], why=gate["why"])
    gate = _gate(site, run, site.models.load(name, version), told)
    outcome, why = _settled(site, run, site.models.load(name, version), gate, told)
    site.runs.settled(run.id, name, outcome)
    told("settled", name)
    return Result(model=name, version=version, verdict=gate["verdict"], outcome=outcome, why=why)


def _gate(site: Site, run: Run, artifact: Artifact, told: Told) -> Mapping[str, Any]:
    """The card's verdict, where it is against the version that answers now, else a new one; also into the run."""
    gate: Mapping[str, Any] | None = artifact.card.get("gate")
    moved = site.models.champion(artifact.name) not in ((gate or {}).get("champion"), artifact.version)
    if gate is None or moved:  # a person has moved the champion since
        gate = judged(site, artifact, run.snapshot)
        site.models.note(artifact.name, artifact.version, "gate", gate)
        told("judged", artifact.name)
    site.runs.judged(run.id, artifact.name, gate["verdict"])
    told("noted", artifact.name)
    return gate


def _settled(site: Site, run: Run, artifact: Artifact, gate: Mapping[str, Any], told: Told) -> tuple[Outcome, str]:
    """Promote it or try it live, where it passed; what became of it, and why."""
    name, why, retrain = artifact.name, str(gate["why"]), site.plant.model(artifact.name).retrain
    if (outcome := _already(site, artifact)) is not None:
        return outcome, why
    if not gate["passed"]:
        return "kept", why
    because = f"retrain {run.id}{_drifted(run, name)}: {why}"
    try:
        if retrain.live_ns is not None and gate["verdict"] == "better":
            if (other := site.models.challenger(name)) is not None:
                return "waiting", f"{why}; not tried live, as {name}@{other} is"
            challenging.begin(site, artifact, retrain.live_ns, because, told)
            return "challenging", why
        if retrain.promote == "manual":
            return "waiting", why
        deploying.one(site, artifact, "promote", because, token=run.id, told=told)
    except Refused as refused:
        return "refused", str(refused)
    told("promoted", name)
    return "promoted", why


def _already(site: Site, artifact: Artifact) -> Outcome | None:
    """What became of it before a kill, or by hand; who has rolled it back since meant it."""
    moves = {row.action for row in site.models.history(artifact.name) if row.version == artifact.version}
    if moves & {"deploy", "promote", "rollback"}:
        return "promoted"
    if site.models.challenger(artifact.name) == artifact.version:
        return "challenging"
    return "kept" if "dismiss" in moves else None


def _drifted(run: Run, name: str) -> str:
    return f" for drift ({run.reasons[name]})" if name in run.reasons else ""
