"""Derived tags: quantities computed from other tags' assessed values, never stored.

Batch and speed call `derive` on the same assessed rows. A derived value is
BAD where any of its inputs is, or where the result is no finite number or
lies outside the tag's own range; its other flags are those of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.data.block import Block, Flag
from penstock.data.expressions import evaluate, names
from penstock.data.plant import Tag
from penstock.errors import Mistake, PlantError, nearest


def stored_tags(wanted: Iterable[str], tags: Mapping[str, Tag]) -> tuple[Tag, ...]:
    """The stored tags that `wanted` come from, each once, in order of need.

    Raises PlantError for a name that is not among `tags` or that needs itself.
    """
    return tuple(t for t in _needed(wanted, tags) if t.expr is None)


def derived_tags(wanted: Iterable[str], tags: Mapping[str, Tag]) -> tuple[Tag, ...]:
    """The derived tags among what `wanted` come from, each after what it needs. Raises like `stored_tags`."""
    return tuple(t for t in _needed(wanted, tags) if t.expr is not None)


def derive(block: Block, wanted: Sequence[str], derived: Sequence[Tag]) -> Block:
    """A block with the columns of `wanted`, stored or derived, in that order.

    `derived` holds the derived tags in order of evaluation; only those that are needed are computed.
    Raises QueryError when `block` lacks a stored tag.
    """
    of = {t.name: t for t in derived}
    if not any(name in of for name in wanted):
        return block.columns(wanted)
    needed = _reachable(wanted, of)
    have = block.columns([name for name in needed if name not in of])
    for tag in derived:
        if tag.name in needed:
            have = have.beside(_computed(have, tag))
    return have.columns(wanted)


def _reachable(wanted: Sequence[str], of: Mapping[str, Tag]) -> dict[str, None]:
    found: dict[str, None] = {}
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += names(of[name].expr or "") if name in of else ()
    return found


def _computed(block: Block, tag: Tag) -> Block:
    """One derived column. Computed in float64, stored as float32 like every value."""
    text = tag.expr or ""
    inputs = block.columns(names(text))
    columns = {name: inputs.values[:, i].astype(np.float64) for i, name in enumerate(inputs.tags)}
    with np.errstate(over="ignore"):
        values = evaluate(text, columns, len(block.values)).astype(np.float32)
    flags = np.bitwise_or.reduce(inputs.flags, axis=1, dtype=np.uint16)
    out = _outside(values, tag)
    flags |= out * np.uint16(Flag.RANGE)
    bad = ((flags & Flag.BAD) != 0) | ~np.isfinite(values) | out
    flags |= bad * np.uint16(Flag.BAD)
    values = np.where(bad, np.float32(np.nan), values)
    return Block(first=block.first, tags=(tag.name,), values=values[:, None], flags=flags[:, None])


def _outside(values: NDArray[np.float32], tag: Tag) -> NDArray[np.bool_]:
    if tag.range is None:
        return np.zeros(len(values), bool)
    with np.errstate(over="ignore"):
        low, high = np.array(tag.range, np.float64).astype(np.float32)
    return np.asarray((values < low) | (values > high))


def _needed(wanted: Iterable[str], tags: Mapping[str, Tag]) -> tuple[Tag, ...]:
    """Depth first, so that every tag stands after those it is computed from."""
    done: dict[str, Tag] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in done:
            return
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise _mistake(name, f"a derived tag that needs itself: {circle}", "expressions without a circle")
        if name not in tags:
            key = path[-1] if path else name
            raise _mistake(key, f"the tag {name!r}", "a tag of this plant", nearest(name, list(tags)))
        tag = tags[name]
        for part in names(tag.expr) if tag.expr is not None else ():
            visit(part, (*path, name))
        done[name] = tag

    for name in wanted:
        visit(name, ())
    return tuple(done.values())


def _mistake(key: str, found: str, allowed: str, near: str | None = None) -> PlantError:
    return PlantError([Mistake(file="plant.toml", key=f"tags.{key}", found=found, allowed=allowed, near=near)])
