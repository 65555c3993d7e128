"""The form a `WindowSpec` has in JSON: in cards and in the parameters of a Triton alias.

Every field is written, defaults too: a default that changes in later code
must not change the windows of a model trained today. `FORMAT` counts up when a
key changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from math import isfinite
from typing import Any, TypeVar

from penstock.data.plant import PrepareStep, Tag
from penstock.errors import ModelError

Spec = TypeVar("Spec")

FORMAT = 1
LISTS = ("base_tags", "truth_tags", "derived")
ADDED: Mapping[str, Any] = {"ahead_ns": 0, "join": "last", "join_delay_ns": 0, "valid": None}
"""Keys of a tag that cards written before they existed lack, and what was always so then."""


def dump(spec: Any) -> dict[str, Any]:
    """A WindowSpec as dicts, lists, text and numbers."""
    plain: dict[str, Any] = {"format": FORMAT} | _lists(asdict(spec))
    for key in LISTS:
        for tag in plain[key]:
            tag["range"] = tag["range"] and [_write(bound) for bound in tag["range"]]
    return plain


def load(kind: type[Spec], feature: type[Any], found: Mapping[str, Any]) -> Spec:
    """The `kind` (WindowSpec, with features of class `feature`) that `dump` wrote. Raises ModelError."""
    if found.get("format") != FORMAT:
        raise ModelError(
            f"window spec: found format {found.get('format')!r}; this version reads {FORMAT}. "
            "Train the model again, or read it with the version that wrote it."
        )
    values = {key: value for key, value in found.items() if key != "format"}
    try:
        for key in LISTS:
            values[key] = tuple(_tag(tag) for tag in values[key])
        values["features"] = tuple(_feature(feature, one) for one in values["features"])
        values.setdefault("base_ahead", [0] * len(values["base_tags"]))
        for key in ("targets", "target_units", "lags", "base_ahead"):
            values[key] = tuple(values[key])
        return kind(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"window spec: damaged ({error}); restore the artifact's card or train again.") from None


def _lists(value: Any) -> Any:
    """Tuples become lists, as JSON has no tuples."""
    match value:
        case dict():
            return {key: _lists(item) for key, item in value.items()}
        case list() | tuple():
            return [_lists(item) for item in value]
    return value


def _write(bound: float) -> float | str:
    return bound if isfinite(bound) else str(bound)


def _tag(found: Mapping[str, Any]) -> Tag:
    found = {**ADDED, **found}
    _known(Tag, found)
    bounds = found["range"]
    low_high = (_read(bounds[0]), _read(bounds[1])) if bounds else None
    return Tag(**{**found, "range": low_high, "aliases": tuple(found["aliases"])})


def _read(bound: float | str) -> float:
    return float(bound) if isinstance(bound, str) else bound


def _feature(kind: type[Any], found: Mapping[str, Any]) -> Any:
    _known(kind, found)
    return kind(**{**found, "steps": tuple(PrepareStep(**step) for step in found["steps"])})


def _known(kind: type[Any], found: Mapping[str, Any]) -> None:
    """All fields must stand there: one left out would take today's default."""
    missing = [f.name for f in fields(kind) if f.name not in found]
    if missing:
        raise ValueError(f"{kind.__name__} without {', '.join(missing)}")
