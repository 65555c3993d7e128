"""Every error penstock raises on purpose, as one tree.

    PenstockError
    ├── PlantError            plant.toml or site.toml: a list of mistakes, each with place and remedy
    ├── ExpressionError       the text of a `when`, a derived tag or an expr step; plant_file turns it into a mistake
    ├── SiteError             the site folder: missing, of another format, in use
    ├── SourceError           input that cannot be read at all (a bad row is a reject, not an error)
    ├── SinkError             a place that predictions go to: away, silent, or refusing
    ├── JournalError          the segment log
    │   └── JournalCorrupt    a record before the tail fails its checksum
    ├── ArchiveError          the Zarr archive
    │   └── ArchiveBusy       another process holds the committer's lock
    ├── ModelError            artifacts and training
    │   ├── ModelNotFound
    │   ├── RetrainBusy       another process retrains this site's models
    │   └── Refused           a deploy was refused; the old version still answers
    ├── ServingError          Triton and the pool
    │   ├── Unavailable       no endpoint answers
    │   ├── DeadlineExceeded  an answer did not come in time
    │   ├── Overloaded        the server or the pool has no room; try later
    │   ├── BadRequest        the server understood and said no
    │   └── BadAnswer         an answer of the wrong length, type or value
    └── QueryError            a question that has no answer
        └── Gap               the span asked for has a hole

Foreign exceptions are translated where they enter; nothing above the edge sees
a zarr, gRPC or SQLite error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class PenstockError(Exception):
    """Base of all; its text says what was wrong, where, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in a settings file."""

    file: str
    """Path of the file, as the user gave it."""
    key: str
    """Dotted place in the file, e.g. ``model.nox.inputs``."""
    found: str
    """What stands there, as text."""
    allowed: str
    """What may stand there."""
    near: str | None = None
    """The nearest known name, where one is close."""

    def __str__(self) -> str:
        near = f" Did you mean {self.near!r}?" if self.near else ""
        return f"{self.file}: {self.key}: found {self.found}; allowed: {self.allowed}.{near}"


class PlantError(PenstockError):
    """A settings file has mistakes; all of them are listed at once."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(m) for m in self.mistakes))


class ExpressionError(PenstockError):
    """The text of an expression cannot be read, or names something unknown."""

    def __init__(self, *, text: str, found: str, allowed: str, near: str | None = None) -> None:
        self.text, self.found, self.allowed, self.near = text, found, allowed, near
        hint = f" Did you mean {near!r}?" if near else ""
        super().__init__(f"expression {text!r}: found {found}; allowed: {allowed}.{hint}")


class SiteError(PenstockError):
    """The site folder is missing, of another format, or in use."""


class SourceError(PenstockError):
    """An input cannot be read at all."""


class SinkError(PenstockError):
    """A place that predictions go to does not take them."""


class JournalError(PenstockError):
    """The journal cannot be written or read."""


class JournalCorrupt(JournalError):
    """A record before the tail fails its checksum."""


class ArchiveError(PenstockError):
    """The archive cannot be written or read."""


class ArchiveBusy(ArchiveError):
    """Another process holds the committer's lock."""


class ModelError(PenstockError):
    """A model cannot be trained, stored or loaded."""


class ModelNotFound(ModelError):
    """No such model, or no such version of it."""


class RetrainBusy(ModelError):
    """Another process retrains the models of this site."""


class Refused(ModelError):
    """A deploy was refused; the version that answered before still does."""


class ServingError(PenstockError):
    """Triton or the way to it failed."""


class Unavailable(ServingError):
    """No endpoint answers."""


class DeadlineExceeded(ServingError):
    """An answer did not come within its deadline."""


class Overloaded(ServingError):
    """The server or the pool has no room; try again later."""


class BadRequest(ServingError):
    """The server understood the request and refused it."""


class BadAnswer(ServingError):
    """An answer of the wrong length, type or value."""


class QueryError(PenstockError):
    """A question that has no answer."""


class Gap(QueryError):
    """The span asked for has a hole that nothing explains."""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like `name`, or None when none is close."""
    found = get_close_matches(name, known, n=1, cutoff=0.6)
    if found:
        return found[0]
    folded = {k.casefold(): k for k in known}
    return folded.get(name.casefold())
