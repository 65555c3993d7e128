"""A site's folder: made, opened, migrated. site.toml says where the plant runs, site.json what the folder is.

site.json is written by penstock alone: the format of the folder, by which an
older one is migrated, and the number of shards, which never changes after the
first reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.data.durable import sync_folder, write_durably
from penstock.data.plants.tables import shown
from penstock.errors import Mistake, PlantError, SiteError
from penstock.site_toml import Settings, parse_settings, read_settings

FORMAT = 1
"""Format of a site's folder that this penstock writes."""

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: Mapping[int, Migration] = {}
"""From format n (the key) to n + 1; what a migration does to the folder is durable before it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    """site.json"""

    format: int
    shards: int
    created: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSettings:
    """An opened site's folder and what its two files say."""

    folder: Path
    settings: Settings
    file: SiteFile

    @property
    def shards(self) -> int:
        """Shards per dtype."""
        return self.file.shards


def open_settings(folder: Path) -> OpenSettings:
    """Settings of an existing site, migrated to this penstock's format.

    Raises SiteError when the folder is no site or of a newer format, PlantError
    when site.toml has mistakes.
    """
    state = migrated(_site_json(folder), folder)
    if state != _site_json(folder):
        _write_site_json(folder, state)
    file = _site_file(state, folder)
    settings = read_settings(folder / "site.toml")
    if "shards" in settings.model_fields_set and settings.shards != file.shards:
        raise PlantError(
            [
                Mistake(
                    file=str(folder / "site.toml"),
                    key="shards",
                    found=str(settings.shards),
                    allowed=f"{file.shards}, as the site was created; a site keeps its shards",
                )
            ]
        )
    return OpenSettings(folder=folder, settings=settings, file=file)


def create(
    folder: Path,
    plant_text: str,
    *,
    created: str,
    shards: int | None = None,
    site_text: str = "",
    files: Mapping[str, bytes] | None = None,
) -> OpenSettings:
    """A new site: plant.toml and site.toml as given, site.json last, so that a torn creation is no site.

    `created` is the time, ISO 8601; `shards` None: as site.toml says; `files`: what plant.toml
    names, by path relative to it. Raises SiteError when the folder already is a site, PlantError
    when `site_text` has mistakes.
    """
    if (folder / "site.json").exists():
        raise SiteError(f"{folder}: is a site already; open it, or choose another folder")
    settings = parse_settings(site_text, str(folder / "site.toml"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_durably(folder / name, content)
        write_durably(folder / "plant.toml", plant_text.encode())
        write_durably(folder / "site.toml", site_text.encode())
        _write_site_json(folder, {"format": FORMAT, "shards": shards or settings.shards, "created": created})
    except OSError as error:
        raise SiteError(f"{folder}: cannot be written ({error}); choose another folder") from error
    return open_settings(folder)


def migrated(
    state: dict[str, Any], folder: Path, migrations: Mapping[int, Migration] = MIGRATIONS, to: int = FORMAT
) -> dict[str, Any]:
    """`state` of site.json brought to format `to`, step by step. Raises SiteError for a newer or unknown one."""
    found = state.get("format")
    if not isinstance(found, int) or found < 1:
        raise SiteError(f"{folder / 'site.json'}: format is {shown(found)}; allowed: 1..{to}. Restore the file")
    if found > to:
        raise SiteError(
            f"{folder}: a site of format {found}, this penstock knows up to {to}: upgrade penstock to open it"
        )
    for step in range(found, to):
        state = {**migrations[step](dict(state)), "format": step + 1}
    return state


def _site_json(folder: Path) -> dict[str, Any]:
    path = folder / "site.json"
    try:
        state = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SiteError(f"{folder}: no site here (site.json is missing); `penstock init` makes one") from None
    except (OSError, ValueError) as error:
        raise SiteError(f"{path}: cannot be read ({error}); restore it from a copy") from error
    if not isinstance(state, dict):
        raise SiteError(f"{path}: holds no object; restore it from a copy")
    return state


def _site_file(state: dict[str, Any], folder: Path) -> SiteFile:
    shards, created = state.get("shards"), state.get("created")
    if not isinstance(shards, int) or shards < 1 or not isinstance(created, str):
        raise SiteError(f"{folder / 'site.json'}: shards or created is missing; restore it from a copy")
    return SiteFile(format=FORMAT, shards=shards, created=created)


def _write_site_json(folder: Path, state: dict[str, Any]) -> None:
    aside = folder / "site.json.new"
    write_durably(aside, json.dumps(state, indent=1).encode() + b"\n")
    os.replace(aside, folder / "site.json")
    sync_folder(folder)
