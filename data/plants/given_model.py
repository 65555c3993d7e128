"""A model that is described in a call instead of in plant.toml, read by the same code and told in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.data.plant import MODEL_NAME, ModelSpec, Plant, usable_name
from penstock.data.plants.model_table import Scope, read_model
from penstock.data.plants.plant_file import needs
from penstock.data.plants.tables import Mistakes, Table, shown
from penstock.data.plants.templates import Names
from penstock.errors import ModelError, PlantError

_FIELDS = {
    "target": "targets",
    "inputs": "inputs",
    "prepare": "prepare",
    "past_target": "past_target",
    "step": "step_ns",
    "window": "window",
    "every": "every_ns",
    "horizon": "horizon_ns",
    "when": "when",
}
"""Per key of a table: the field of `ModelSpec` that it decides."""


def given_model(name: str, keys: Mapping[str, Any], plant: Plant) -> ModelSpec:
    """The model called `name` that the keys of a [model.x] table describe; [defaults.model] does not hold for it.

    Raises PlantError with every mistake.
    """
    mistakes = Mistakes(f"model {name!r}")
    if not usable_name(name):
        mistakes.add("name", shown(name), MODEL_NAME)
    scope = Scope(
        folder=Path(),
        period_ns=plant.period_ns,
        tags=plant.tags,
        names=Names(list(plant.tags)),
        needs=needs(plant.tags, mistakes),
        timezone=plant.timezone,
    )
    model = read_model(name, Table([("", _plain(keys))], mistakes), scope)
    if mistakes.found:
        raise PlantError(mistakes.listed())
    return model


def agreeing(model: ModelSpec, keys: Mapping[str, Any], plant: Plant) -> ModelSpec:
    """`model`, where the keys say the same as plant.toml. Raises ModelError naming the first that does not."""
    own = {
        "target": list(model.targets),
        "inputs": list(model.inputs),
        "past_target": model.past_target,
        "step": f"{model.step_ns}ns",
        "window": f"{model.window * model.step_ns}ns",
    }
    said = given_model(model.name, own | dict(keys), plant)
    for key in keys:
        ours, theirs = getattr(model, _FIELDS[key]), getattr(said, _FIELDS[key])
        if ours != theirs:
            raise ModelError(
                f"model {model.name!r}: {key} = {shown(keys[key])} is not what plant.toml says of this model; "
                "leave it out, or change plant.toml, or deploy under another name"
            )
    return model


def _plain(value: Any) -> Any:
    """As TOML would have it: a tuple is a list."""
    match value:
        case tuple() | list():
            return [_plain(one) for one in value]
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
    return value
