"""The plants that a site has had, kept for ever; and how one takes the other's place, whole or not at all.

    plants/
      1/   plant.toml  tags.csv ...  edition.json     as the site was made, or before the first apply
      2/   ...                                        applied: who, when, what changed, what is retired
      applied                                         the newest number whose files lie in the site's folder
      lock                                            shared while the files are read, alone while they are put there

An edition is written aside and renamed: that is the moment from which it holds. Its files are then put where the site
reads them, one after the other. A kill between the two leaves an edition newer than `applied`; whoever reads the
site's files next puts it there first. So a reader sees all of the old one or all of the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock.data.durable import locked, sync_folder, write_durably
from penstock.data.plant import Tag
from penstock.errors import SiteError

HOME, APPLIED, LOCK, NOTE, PLANT = "plants", "applied", "lock", "edition.json", "plant.toml"
WAIT_S = 60.0
"""How long one who writes waits for those who read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """What is kept beside the files of one plant."""

    number: int
    at: str
    """UTC, ISO 8601."""
    who: str
    why: str = ""
    changes: Sequence[Mapping[str, Any]] = ()
    """From the edition before: kind, what, before, after."""
    retired: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name in the registry: what plant.toml last said of tags that it has no more."""

    def tags(self) -> dict[str, Tag]:
        """The retired tags."""
        found = {}
        for name, said in self.retired.items():
            span = said["range"]
            low_high = None if span is None else (float(span[0]), float(span[1]))
            found[name] = Tag(**{**said, "range": low_high, "aliases": tuple(said["aliases"])})
        return found


def retired_form(tag: Tag) -> dict[str, Any]:
    """A tag as `Edition.retired` keeps it."""
    return asdict(tag)


class Editions:
    """The plants of the site in `folder`; a value that reads the disk at each call."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / HOME

    def newest(self) -> int:
        """The number of the newest one, in place or not; 0: nothing was ever applied here."""
        try:
            return max((int(e.name) for e in os.scandir(self.home) if e.name.isdecimal()), default=0)
        except FileNotFoundError:
            return 0

    def all(self) -> list[Edition]:
        """What is kept of them, oldest first. Raises SiteError."""
        return [self.edition(number) for number in range(1, self.newest() + 1)]

    def edition(self, number: int) -> Edition:
        """What is kept of one. Raises SiteError."""
        path = self.home / str(number) / NOTE
        try:
            return Edition(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SiteError(f"{path}: cannot be read ({error}); restore it from a copy") from error

    def files(self, number: int) -> dict[str, bytes]:
        """Contents by path below the site's folder."""
        home = self.home / str(number)
        found = {str(p.relative_to(home)): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file()}
        found.pop(NOTE, None)
        return found

    @contextmanager
    def reading(self) -> Iterator[int]:
        """The number whose files lie in the folder, all of them, until the block ends; one who writes waits.

        Raises SiteError where an interrupted apply cannot be finished.
        """
        if not self.home.is_dir():  # of an older penstock; looking changes nothing
            yield 0
            return
        with self._shared():
            number = self.newest()
            if number == self._applied():
                yield number
                return
        self.settle()
        with self._shared():
            yield self._applied()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else changes the plant meanwhile, and what an interrupted apply left is in its place."""
        try:
            self.home.mkdir(exist_ok=True)
            with locked(self.home / f"writer.{LOCK}", deadline_s=WAIT_S):
                self.settle()
                yield
        except (OSError, TimeoutError) as error:
            raise SiteError(f"{self.home}: cannot be written ({error}); check disk and rights, and who applies") from (
                error
            )

    def keep(self, files: Mapping[str, bytes], edition: Edition) -> Iterator[str]:
        """Write an edition aside and let it hold; yields after each step that a kill may come behind."""
        aside = self.home / f".{edition.number}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield "aside"
        for name, content in {**files, NOTE: json.dumps(asdict(edition), indent=1).encode() + b"\n"}.items():
            _put(aside / name, content)
            yield f"kept {name}"
        for folder in sorted({aside, *(p for p in aside.rglob("*") if p.is_dir())}):
            sync_folder(folder)
        aside.rename(self.home / str(edition.number))
        sync_folder(self.home)
        sync_folder(self.folder)
        yield "holds"

    def settle(self) -> None:
        """Put the newest edition's files in place, where they are not. Raises SiteError."""
        for _ in self.settling():
            pass

    def settling(self) -> Iterator[str]:
        """`settle`, step by step; plant.toml comes last."""
        if self.newest() == self._applied():
            return
        try:
            with locked(self.home / LOCK, deadline_s=WAIT_S):
                number = self.newest()
                if number == self._applied():  # another one did it meanwhile
                    return
                files = self.files(number)
                for name in sorted(files, key=lambda name: (name == PLANT, name)):
                    _replace(self.folder / name, files[name])
                    yield f"in place {name}"
                _replace(self.home / APPLIED, f"{number}\n".encode())
                yield "applied"
        except (OSError, TimeoutError) as error:
            raise SiteError(
                f"{self.folder}: plant {self.newest()} was applied and cannot be put in place ({error}); "
                "check disk and rights, then apply again"
            ) from error

    def _applied(self) -> int:
        try:
            return int((self.home / APPLIED).read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise SiteError(
                f"{self.home / APPLIED}: cannot be read ({error}); write the newest number there"
            ) from error

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """Not while files are put in place; without a lock where there may be none: nobody can write there either."""
        try:
            descriptor = os.open(self.home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, content)


def _replace(path: Path, content: bytes) -> None:
    """In one go, durable when it returns."""
    if path.exists() and path.read_bytes() == content:
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    _put(aside, content)
    aside.replace(path)
    sync_folder(path.parent)
