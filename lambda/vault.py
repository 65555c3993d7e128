"""Where backups lie: a folder of objects by checksum and a list for each backup, or one tar file of the same.

    FOLDER/objects/3f/3fa4...        contents, each once, whatever is called so
    FOLDER/2026-11-28T21-44-03Z.json names, sizes and checksums of one backup; written last
    FILE.tar                         objects/..., and backup.json as its last member

So a second backup into a folder stores what is new alone, a backup that was killed has no list, and a list that does
not tell its own checksum is none. Knows nothing of sites.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from penstock.data.archive.repository import sync_filesystem
from penstock.data.durable import locked, sync_folder, write_durably
from penstock.errors import SiteError

FORMAT = 1
BLOCK = 1 << 20
LIST = "backup.json"
OBJECTS = "objects"
TAR = ".tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a backup."""

    bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One backup."""

    about: Mapping[str, Any]
    """What it is of, JSON values."""
    files: Mapping[str, Entry]
    """By path relative to what was backed up."""

    def text(self) -> bytes:
        """As a list's file has it."""
        files = {name: [e.bytes, e.sha256, e.mtime_ns] for name, e in sorted(self.files.items())}
        body = json.dumps({"format": FORMAT, "about": dict(self.about), "files": files})
        return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}).encode()

    @classmethod
    def of(cls, raw: bytes, where: Path) -> Listed:
        """Raises SiteError where it is damaged or of a newer format."""
        try:
            outer = json.loads(raw)
            body = str(outer["body"])
            if hashlib.sha256(body.encode()).hexdigest() != outer["sha256"]:
                raise ValueError("its checksum differs")
            said = json.loads(body)
            files = {name: Entry(bytes=b, sha256=s, mtime_ns=m) for name, (b, s, m) in said["files"].items()}
        except (ValueError, KeyError, TypeError) as error:
            raise SiteError(f"{where}: is damaged ({error}); take another backup") from error
        if said["format"] > FORMAT:
            raise SiteError(f"{where}: a backup of format {said['format']}, this penstock knows {FORMAT}: upgrade it")
        return cls(about=said["about"], files=files)


class Source(Protocol):
    """A backup to be read."""

    where: Path
    listed: Listed

    def open(self, entry: Entry) -> IO[bytes]:
        """An object's content. Raises OSError, KeyError where it is missing."""
        ...


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store(
    files: Mapping[str, Path], about: Mapping[str, Any], to: Path, *, stamp: str, keep: int
) -> tuple[Listed, int]:
    """Make a backup of `files` at `to`, a folder or a .tar; its list, and how many bytes were new.

    `stamp` names it in a folder, where the newest `keep` stay. Raises SiteError.
    """
    try:
        return _into_tar(files, about, to) if to.suffix == TAR else _into_folder(files, about, to, stamp, keep)
    except TimeoutError as error:
        raise SiteError(f"{error}; another backup is being made there") from error
    except OSError as error:
        raise SiteError(f"{to}: cannot be written ({error}); free the disk and repeat") from error


@contextmanager
def opened(where: Path, stamp: str | None = None) -> Iterator[Source]:
    """The newest backup at `where`, or the one called `stamp`. Raises SiteError where there is none whole."""
    if where.is_dir():
        yield _Folder(where, _chosen(where, stamp))
        return
    try:
        with tarfile.open(where) as tar:
            yield _Tar(where, tar)
    except (OSError, tarfile.TarError) as error:
        raise SiteError(f"{where}: is no whole backup ({error}); take another one") from error


def stamps(folder: Path) -> list[str]:
    """Names of the backups in a folder, oldest first."""
    return sorted(p.stem for p in folder.glob("*.json"))


class _Folder:
    def __init__(self, where: Path, path: Path) -> None:
        self.where = where
        self.listed = Listed.of(path.read_bytes(), path)

    def open(self, entry: Entry) -> IO[bytes]:
        return _object(self.where, entry.sha256).open("rb")


