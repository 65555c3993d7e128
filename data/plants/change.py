"""One difference between two plants, and what a site holds that decides what it means.

Values only: what a difference is, is found in `difference.py` and beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.data.durations import duration_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference, as people read it."""

    kind: str
    """Such as ``tag added``: what it is about, and what happens to it."""
    what: str
    """Name of the tag, model, source ...; the new one where it changes. Empty: the plant itself."""
    before: str = ""
    after: str = ""
    effect: str
    """What it means for what is stored and for what runs."""
    refused: str | None = None
    """Why it cannot be done, and what can be instead; None: it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a site holds, as far as a change depends on it."""

    owners: Mapping[str, str] = field(default_factory=dict)
    """Of each name and former name in the tag registry: the tag's current name there."""
    trained: frozenset[str] = frozenset()
    """Models with a stored version."""
    live: Mapping[str, int] = field(default_factory=dict)
    """The version that answers, by model."""
    reads: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By live model: the stored tags (current names) that its own card needs, its truth among them."""
    sessions: frozenset[str] = frozenset()
    """MQTT sources whose session at the broker is called after the plant."""


NOTHING = Standing()
"""A site that holds nothing yet."""


def told(values: Iterable[tuple[str, object]]) -> str:
    """``range [0, 50], max_gap 3min``: keys of the file with their values."""
    return ", ".join(f"{key.removesuffix('_ns')} {_value(key, value)}" for key, value in values)


def differing(before: object, after: object, keys: Iterable[str]) -> tuple[str, str] | None:
    """Those of `keys` (attributes of both) that differ, as text on either side; None where none does."""
    found = [key for key in keys if getattr(before, key) != getattr(after, key)]
    if not found:
        return None
    return told((k, getattr(before, k)) for k in found), told((k, getattr(after, k)) for k in found)


def listed(names: Iterable[str], most: int = 4) -> str:
    """Some of many names."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _value(key: str, value: object) -> str:
    match value:
        case None | "" | ():
            return "none"
        case int() if key.endswith("_ns"):
            return duration_text(value)
        case tuple() if key.endswith("_ns"):
            return f"[{', '.join(duration_text(one) for one in value)}]"
        case tuple():
            return f"[{', '.join(str(one) for one in value)}]"
    return str(value)
