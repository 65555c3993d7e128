"""What the models read, shard by shard: which tags, under which rules, how far back.

Written once to a small file per shard; steps name it by its digest, so that a
task never carries a plant's tags.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.grid import Grid
from penstock.data.layout import Layout
from penstock.data.plant import Tag
from penstock.data.quality import Rules
from penstock.data.window_spec import WindowSpec
from penstock.errors import SiteError

Resolve = Callable[[Sequence[str]], NDArray[np.int32]]
"""Tag names to ids; -1 for a name that the site does not know."""
Read = tuple[Tag, int]
"""A tag, and how many ticks ahead it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A tag as some model reads it. Two models may judge one tag by different rules: two columns."""

    id: int
    """The site's id; -1: the site has no such tag, the column stays empty."""
    tag: Tag
    ahead: int = 0
    """Row r holds the tag at r + ahead."""


@dataclass(frozen=True, kw_only=True)  # no slots: the cached properties live in its dictionary
class ShardPlan:
    """The columns that one shard returns."""

    shard: int
    dtype: str
    """"float32" | "float64" of the shard's cells."""
    grid: Grid
    columns: tuple[Column, ...]
    depth: int
    """Assessed rows that the deepest window needs, its own tick included."""
    wait: int = 0
    """Ticks that must close behind a tick before its rows go out; of all shards the same, so that they go together."""

    @cached_property
    def rules(self) -> Rules:
        """Quality rules, column for column."""
        return Rules.of([c.tag for c in self.columns], self.grid.period_ns)

    @cached_property
    def reach(self) -> int:
        """Ticks of cells that quality needs before a row."""
        return self.rules.reach

    @cached_property
    def ahead(self) -> NDArray[np.int64]:
        """[columns] ticks ahead at which each is read."""
        return np.array([c.ahead for c in self.columns], np.int64)

    @cached_property
    def ids(self) -> NDArray[np.int32]:
        """[columns] tag ids, -1 where the site has no such tag."""
        return np.array([c.id for c in self.columns], np.int32)

    @cached_property
    def distinct(self) -> NDArray[np.int32]:
        """Tag ids of the cells behind the columns, ascending, each once."""
        return np.unique(self.ids[self.ids >= 0])

    def text(self) -> str:
        """JSON; `of_text` of it is this plan again."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> ShardPlan:
        """The inverse of `text`."""
        d = json.loads(text)
        columns = tuple(Column(id=c["id"], tag=_tag(c["tag"]), ahead=c["ahead"]) for c in d["columns"])
        return replace(cls(**{**d, "grid": Grid(**d["grid"]), "columns": ()}), columns=columns)

    def save(self, folder: Path) -> str:
        """Write it under `folder` and return its name there. Raises SiteError."""
        text = self.text()
        name = f"plan-{self.shard}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.json"
        aside = folder / f".{name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside.write_text(text)
            aside.replace(folder / name)
        except OSError as error:
            raise SiteError(f"{folder}: the read plan cannot be written: {error}; check disk and rights") from error
        return name


def forget_plans(folder: Path) -> None:
    """Remove the plans of services that have ended. Raises SiteError."""
    try:
        for path in [*folder.glob("plan-*-*.json"), *folder.glob(".plan-*-*.json.*")]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise SiteError(f"{folder}: old read plans cannot be removed: {error}; check rights") from error


@lru_cache(maxsize=64)
def load_plan(path: Path) -> ShardPlan:
    """A plan written by `save`; its name is its digest, so it is read once. Raises SiteError."""
    try:
        return read_plan(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: not a read plan: {error}; the running service writes it anew") from error


def read_plan(text: str, name: str) -> ShardPlan:
    """A plan's text; `name` is for messages. Raises SiteError."""
    try:
        return ShardPlan.of_text(text)
    except (ValueError, KeyError, TypeError) as error:
        raise SiteError(f"{name}: not a read plan: {error}; the running service writes it anew") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """All shards that the scorer waits for."""

    shards: tuple[ShardPlan, ...]
    """Ascending; at least one, so that ticks close even where no model reads anything."""
    depth: int
    wait: int
    """Ticks that must close behind a tick before it is said: the most that any model needs."""

    @classmethod
    def of(cls, specs: Sequence[WindowSpec], resolve: Resolve, layout: Layout, grid: Grid) -> ReadPlan:
        """The union of what `specs` read."""
        read = dict.fromkeys(pair for spec in specs for pair in read_by(spec))
        return cls.of_reads(list(read), max((spec.depth for spec in specs), default=1), resolve, layout, grid)

    @classmethod
    def of_reads(cls, read: Sequence[Read], depth: int, resolve: Resolve, layout: Layout, grid: Grid) -> ReadPlan:
        """Of distinct columns, `depth` rows of each."""
        ids = resolve([tag.name for tag, _ in read]) if read else np.empty(0, np.int32)
        wait = Rules.of([tag for tag, _ in read], grid.period_ns).wait
        shard_of = layout.shard_of()
        by_shard: dict[int, list[Column]] = {}
        for (tag, ahead), i in zip(read, ids.tolist(), strict=True):
            by_shard.setdefault(int(shard_of[i]) if i >= 0 else 0, []).append(Column(id=i, tag=tag, ahead=ahead))
        shards = tuple(
            ShardPlan(shard=s, dtype=layout.dtype(s), grid=grid, columns=tuple(c), depth=depth, wait=wait)
            for s, c in sorted((by_shard or {0: []}).items())
        )
        return cls(shards=shards, depth=depth, wait=wait)

    def covers(self, specs: Sequence[WindowSpec]) -> bool:
        """Whether windows of all `specs` can be cut from what this plan reads."""
        known = {(c.tag, c.ahead) for s in self.shards for c in s.columns}
        return all(spec.depth <= self.depth and known.issuperset(read_by(spec)) for spec in specs)

    def place(self) -> dict[Read, tuple[int, int]]:
        """Where each column lies: (shard, column)."""
        return {(c.tag, c.ahead): (s.shard, i) for s in self.shards for i, c in enumerate(s.columns)}


def read_by(spec: WindowSpec) -> Iterator[Read]:
    """What a model's windows are cut from, in the order of its columns."""
    return zip(spec.base_tags, spec.base_ahead, strict=True)


def _tag(d: dict[str, object]) -> Tag:
    span = d["range"]
    d = {**d, "range": None if span is None else tuple(span), "aliases": tuple(d["aliases"])}  # type: ignore[arg-type]
    return Tag(**d)  # type: ignore[arg-type]
