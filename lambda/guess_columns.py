"""What one column of a file seems to be: a name, a unit, a kind, a range, lines too flat to be true. Pure numpy."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.data.durations import duration_text
from penstock.data.expressions import FUNCTIONS

Float = NDArray[np.float64]

_UNIT = re.compile(r"^(?P<name>.*?)\s*(?:\[(?P<square>[^\]]*)\]|\((?P<round>[^)\d][^)]{0,11})\))\s*$")
STATES = 12
"""A column of so few different whole numbers, each for long, is a state."""
FLAT_ROWS = 24
"""Shorter runs of one value are no flat line."""
DECIMALS = 4
"""Of a counter, more are no meaning."""
EXACT = 2.0**24
"""Above this float32 no longer holds every whole number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One tag as it will stand in plant.toml."""

    source: str
    """Its name in the file."""
    name: str
    unit: str
    kind: Literal["value", "counter", "state"]
    double: bool
    """Needs float64."""
    range: tuple[float, float] | None
    flat_after_ns: int | None
    note: str
    """What the comment behind it says."""


def tag_names(sources: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(tag name, unit) by name in the file: names that can stand in expressions, each once.

    A name that is fit already is kept by its owner, whatever becomes of others.
    """
    parsed = {source: _parsed(source) for source in sources}
    taken = {source for source, (name, _) in parsed.items() if source == name}
    found: dict[str, tuple[str, str]] = {}
    for source, (name, unit) in parsed.items():
        if source != name:
            name = _free(name, taken | set(parsed))
            taken.add(name)
        found[source] = (name, unit)
    return found


def guess_columns(series: Mapping[str, Float], period_ns: int) -> tuple[tuple[Column, ...], list[str]]:
    """Columns in order, and what should be looked at. Those without a number are left out."""
    names = tag_names(series)
    columns = [
        _column(source, *names[source], values[np.isfinite(values)], len(values), period_ns)
        for source, values in series.items()
        if np.isfinite(values).any()
    ]
    return tuple(columns), [f"{column.name}: {column.note}" for column in columns if column.note]


def _parsed(source: str) -> tuple[str, str]:
    """(legal name, unit)."""
    text = unicodedata.normalize("NFKC", source).strip()
    match = _UNIT.match(text)
    unit = (match["square"] or match["round"] or "").strip() if match else ""
    bare = match["name"] if match and match["name"].strip() else text
    unit = unit.replace("°", "deg").replace("μ", "u").replace("deg ", "deg").replace('"', "").replace("\\", "")
    name = re.sub(r"\W+", "_", bare).strip("_")
    if not name.isidentifier() or keyword.iskeyword(name) or name in FUNCTIONS or name in ("tag", "x"):
        name = f"T_{name}" if name else "T"
    return name, unit if unit not in ("-", "--") else ""


def _free(name: str, taken: set[str]) -> str:
    """`name`, or the first of name_2, name_3 ... that is not taken."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def _column(source: str, name: str, unit: str, values: Float, rows: int, period_ns: int) -> Column:
    kind = _kind(values)
    flat = _flat_rows(values) if kind == "value" else None
    notes = []
    if values.min() == values.max():
        notes.append(f"never moves from {values[0]:g}")
    if flat is not None:
        notes.append(f"stood still for {duration_text(flat[1] * period_ns)}: a flat line?")
    if len(values) * 2 < rows:
        notes.append(f"{100 * (1 - len(values) / rows):.0f} % empty")
    return Column(
        source=source,
        name=name,
        unit=unit,
        kind=kind,
        double=bool(np.abs(values).max() > EXACT) or (kind == "counter" and not _fits(values)),
        range=_range(values) if kind == "value" else None,
        flat_after_ns=None if flat is None else flat[0] * period_ns,
        note="; ".join(notes),
    )


def _fits(values: Float) -> bool:
    """Whether float32 gives back what was written, to its last decimal. Of a counter, differences are what counts."""
    decimals = next((d for d in range(DECIMALS) if np.array_equal(np.round(values, d), values)), DECIMALS)
    return np.array_equal(np.round(values.astype(np.float32).astype(np.float64), decimals), np.round(values, decimals))


def _kind(values: Float) -> Literal["value", "counter", "state"]:
    whole = bool((values == np.floor(values)).all())
    different = len(np.unique(values))
    if whole and 1 < different <= STATES and len(values) >= 20 * different:
        return "state"
    steps = np.diff(values)
    rising = len(steps) >= 50 and (steps >= 0).mean() > 0.999 and (steps > 0).mean() > 0.3
    return "counter" if rising else "value"


def _range(values: Float) -> tuple[float, float] | None:
    """The middle 99 % widened by its own width on both sides, in round numbers; None where nothing moves."""
    low, high = np.quantile(values, [0.005, 0.995])
    width = float(high - low)
    if width <= 0:
        return None
    unit = 10.0 ** floor(log10(width))
    bottom, top = floor((low - width) / unit) * unit, ceil((high + width) / unit) * unit
    return float(f"{bottom:.6g}"), float(f"{top:.6g}")


def _flat_rows(values: Float) -> tuple[int, int] | None:
    """(rows after which a run is too long, the longest run); None where no run stands out."""
    edges = np.flatnonzero(np.diff(values) != 0)
    runs = np.diff(np.concatenate([[-1], edges, [len(values) - 1]]))
    longest = int(runs.max())
    usual = float(np.quantile(runs, 0.99)) if len(runs) > 1 else float(longest)
    limit = max(FLAT_ROWS, ceil(4 * usual))
    return (limit, longest) if len(runs) > 50 and longest > limit else None
