"""From a site's store to Triton, and into its list of deployments: one model, many, or none any more.

A challenger that becomes the champion, or whose model answers no more, leaves Triton with that.
"""

from __future__ import annotations

import getpass
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from penstock.data.challengers import challenger_of
from penstock.data.deployments import Action
from penstock.data.models import Artifact
from penstock.errors import ModelNotFound, Refused, ServingError
from penstock.pipeline import Progress
from penstock.serving.deploy import Deployer
from penstock.serving.optimize import optimize

if TYPE_CHECKING:
    from penstock.site import Site

log = logging.getLogger(__name__)

Told = Callable[[str, str], None]


def one(
    site: Site, artifact: Artifact, action: Action | None = None, why: str = "", *, token: str | None = None,
    told: Told = lambda step, name: None,
) -> dict[str, Any]:  # fmt: skip
    """`artifact` answers on every endpoint. Raises Refused, ServingError; the version before it then still answers.

    `action` and `why` are for the audit log; None: a deploy, or a roll-back where the version is an older one. A deploy
    that was killed is taken over by the next one of the same `token`. `told` hears of each step.
    """
    before = site.models.champion(artifact.name)
    with Deployer(site.parts.endpoints(), token=token, told=told) as deployer:
        done = deployer.deploy(artifact)
    _record(site, artifact, before, action, why, told)
    return {"live": f"{done.name}@{done.version}", "before": before, "slots": list(done.slots)}


def optimized(site: Site, tolerance: float) -> list[dict[str, Any]]:
    """The fastest right way for each shape, by endpoint; into the cards of the models that are live there.

    Raises BadRequest for a tolerance that is none, ServingError, ModelError.
    """
    found = optimize(site.parts.endpoints(), tolerance)
    for group in found:
        execution = {k: group[k] for k in ("endpoint", "group", "variant", "tolerance", "machine", "table")}
        for name, version in group["live"].items():
            if version in site.models.versions(name):
                site.models.note(name, version, "execution", execution)
    return found


def many(site: Site, artifacts: Sequence[Artifact], progress: Progress | None) -> dict[str, Any]:
    """Each goes live by itself and is recorded at once; the refused ones are told at the end."""
    live, refused = [], {}
    with Deployer(site.parts.endpoints()) as deployer:
        for artifact, done in zip(artifacts, deployer.deploy_all(artifacts), strict=True):
            if isinstance(done, Refused):
                refused[artifact.name] = str(done)
            else:
                _record(site, artifact, site.models.champion(artifact.name))
                live.append(f"{done.name}@{done.version}")
            if progress is not None:
                progress(len(live) + len(refused), len(artifacts), artifact.name)
    return {"live": live, "refused": refused}


def none(site: Site, name: str) -> dict[str, Any]:
    """`name` answers no more. Raises ModelNotFound for one that does not."""
    champion = site.models.champion(name)
    if champion is None:
        raise ModelNotFound(f"{name}: is not live; see: penstock models")
    with Deployer(site.parts.endpoints()) as deployer:
        deployer.undeploy(name)
    challenger = site.models.challenger(name)
    site.models.record(name, champion, "undeploy", getpass.getuser())
    if challenger is not None:
        leave(site, name)
    return {"undeployed": f"{name}@{champion}"}


def leave(site: Site, name: str, told: Told = lambda step, name: None) -> None:
    """The challenger of `name` is scored no more. The champion's move stands whatever comes of it: what is left is
    taken away by the next look at trials, or start of a stream."""
    try:
        with challengers(site, name, told) as deployer:
            deployer.undeploy(challenger_of(name))
    except (ServingError, Refused) as error:
        log.warning("the challenger of %s could not be taken off Triton yet: %s", name, error)
    else:
        told("off", name)


def challengers(site: Site, name: str, told: Told = lambda step, name: None) -> Deployer:
    """Deploys the challenger of `name`; whoever was killed at it is taken over from."""
    return Deployer(site.parts.endpoints(), token=f"challenger of {name}", told=told)


def _record(
    site: Site, artifact: Artifact, before: int | None, action: Action | None = None, why: str = "",
    told: Told = lambda step, name: None,
) -> None:  # fmt: skip
    if action is None:
        action = "rollback" if before is not None and artifact.version < before else "deploy"
    challenger = site.models.challenger(artifact.name)
    site.models.record(artifact.name, artifact.version, action, getpass.getuser(), why=why)
    told("recorded", artifact.name)
    if challenger == artifact.version:
        leave(site, artifact.name, told)
