"""`penstock backup` and `penstock restore`: a site out of the way, and whole again elsewhere, while it runs.

    site ─► frozen (freezing.py) ─► files by checksum, then the list (vault.py) ─► checked, beside ─► renamed: a site

A backup is one when its list is there; a restored site when its folder is. All that was acknowledged when the backup
began is in it; keys, certificates and passwords that site.toml names are not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from penstock import vault
from penstock.data.archive.repository import sync_filesystem
from penstock.data.durable import sync_folder
from penstock.errors import SiteError
from penstock.freezing import Image, frozen

if TYPE_CHECKING:
    from penstock.site import Site

KEEP = 7
"""Backups that stay in a folder."""
STAMP = "%Y-%m-%dT%H-%M-%S-%fZ"


def backup(site: Site, to: Path, *, keep: int = KEEP) -> dict[str, Any]:
    """Copy the site as it stands to `to`, a folder of backups or a .tar; what is in it, as a dict.

    Into a folder only what is new since the last one is stored; the newest `keep` stay. Raises SiteError.
    """
    to = to.resolve()
    if to.is_relative_to(site.folder):
        raise SiteError(f"{to}: lies in the site itself; choose a folder outside, on another disk if there is one")
    made = datetime.now(UTC)
    with frozen(site) as image:
        files = {p.relative_to(image.folder).as_posix(): p for p in sorted(image.folder.rglob("*")) if p.is_file()}
        listed, new = vault.store(files, _about(site, image, made), to, stamp=made.strftime(STAMP), keep=keep)
    return {"backup": str(to), **_told(listed), "new_bytes": new}


def restore(source: Path, folder: Path, *, stamp: str | None = None) -> dict[str, Any]:
    """Make the site in `folder`, which must not be there or be empty, from the backup at `source`; what is in it.

    `stamp`: one of several in a folder, None: the newest. Every file is checked; a site that is not whole does not
    appear. Raises SiteError naming the file that is damaged or missing.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SiteError(f"{folder}: is there already; restore into a folder that is new or empty")
    aside = folder.with_name(f".{folder.name}.restoring")
    with vault.opened(source, stamp) as found:
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            for name, entry in found.listed.files.items():
                _restore(found, name, entry, aside)
            sync_filesystem(aside)
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise SiteError(f"{folder}: cannot be written ({error}); free the disk and repeat") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return {"site": str(folder), **_told(found.listed)}


def _restore(source: vault.Source, name: str, entry: vault.Entry, into: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise SiteError(f"{source.where}: names a file outside of the site ({name}); this is no backup of ours")
    target, digest, size = into / path, hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.open(entry) as content, target.open("wb") as file:
            while block := content.read(vault.BLOCK):
                digest.update(block)
                size += file.write(block)
    except (FileNotFoundError, KeyError, tarfile.TarError) as error:
        raise SiteError(f"{source.where}: {name} is missing ({error}); restore another backup") from error
    if (size, digest.hexdigest()) != (entry.bytes, entry.sha256):
        raise SiteError(f"{source.where}: {name} is damaged (its checksum differs); restore another backup")
    os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))


def _about(site: Site, image: Image, made: datetime) -> Mapping[str, Any]:
    return {
        "made": made.isoformat(timespec="seconds"),
        "plant": site.plant.name,
        "site_format": json.loads((image.folder / "site.json").read_text())["format"],
        "snapshot": image.head.snapshot,
        "position": image.head.position,
        "tail": image.tail,
        "acknowledged": sum(t.accepted for t in image.totals.values()),
        "not_copied": list(image.secrets),
    }


def _told(listed: vault.Listed) -> dict[str, Any]:
    size = sum(entry.bytes for entry in listed.files.values())
    return {**listed.about, "files": len(listed.files), "bytes": size}
