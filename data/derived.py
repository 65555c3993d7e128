"""Derived tags: quantities computed from other tags' assessed values, never stored. And what others make invalid.

Batch and speed call `derive` on the same assessed rows. A derived value is
BAD where any of its inputs is, or where the result is no finite number or
lies outside the tag's own range; its other flags are those of its inputs. A
stored value is INVALID and BAD where its tag's `valid` does not hold, or has a
bad input; whoever derives from it sees it so.
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
    """The tags among what `wanted` come from that rest on others: derived ones, and those that others make invalid.

    Each stands after what it needs. Raises like `stored_tags`.
    """
    return tuple(t for t in _needed(wanted, tags) if t.needs is not None)


def derive(block: Block, wanted: Sequence[str], derived: Sequence[Tag]) -> Block:
    """A block with the columns of `wanted`, stored or derived, in that order.

    `derived` holds what `derived_tags` gave, in order of evaluation; only what is needed is computed.
    Raises QueryError when `block` lacks a stored tag.
    """
    of = {t.name: t for t in derived}
    if not any(name in of for name in wanted):
        return block.columns(wanted)
    needed = _reachable(wanted, of)
    have = block.columns([name for name in needed if name not in of or of[name].expr is None])
    for tag in derived:
        if tag.name in needed:
            have = have.beside(_computed(have, tag)) if tag.expr is not None else _sifted(have, tag)
    return have.columns(wanted)


def _reachable(wanted: Sequence[str], of: Mapping[str, Tag]) -> dict[str, None]:
    found: dict[str, None] = {}
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += names(of[name].needs or "") if name in of else ()
    return found


def _computed(block: Block, tag: Tag) -> Block:
    """One derived column. Computed in float64, stored as float32 like every value."""
    inputs, found = _evaluated(block, tag.expr or "")
    with np.errstate(over="ignore"):
        values = found.astype(np.float32)
    flags = np.bitwise_or.reduce(inputs.flags, axis=1, dtype=np.uint16)
    out = _outside(values, tag)
    flags |= out * np.uint16(Flag.RANGE)
    bad = ((flags & Flag.BAD) != 0) | ~np.isfinite(values) | out
    flags |= bad * np.uint16(Flag.BAD)
    values = np.where(bad, np.float32(np.nan), values)
    return Block(first=block.first, tags=(tag.name,), values=values[:, None], flags=flags[:, None])


def _sifted(block: Block, tag: Tag) -> Block:
    """The block with `tag` INVALID where its condition does not hold."""
    inputs, holds = _evaluated(block, tag.valid or "")
    known = ~(inputs.flags & Flag.BAD).any(axis=1) & ~np.isnan(holds)
    out = ~(known & (holds != 0))
    at = block.tags.index(tag.name)
    values, flags = block.values.copy(), block.flags.copy()
    values[out, at] = np.float32(np.nan)
    flags[out, at] |= np.uint16(Flag.INVALID | Flag.BAD)
    return Block(first=block.first, tags=block.tags, values=values, flags=flags)


def _evaluated(block: Block, text: str) -> tuple[Block, NDArray[np.float64]]:
    """What an expression reads, and what it comes to in each row, in float64."""
    inputs = block.columns(names(text))
    columns = {name: inputs.values[:, i].astype(np.float64) for i, name in enumerate(inputs.tags)}
    return inputs, evaluate(text, columns, len(block.values))


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
            raise _mistake(name, f"a tag that needs itself: {circle}", "expressions without a circle")
        if name not in tags:
            key = path[-1] if path else name
            raise _mistake(key, f"the tag {name!r}", "a tag of this plant", nearest(name, list(tags)))
        tag = tags[name]
        for part in names(tag.needs) if tag.needs is not None else ():
            visit(part, (*path, name))
        done[name] = tag

    for name in wanted:
        visit(name, ())
    return tuple(done.values())


def _mistake(key: str, found: str, allowed: str, near: str | None = None) -> PlantError:
    return PlantError([Mistake(file="plant.toml", key=f"tags.{key}", found=found, allowed=allowed, near=near)])
