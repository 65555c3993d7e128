"""The site's tag registry: which number a tag has, for ever.

Ids are 0, 1, 2, ... in the order of registration; none is reused, none
changes. A renamed tag (its old name among the new one's aliases) keeps its id
and the old name goes on working. Derived tags are computed, never stored, and
have no id. SQLite, because registering must be whole or not at all and any
process may do it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.data.plant import Tag
from penstock.data.plants.tables import near_name
from penstock.errors import SiteError

FORMAT = 1
COUNTER_AT = 24
"""Byte of a SQLite file's change counter."""
BUSY_S = 30.0
"""So long a process waits for another one that registers tags."""

# No unique index on names: a million inserts would take twice as long, and `register` holds the only
# writer's lock while it compares with all names in memory.
_SCHEMA = """
create table if not exists tags (id integer primary key, name text not null, dtype text not null);
create table if not exists aliases (alias text primary key, id integer not null) without rowid;
"""


@dataclass(slots=True)
class _Known:
    """What the tables hold, in memory: a plant's names are few megabytes."""

    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    """Current names and aliases."""


class Registry:
    """The tag registry of a site; open it with `Registry.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = _Known()
        self._seen = -1
        """The file's change counter when `_known` was read; -1: read again."""

    @classmethod
    def open(cls, path: Path) -> Registry:
        """The registry in the file `path`, created where there is none.

        Raises SiteError when the file cannot be used or is of a newer format.
        """
        registry = cls(path)
        with registry._connected() as db:
            version = int(db.execute("pragma user_version").fetchone()[0])
            if version > FORMAT:
                raise SiteError(f"{path}: format {version}; this penstock knows up to {FORMAT}: upgrade it")
            if version < FORMAT:
                db.executescript(_SCHEMA)
                db.execute(f"pragma user_version = {FORMAT}")
            registry._known = _load(db)
        return registry

    def register(self, tags: Sequence[Tag]) -> None:
        """Give every stored tag of `tags` an id; known ones keep theirs, new ones are appended in order.

        Durable when it returns, or nothing changed. Raises SiteError when a
        tag's dtype changed, or when names and aliases point at two tags.
        """
        stored = [tag for tag in tags if tag.expr is None]
        with self._connected() as db:
            db.execute("begin immediate")
            known = _load(db)
            try:
                change = _Change(known, self.path)
                change.plan(stored)
                change.write(db)
                db.execute("commit")
            except BaseException:
                db.execute("rollback")
                raise
            self._known, self._seen = change.done(), -1

    def refusal(self, tags: Sequence[Tag]) -> str | None:
        """Why `register` would refuse these tags now; None: it would not. Nothing changes."""
        with self._connected() as db:
            change = _Change(_load(db), self.path)
        try:
            change.plan([tag for tag in tags if tag.expr is None])
        except SiteError as error:
            return str(error)
        return None

    def refresh(self) -> None:
        """Read again what another process may have registered; a look at four bytes where nothing was."""
        if self._counter() == self._seen:
            return
        with self._connected() as db:
            db.execute("begin")
            db.execute("select count(*) from aliases where id = 0").fetchall()  # from here on nobody writes the file
            seen = self._counter()
            self._known = _load(db)
            self._seen = seen  # last: another thread that finds it so need not wait for the names
            db.execute("commit")

    def __len__(self) -> int:
        return len(self._known.names)

    def ids(self, names: Sequence[str]) -> NDArray[np.int32]:
        """[n] ids of tags by name or former name. Raises SiteError for a name that is not registered."""
        known = self._known.ids
        missing = [name for name in names if name not in known]
        if missing:
            self.refresh()
            known = self._known.ids
            missing = [name for name in missing if name not in known]
        if missing:
            near = near_name(missing[0], sorted(known))
            hint = f" Did you mean {near!r}?" if near else ""
            raise SiteError(f"{self.path}: no tag {missing[0]!r} is registered; `penstock tags` lists them.{hint}")
        return np.fromiter((known[name] for name in names), np.int32, len(names))

    def names(self) -> list[str]:
        """Current names, by id."""
        return list(self._known.names)

    def like(self, pattern: str) -> list[str]:
        """Current names of the tags that are called so, or like the glob, or were called so; by id."""
        was = self._known.ids.get(pattern, -1)
        return [n for at, n in enumerate(self._known.names) if at == was or n == pattern or fnmatchcase(n, pattern)]

    def dtypes(self) -> list[str]:
        """ "float32" or "float64", by id."""
        return list(self._known.dtypes)

    def lookup(self) -> dict[str, int]:
        """Ids by current and former name; a copy."""
        return dict(self._known.ids)

    def _counter(self) -> int:
        """SQLite raises these four bytes of the file's header with every commit (there is no write-ahead log here)."""
        try:
            with self.path.open("rb") as file:
                return int.from_bytes(os.pread(file.fileno(), 4, COUNTER_AT), "big")
        except OSError as error:
            raise SiteError(f"{self.path}: tag registry cannot be read ({error})") from error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection with durable commits. A closed one between uses lets forks and threads be."""
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)) as db:
                db.execute("pragma synchronous = full")
                yield db
        except sqlite3.Error as error:
            raise SiteError(f"{self.path}: tag registry cannot be used ({error})") from error


def _load(db: sqlite3.Connection) -> _Known:
    rows = db.execute("select name, dtype from tags order by id").fetchall()
    names, dtypes = [row[0] for row in rows], [row[1] for row in rows]
    ids = dict(db.execute("select alias, id from aliases").fetchall())
    ids.update(zip(names, range(len(names)), strict=True))
    if len(set(names)) < len(names):
        raise sqlite3.DatabaseError("a tag name stands there twice; restore it from a copy")
    return _Known(names=names, dtypes=dtypes, ids=ids)


class _Change:
    """What `register` is about to write: planned on values first, then written in one transaction."""

    def __init__(self, known: _Known, path: Path) -> None:
        self.known = known
        self.path = path
        self.new: list[tuple[int, str, str]] = []
        self.renamed: list[tuple[str, int]] = []
        self.aliases: list[tuple[str, int]] = []
        self.claimed: dict[int, str] = {}

    def plan(self, tags: Sequence[Tag]) -> None:
        """Decide each tag's id. Raises SiteError."""
        ids = self.known.ids
        for tag in tags:
            at = self._found(tag)
            if at is None:
                at = len(self.known.names) + len(self.new)
                self.new.append((at, tag.name, tag.dtype))
                ids[tag.name] = at
            else:
                self._keep(tag, at)
            if self.claimed.setdefault(at, tag.name) != tag.name:
                self._refuse(f"{tag.name!r} is a former name of tag {self.claimed[at]!r}; name the new tag otherwise")
            fresh = [alias for alias in tag.aliases if alias not in ids]
            self.aliases += [(alias, at) for alias in fresh]
            ids.update(dict.fromkeys(fresh, at))

    def _found(self, tag: Tag) -> int | None:
        """The id that the tag's name or one of its former names already has."""
        ids = self.known.ids
        if not tag.aliases:
            return ids.get(tag.name)
        found = {ids[name] for name in (tag.name, *tag.aliases) if name in ids}
        if len(found) > 1:
            names = ", ".join(self.known.names[i] for i in sorted(found) if i < len(self.known.names))
            self._refuse(f"tag {tag.name!r} and its aliases name several registered tags ({names}); an alias is one's")
        return found.pop() if found else None

    def _keep(self, tag: Tag, at: int) -> None:
        if at >= len(self.known.names):  # registered by this very call: two tags of one name
            return
        old_name, old_dtype = self.known.names[at], self.known.dtypes[at]
        if old_dtype != tag.dtype:
            self._refuse(
                f"tag {tag.name!r} is stored as {old_dtype}, plant.toml says {tag.dtype}; a stored tag keeps"
                " its dtype: set it back, or give the tag a new name"
            )
        if old_name != tag.name:
            self.renamed.append((tag.name, at))
            self.aliases.append((old_name, at))
            self.known.ids[tag.name] = at

    def _refuse(self, why: str) -> None:
        raise SiteError(f"{self.path}: {why}")

    def done(self) -> _Known:
        """What is known once it is committed."""
        self.known.names += [name for _, name, _ in self.new]
        self.known.dtypes += [dtype for _, _, dtype in self.new]
        for name, at in self.renamed:
            self.known.names[at] = name
        return self.known

    def write(self, db: sqlite3.Connection) -> None:
        """Insert and update; the caller commits."""
        db.executemany("delete from aliases where alias = ?", [(name,) for name, _ in self.renamed])
        db.executemany("update tags set name = ? where id = ?", self.renamed)
        db.executemany("insert into tags (id, name, dtype) values (?, ?, ?)", self.new)
        db.executemany("insert or replace into aliases (alias, id) values (?, ?)", self.aliases)
