"""Triton's model repository as text: the engine's folder and config, and the aliases' configs.

Knows file layouts and config keys; starts nothing, talks to nobody. The engine's
modules are byte-compiled when they are laid out: a file that appears under a
served model's folder later makes the next alias load reload the whole engine.

Aliases have files only while a server starts. Later they come and go over gRPC, and
a file that stayed would bring an old version back to whoever loads it by its name.
"""

from __future__ import annotations

import json
import py_compile
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from penstock.serving.kept import Kept, Mark

ENGINE = "engine"
SIDE = 64
"""Slots stand in rows of so many, for their names alone; `backend/model.py` knows it too."""
_MODULES = (
    *("model.py", "tick.py", "slots.py", "admission.py", "view.py", "golden.py", "host.py", "group.py", "forward.py"),
    *("kernel.py", "variants.py", "trials.py", "choices.py", "pieces.py", "bank.py", "streamed.py"),
    *("onnx_graph.py", "onnx_sessions.py", "solo_trials.py", "tuner.py", "durable.py"),
    *("solo.py", "isolated.py", "child.py", "guest.py", "link.py", "framing.py"),
)

_MAPS = ("input_map", "output_map", "parameters")
"""Keys of a config whose values are maps: any key to a value."""

_TICK_INPUTS = (
    ("entries", "TYPE_INT64", "-1, 4"),
    ("rows", "TYPE_FP32", "-1"),
    ("stream", "TYPE_INT64", "1"),
)
_TICK_OUTPUTS = (
    ("values", "TYPE_FP32", "-1"),
    ("told", "TYPE_INT64", "-1, 4"),
    ("generation", "TYPE_INT64", "1"),
)


def lay_out(models: Path, state: Path, capacity: int, members: Iterable[Kept] = ()) -> dict[str, Mark]:
    """Write `models` afresh, with the engine and the aliases of `members` in it; `state` is where its slots are kept.

    Returns the marks of the members whose aliases are there now, by name; one whose name no folder can have is not.
    """
    if models.exists():
        shutil.rmtree(models)
    folder = models / ENGINE
    version = folder / "1"
    version.mkdir(parents=True)
    source = files("penstock.serving.backend")
    for name in _MODULES:
        (version / name).write_bytes(source.joinpath(name).read_bytes())
        py_compile.compile(str(version / name), doraise=True)
    (folder / "config.pbtxt").write_text(engine_config(state, capacity))
    return {member.name: member.mark for member in members if _alias_laid(models / member.name, member)}


def _alias_laid(folder: Path, member: Kept) -> bool:
    with suppress(OSError, ValueError):
        (folder / str(member.version)).mkdir(parents=True)
        config = alias_of(member.name, member.slot, member.shape, member.card)
        (folder / "config.pbtxt").write_text(alias_text(config))
        return True
    return False


def clear_aliases(models: Path, names: Iterable[str]) -> None:
    """Leave of each alias' files the empty folder by which Triton's index knows it; a loaded alias needs no files."""
    for name in names:
        with suppress(OSError):  # withdrawn meanwhile
            for path in (models / name).iterdir():
                path.rmdir() if path.is_dir() else path.unlink()


def engine_config(state: Path, capacity: int) -> str:
    """config.pbtxt of the engine: every input is optional, a request gives those of its kind."""
    inputs = [("admin", "TYPE_UINT8", "-1"), *_TICK_INPUTS]
    names = dict.fromkeys(name for slot in range(capacity) for name in inputs_of(slot))
    inputs += [(name, "TYPE_FP32", "-1, -1, -1") for name in names]
    outputs = [("answer", "TYPE_UINT8", "-1"), *_TICK_OUTPUTS]
    outputs += [("prediction", "TYPE_FP32", "-1, -1"), ("version", "TYPE_INT64", "1")]
    lines = ['backend: "python"', "max_batch_size: 0", "instance_group [{ kind: KIND_CPU count: 1 }]"]
    lines += [f'input [{{ name: "{n}" data_type: {t} dims: [{d}] optional: true }}]' for n, t, d in inputs]
    lines += [f'output [{{ name: "{n}" data_type: {t} dims: [{d}] }}]' for n, t, d in outputs]
    for key, value in {"state": str(state), "capacity": str(capacity)}.items():
        lines.append(f'parameters {{ key: "{key}" value: {{ string_value: {json.dumps(value)} }} }}')
    return "\n".join(lines) + "\n"


def inputs_of(slot: int) -> tuple[str, str]:
    """The two inputs of the engine that the alias of `slot` fills, both with its window.

    An ensemble can give its steps no constant, but which inputs it fills is one. Two names for a slot instead of one
    keep the engine's configuration short, of which Triton holds a copy per alias.
    """
    return f"window.{slot // SIDE}", f"place.{slot % SIDE}"


def alias_config(name: str, slot: int, shape: tuple[int, int, int], card: Mapping[str, Any]) -> str:
    """`alias_of` as JSON, for a load over gRPC."""
    return json.dumps(alias_of(name, slot, shape, card))


def alias_of(name: str, slot: int, shape: tuple[int, int, int], card: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the ensemble `name`, mapped to `slot`; shape is (T, F, O).

    Its parameters are what a stock client needs to build the request.
    """
    rows, features, outputs = shape
    step = {
        "model_name": ENGINE,
        "model_version": -1,
        "input_map": dict.fromkeys(inputs_of(slot), "window"),
        "output_map": {"prediction": "prediction", "version": "version"},
    }
    return {
        "name": name,
        "platform": "ensemble",
        "input": [{"name": "window", "data_type": "TYPE_FP32", "dims": [-1, rows, features]}],
        "output": [
            {"name": "prediction", "data_type": "TYPE_FP32", "dims": [-1, outputs]},
            {"name": "version", "data_type": "TYPE_INT64", "dims": [1]},
        ],
        "ensemble_scheduling": {"step": [step]},
        "parameters": {k: {"string_value": v} for k, v in alias_parameters(slot, card).items()},
    }


def alias_text(config: Mapping[str, Any]) -> str:
    """The same config in the form of config.pbtxt (protobuf's text format, whose strings are written as JSON's are)."""
    return "\n".join(_lines(config)) + "\n"


def _lines(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        if key in _MAPS:
            yield from (f"{key} {{ key: {json.dumps(k)} value{_value(k, v)} }}" for k, v in value.items())
        else:
            yield from (f"{key}{_value(key, one)}" for one in (value if isinstance(value, list) else [value]))


def _value(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f" {{ {' '.join(_lines(value))} }}"
    return f": {value if key == 'data_type' else json.dumps(value)}"


def alias_parameters(slot: int, card: Mapping[str, Any]) -> dict[str, str]:
    """The alias' parameters from an artifact's card: JSON texts, except for plain words."""
    spec: Mapping[str, Any] = card["spec"]
    features: Sequence[Mapping[str, Any]] = spec["features"]
    trained = card.get("trained", {})

    def span(ticks: int) -> dict[str, int]:
        return {"ticks": ticks, "ns": ticks * spec["period_ns"]}

    parameters = {
        "spec": spec,
        "inputs": [f["name"] for f in features],
        "units": [f["unit"] for f in features],
        "step": span(spec["stride"]),
        "prepare": {f["name"]: {k: f[k] for k in ("tag", "steps", "lag", "past_target")} for f in features},
        "window": spec["length"],
        "target": spec["targets"],
        "target_unit": card["units"],
        "horizon": span(spec["horizon"]),
        "trained": trained,
        "snapshot": trained.get("snapshot", ""),
        "slot": slot,
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in parameters.items()}
