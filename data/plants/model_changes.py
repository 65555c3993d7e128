"""What becomes of models from one plant to the next.

A version that is live stands by itself: its card says how its windows are cut. So what plant.toml says of a model
counts from the next training on, but for what is asked beside live predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from penstock.data.plant import LiveSpec, ModelSpec, Plant, RetrainSpec
from penstock.data.plants.change import Change, Standing, differing
from penstock.data.plants.tag_changes import Same, form

MEANING = ("targets", "horizon_ns")
WINDOWS = ("inputs", "prepare", "past_target", "step_ns", "window", "every_ns")
FITTING = ("lstm", "network", "isolate")
RETRAIN = tuple(field.name for field in fields(RetrainSpec))
LIVE = tuple(field.name for field in fields(LiveSpec))


def model_changes(old: Plant, new: Plant, same: Same, standing: Standing) -> Iterator[Change]:
    """Every change of a model, in the order of the new file; what is removed last."""
    for name, model in new.models.items():
        if name in old.models:
            yield from _changed(_renamed(old.models[name], same), model, same, standing)
        else:
            after = f"{', '.join(model.inputs) or 'past'} -> {', '.join(model.targets)}"
            todo = f"penstock train {name}; penstock deploy {name}"
            yield Change(kind="model added", what=name, after=after, effect=f"answers after: {todo}")
    for name in old.models:
        if name not in new.models:
            yield _removed(name, standing)


def _removed(name: str, standing: Standing) -> Change:
    version = standing.live.get(name)
    effect = "its versions and what it said stay"
    if version is not None:
        effect = f"{name}@{version} goes on answering until: penstock undeploy {name}; {effect}"
    return Change(kind="model removed", what=name, effect=effect)


def _renamed(model: ModelSpec, same: Same) -> ModelSpec:
    """An old model as if its tags had always been called as they are now."""
    return replace(
        model,
        targets=tuple(map(same.name, model.targets)),
        inputs=tuple(map(same.name, model.inputs)),
        prepare={same.name(name): steps for name, steps in model.prepare.items()},
    )


def _changed(before: ModelSpec, model: ModelSpec, same: Same, standing: Standing) -> Iterator[Change]:
    """`before` has its tags' names of now, but in `when`, which is text."""
    name, version = model.name, standing.live.get(model.name)
    train = f"counts after: penstock train {name}; penstock deploy {name}"
    until = f"; {name}@{version} goes on as its own card says until then" if version is not None else ""
    other = "what it said was of another target or time; give the new one a name of its own"
    refused = other if name in standing.trained else None
    windows = [*WINDOWS] + (["when"] if same.text(before.when) != form(model.when) else [])
    found = (
        ("model meaning", differing(before, model, MEANING), train, refused),
        ("model windows", differing(before, model, windows), f"{train}{until}", None),
        ("model fitting", differing(before, model, FITTING), "of versions trained from now on", None),
        ("model retrain", differing(before.retrain, model.retrain, RETRAIN), "of retrains from now on", None),
        ("model live", differing(before.live, model.live, LIVE), "of what is said from now on", None),
    )
    for kind, sides, effect, why in found:
        if sides is not None:
            yield Change(kind=kind, what=name, before=sides[0], after=sides[1], effect=effect, refused=why)