class _Tar:
    def __init__(self, where: Path, tar: tarfile.TarFile) -> None:
        self.where, self._tar = where, tar
        try:
            member = tar.extractfile(LIST)
        except KeyError:
            raise SiteError(f"{where}: is no whole backup: it has no {LIST} at its end; take another one") from None
        self.listed = Listed.of(b"" if member is None else member.read(), where / LIST)

    def open(self, entry: Entry) -> IO[bytes]:
        found = self._tar.extractfile(f"{OBJECTS}/{entry.sha256}")
        if found is None:
            raise KeyError(entry.sha256)
        return found


def _chosen(folder: Path, stamp: str | None) -> Path:
    there = stamps(folder)
    if stamp is not None and stamp not in there:
        raise SiteError(f"{folder}: has no backup {stamp!r}; there are {', '.join(there) or 'none'}")
    if not there:
        raise SiteError(f"{folder}: holds no whole backup; make one: penstock backup {folder}")
    return folder / f"{stamp or there[-1]}.json"


def _object(folder: Path, sha256: str) -> Path:
    return folder / OBJECTS / sha256[:2] / sha256


def _into_folder(
    files: Mapping[str, Path], about: Mapping[str, Any], to: Path, stamp: str, keep: int
) -> tuple[Listed, int]:
    to.mkdir(parents=True, exist_ok=True)
    with locked(to / ".lock", deadline_s=0.0):
        before = _Folder(to, _chosen(to, None)).listed.files if stamps(to) else {}
        new, entries = 0, {}
        for name, path in files.items():
            entries[name] = entry = _entry(path, before.get(name), to)
            if not _there(to, entry):
                _put(path, _object(to, entry.sha256))
                new += entry.bytes
        listed = Listed(about=about, files=entries)
        sync_filesystem(to)
        write_durably(to / ".list.new", listed.text())
        (to / ".list.new").replace(to / f"{stamp}.json")
        sync_folder(to)
        _forget(to, keep)
    return listed, new


def _entry(path: Path, before: Entry | None, to: Path) -> Entry:
    """A file that is as it was at the last backup, and is there, is not read again."""
    found = path.stat()
    same = before is not None and (before.bytes, before.mtime_ns) == (found.st_size, found.st_mtime_ns)
    if before is not None and same and _there(to, before):
        return before
    return Entry(bytes=found.st_size, sha256=digest(path), mtime_ns=found.st_mtime_ns)


def _there(to: Path, entry: Entry) -> bool:
    path = _object(to, entry.sha256)
    return path.exists() and path.stat().st_size == entry.bytes


def _put(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".new")
    shutil.copyfile(path, aside)
    aside.replace(target)


def _forget(to: Path, keep: int) -> None:
    """Lists beyond the newest `keep`, and what no list names: it was of them, or of a backup that was killed."""
    for stamp in stamps(to)[:-keep]:
        (to / f"{stamp}.json").unlink()
    wanted = {e.sha256 for s in stamps(to) for e in Listed.of((to / f"{s}.json").read_bytes(), to).files.values()}
    for path in (to / OBJECTS).glob("*/*"):
        if path.name not in wanted:
            path.unlink()


def _into_tar(files: Mapping[str, Path], about: Mapping[str, Any], to: Path) -> tuple[Listed, int]:
    to.parent.mkdir(parents=True, exist_ok=True)
    aside, entries, inside = to.with_name(f".{to.name}.new"), {}, set()
    with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in files.items():
            found = path.stat()
            entries[name] = entry = Entry(bytes=found.st_size, sha256=digest(path), mtime_ns=found.st_mtime_ns)
            if entry.sha256 not in inside:
                inside.add(entry.sha256)
                tar.add(path, f"{OBJECTS}/{entry.sha256}", recursive=False, filter=_plain)
        listed = Listed(about=about, files=entries)
        text, info = listed.text(), tarfile.TarInfo(LIST)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(to)
    sync_folder(to.parent)
    return listed, to.stat().st_size


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file with content of its own, though it is a hard link here."""
    info.type, info.linkname = tarfile.REGTYPE, ""
    return info
