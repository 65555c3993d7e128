"""The model store: artifacts on disk, whole or not at all, and the record of deployments.

`<folder>/<name>/<version>/` holds one artifact. It is written aside under an
flock, fsynced and renamed, so a crash at any moment leaves either all of it or
a leftover that the next save sweeps away. `<folder>/registry.sqlite` is append
only: who deployed which version when. This file knows files and hashes; it
does not know what a network is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from penstock.data.artifact import CARD, Artifact, Draft, Golden, Kind, contents
from penstock.data.deployments import Action, Deployment, Registry, answering, challenging
from penstock.data.durable import locked, sync_folder, write_durably
from penstock.data.plant import MODEL_NAME, usable_name
from penstock.errors import ModelError, ModelNotFound, nearest

__all__ = ["Artifact", "Draft", "Golden", "Kind", "ModelStore"]

_LOCK_DEADLINE_S = 60.0
_REMOVING = ".removing-"


class ModelStore:
    """The folder `models/` of a site. Any process may save, load and record."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._registry = Registry(self.folder / "registry.sqlite")

    def names(self) -> list[str]:
        """Names with at least one version, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if usable_name(p.name) and self._versions(p.name))

    def versions(self, name: str) -> list[int]:
        """Stored versions, ascending; none for a name that is unknown."""
        return self._versions(_checked(name))

    def save(self, draft: Draft) -> Artifact:
        """Store `draft` as the next version of its name, durable when this returns.

        Raises ModelError when the draft is incomplete, the disk refuses, or
        another process holds the name's lock for a minute.
        """
        home = self.folder / _checked(draft.name)
        files = contents(draft)
        try:
            home.mkdir(parents=True, exist_ok=True)
            with locked(home / ".lock", deadline_s=_LOCK_DEADLINE_S):
                _sweep(home)
                version = self._next(draft.name)
                card = {**draft.card, "name": draft.name, "kind": draft.kind, "version": version}
                card["sha256"] = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
                aside = home / f".saving-{version}"
                aside.mkdir()
                for file, content in {**files, CARD: _json(card)}.items():
                    write_durably(aside / file, content)
                sync_folder(aside)
                aside.rename(home / str(version))
                sync_folder(home)
                sync_folder(self.folder)
        except (OSError, TimeoutError) as error:
            raise ModelError(f"{home}: cannot save {draft.name!r}: {error}; check the disk and try again") from error
        return Artifact(name=draft.name, version=version, folder=home / str(version), card=card, files=files)

    def load(self, name: str, version: int) -> Artifact:
        """Read an artifact and check every file against the card.

        Raises ModelNotFound, or ModelError naming the file that is missing or changed.
        """
        folder = self.folder / _checked(name) / str(version)
        if not folder.is_dir():
            raise ModelNotFound(self._missing(name, version))
        try:
            card = json.loads((folder / CARD).read_bytes())
            files = {file: (folder / file).read_bytes() for file in card["sha256"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder}: not a whole artifact ({error}); train {name!r} again") from error
        for file, content in files.items():
            if hashlib.sha256(content).hexdigest() != card["sha256"][file]:
                raise ModelError(
                    f"{folder / file}: changed since it was saved (sha256 differs from {CARD}); train {name!r} again"
                )
        return Artifact(name=name, version=version, folder=folder, card=card, files=files)

    def card(self, name: str, version: int) -> Mapping[str, Any]:
        """The card alone, nothing checked; that of a removed version too. Raises ModelNotFound, ModelError."""
        folder = self.folder / _checked(name) / str(version)
        try:
            path = folder / CARD
            card: Mapping[str, Any] = json.loads((path if path.exists() else self._removed(name, version)).read_bytes())
        except FileNotFoundError:
            raise ModelNotFound(self._missing(name, version)) from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder / CARD}: cannot be read ({error}); deploy or train {name!r} again") from error
        return card

    def remove(self, name: str, version: int) -> int:
        """Remove a version's files; bytes that were given back. Its card stays, with what was said by it.

        Killed at any moment, the next call for it, or a save, finishes. Raises ModelNotFound, ModelError.
        """
        home, card = self.folder / _checked(name), self.card(name, version)
        folder, aside = home / str(version), home / f"{_REMOVING}{version}"
        try:
            with locked(home / ".lock", deadline_s=_LOCK_DEADLINE_S):
                size = sum(f.stat().st_size for f in folder.glob("*")) if folder.is_dir() else 0
                kept = self._removed(name, version)
                kept.parent.mkdir(exist_ok=True)
                if folder.is_dir():
                    write_durably(kept.with_suffix(".new"), _json(card))
                    kept.with_suffix(".new").replace(kept)
                    sync_folder(kept.parent)
                    folder.rename(aside)
                    sync_folder(home)
                _sweep(home)
        except (OSError, TimeoutError) as error:
            raise ModelError(f"{folder}: cannot be removed: {error}; check the disk and try again") from error
        return size

    def _removed(self, name: str, version: int) -> Path:
        """Where the card of a removed version is."""
        return self.folder / name / "removed" / f"{version}.json"

    def note(self, name: str, version: int, key: Literal["execution", "gate"], found: Mapping[str, Any]) -> None:
        """Into the stored card, durable when this returns; nothing else in it changes.

        `execution`: what executes the model, and what was tried; `gate`: how it was judged. Raises ModelNotFound,
        ModelError.
        """
        self.card(name, version)  # that there is one
        folder = self.folder / name / str(version)
        try:
            with locked(folder.parent / ".lock", deadline_s=_LOCK_DEADLINE_S):
                self._note(folder, {**self.card(name, version), key: dict(found)})
        except (OSError, TimeoutError) as error:
            raise ModelError(f"{folder / CARD}: cannot be written: {error}; check the disk and try again") from error

    def _note(self, folder: Path, card: Mapping[str, Any]) -> None:
        aside = folder / f".{CARD}"
        write_durably(aside, _json(card))
        aside.replace(folder / CARD)
        sync_folder(folder)

    def snapshots(self) -> set[str]:
        """Ids of the archive snapshots that the stored cards name; a card that cannot be read names none."""
        found = set()
        for card in self.folder.glob(f"[!.]*/[0-9]*/{CARD}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.add(str(json.loads(card.read_bytes())["trained"]["snapshot"]))
        return found

    def record(
        self, name: str, version: int, action: Action, who: str, *, at: str | None = None, why: str = ""
    ) -> None:
        """Append to the deployments; `at` is UTC as ISO text, by default the database's clock."""
        snapshot = None
        with contextlib.suppress(ModelError):  # a version that was removed since names no snapshot
            snapshot = self.card(name, version).get("trained", {}).get("snapshot")
        self._registry.record(_checked(name), version, action, who, at, snapshot=snapshot, why=why)

    def history(self, name: str | None = None) -> list[Deployment]:
        """All deployments of `name`, None: of every model, oldest first."""
        return self._registry.history(None if name is None else _checked(name))

    def champion(self, name: str) -> int | None:
        """The version that answers: the newest deploy or roll-back that no undeploy has undone."""
        return answering(self._registry.history(_checked(name))).get(name)

    def champions(self) -> dict[str, int]:
        """The champion of every name that has one."""
        return self._registry.champions()

    def challenger(self, name: str) -> int | None:
        """The version that is scored beside the champion."""
        return self.challengers().get(_checked(name))

    def challengers(self) -> dict[str, int]:
        """The challenger of every model that has one."""
        return challenging(self._registry.history())

    def _versions(self, name: str) -> list[int]:
        home = self.folder / name
        if not home.is_dir():
            return []
        return sorted(int(p.name) for p in home.iterdir() if p.name.isdecimal() and p.is_dir())

    def _next(self, name: str) -> int:
        """Never a number used before, even when its folder has been removed since."""
        deployed = [d.version for d in self._registry.history(name)]
        removed = [int(p.stem) for p in (self.folder / name / "removed").glob("*.json")]
        return max([0, *self._versions(name), *deployed, *removed]) + 1

    def _missing(self, name: str, version: int) -> str:
        versions = self._versions(name)
        if self._removed(name, version).exists():
            kept = ", ".join(map(str, versions)) or "none"
            return f"{self.folder}: {name}@{version} was removed (retention.keep_models); there are {kept}"
        if versions:
            return f"{self.folder}: {name!r} has no version {version}; there are {', '.join(map(str, versions))}"
        near = nearest(name, self.names())
        hint = f"did you mean {near!r}?" if near else "train it first"
        return f"{self.folder}: no model {name!r}; {hint}"


def _sweep(home: Path) -> None:
    """What killed saves and removals left: the name's lock is ours, so nobody's now."""
    for leftover in [*home.glob(".saving-*"), *home.glob(f"{_REMOVING}*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def _checked(name: str) -> str:
    if not usable_name(name):
        raise ModelError(f"model name {name!r}: allowed: {MODEL_NAME}")
    return name


def _json(card: Mapping[str, Any]) -> bytes:
    return json.dumps(card, indent=1, sort_keys=True, allow_nan=False).encode()
