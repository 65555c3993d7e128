"""A site's challengers: how one is put beside its champion, and how it leaves.

    card (since when, until when) ─► Triton, as NAME#challenger ─► the record of deployments: "challenge" ... "dismiss"

Each step finds what a killed one left and does it again. What comes of a trial is `trials`' to say.
"""

from __future__ import annotations

import getpass
import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from penstock import deploying
from penstock.data.challengers import as_challenger, challenger_of, is_challenger, model_of
from penstock.data.durations import DURATION, parse_duration
from penstock.data.models import Artifact, ModelStore
from penstock.data.plant import HOUR_NS
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelError, ModelNotFound, ServingError
from penstock.judging import alike
from penstock.retrain_lock import alone, now
from penstock.serving.deploy import Deployer

if TYPE_CHECKING:
    from penstock.site import Site

WEEK_NS = 7 * 24 * HOUR_NS
"""How long a challenger is scored where nobody says it."""

Told = Callable[[str, str], None]

log = logging.getLogger(__name__)


def challenge(
    site: Site, name: str, version: int | None = None, span: str | None = None, why: str = "",
    told: Told = lambda step, name: None,
) -> str:  # fmt: skip
    """`Site.challenge`; name@version. Raises ModelError where it cannot be compared with the champion, RetrainBusy."""
    artifact, for_ns = site.artifact(name, version), None if span is None else _span_ns(span)
    model = site.plant.models.get(name)
    usual = None if model is None else model.retrain.live_ns
    with alone(site.runs.folder, now()):
        begin(site, artifact, for_ns or usual or WEEK_NS, why, told)
    return f"{name}@{artifact.version}"


def begin(
    site: Site, artifact: Artifact, for_ns: int, why: str, told: Told = lambda step, name: None
) -> None:  # fmt: skip
    """`artifact` is scored at every tick from now on; one that was before is no more.

    Raises Refused, ServingError, ModelError; the champion answers in any case.
    """
    name, version = artifact.name, artifact.version
    _check(site, artifact)
    if (other := site.models.challenger(name)) not in (None, version):
        dismiss(site, name, f"gives way to {name}@{version}")
    gate = dict(artifact.card.get("gate") or {})
    site.models.note(name, version, "gate", gate | {"live": _trial(site, for_ns)})
    told("tried", name)
    with deploying.challengers(site, name, told) as deployer:
        deployer.deploy(as_challenger(artifact))
    if other != version:
        site.models.record(name, version, "challenge", getpass.getuser(), why=why)
    told("challenging", name)


def dismiss(site: Site, name: str, why: str = "", told: Told = lambda step, name: None) -> str:
    """The challenger of `name` is scored no more; name@version. Raises ModelNotFound where there is none."""
    version = site.models.challenger(name)
    if version is None:
        raise ModelNotFound(f"{name}: has no challenger; see: penstock challengers")
    site.models.record(name, version, "dismiss", getpass.getuser(), why=why)
    told("dismissed", name)
    if site.parts.has_triton():
        deploying.leave(site, name, told)
    return f"{name}@{version}"


def wanted(store: ModelStore) -> dict[str, int]:
    """What Triton is to hold: version by the name that it is scored under, champions first."""
    challengers = {challenger_of(name): version for name, version in store.challengers().items()}
    return store.champions() | challengers


def load(store: ModelStore, name: str, version: int) -> Artifact:
    """A champion or, by its name, a challenger as it is deployed. Raises ModelError."""
    artifact = store.load(model_of(name), version)
    return as_challenger(artifact) if is_challenger(name) else artifact


def tidy(site: Site) -> None:
    """Take challengers off Triton that the record knows no more, and bring those that it lacks; where one is up."""
    if not site.parts.has_triton() or not any(row.action == "challenge" for row in site.models.history()):
        return
    there = site.models.challengers()
    try:
        with Deployer(site.parts.endpoints()) as deployer:
            held = {model_of(name) for name in deployer.held() if is_challenger(name)}
        for name in held - there.keys():
            deploying.leave(site, name)
        for name in there.keys() - held:
            with deploying.challengers(site, name) as deployer:
                deployer.deploy(load(site.models, challenger_of(name), there[name]))
    except (ServingError, ModelError) as error:
        log.warning("challengers could not be put in order on Triton, the next look tries again: %s", error)


def _span_ns(text: str) -> int:
    try:
        found = parse_duration(text)
    except ValueError:
        found = 0
    if found <= 0:
        raise ModelError(f"a challenger is scored for {text!r}; give {DURATION}")
    return found


def _check(site: Site, artifact: Artifact) -> None:
    """Raises ModelError where there is nothing to compare it with, or where it would cost the champion something."""
    name, champion = artifact.name, site.models.champion(artifact.name)
    if champion is None:
        raise ModelError(f"{name}: is not live, so there is nobody to challenge; do: penstock deploy {name}")
    if champion == artifact.version:
        raise ModelError(f"{name}@{champion}: is live already; challenge it with another version")
    mine, theirs = _spec(artifact.card), _spec(site.models.card(name, champion))
    if not alike(mine, theirs):
        raise ModelError(f"{name}@{champion} predicts another target, or at another horizon: nobody can be better")
    most = max(_spec(site.models.card(n, v)).wait for n, v in site.models.champions().items())
    if mine.wait > most:
        raise ModelError(
            f"{name}@{artifact.version}: waits {mine.wait} ticks for joined tags, the live models {most} at most: "
            "every model's answers would come so much later; judge it on history: penstock compare"
        )


def _spec(card: Mapping[str, Any]) -> WindowSpec:
    return WindowSpec.from_json(card["spec"])


def _trial(site: Site, for_ns: int) -> dict[str, Any]:
    """From the next tick to be said, for so long."""
    desk, grid = site.desk(), site.readings.grid
    view, since = desk.speed(), None
    if view is not None:
        with closing(view):
            since = view.last_tick()
    since = desk.newest() if since is None else since + 1
    return {"since": since, "until": since + max(1, -(-for_ns // grid.period_ns)), "verdict": None, "passed": None}
