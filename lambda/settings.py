"""A site's settings: site.toml (where the plant runs) and site.json (what the folder is).

site.toml is written by people and read strictly: every mistake is told at
once. site.json is written by penstock alone: the format of the folder, by
which an older one is migrated, and the number of shards, which never changes
after the first reading.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from penstock.data.durable import sync_folder, write_durably
from penstock.data.durations import DURATION, parse_duration
from penstock.data.plants.tables import dotted, shown
from penstock.errors import Mistake, PlantError, SiteError, nearest

FORMAT = 1
"""Format of a site's folder that this penstock writes."""

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: Mapping[int, Migration] = {}
"""From format n (the key) to n + 1; what a migration does to the folder is durable before it returns."""


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _lasting(text: str) -> str:
    if parse_duration(text) == 0:
        raise ValueError("longer than 0")
    return text


Duration = Annotated[str, AfterValidator(_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class JournalSettings(_Section):
    """[journal]"""

    segment_mb: int = Field(default=64, ge=16, le=1024, description="a whole number from 16 to 1024")
    """Size of one segment file; the largest group of readings must fit into one."""


class ArchiveSettings(_Section):
    """[archive]"""

    commit_every: Annotated[Duration, AfterValidator(_lasting)] = Field(
        default="10s", description=f"longer than 0, {DURATION}"
    )
    """How often the archiver commits while readings come in."""

    @property
    def commit_every_s(self) -> float:
        """The same in seconds."""
        return parse_duration(self.commit_every) / 1e9


class DaskSettings(_Section):
    """[dask]"""

    scheduler: str | None = Field(
        default=None, pattern=r"^(tcp|tls|ucx|ws|wss)://.+:\d+$", description='an address such as "tcp://10.0.0.5:8786"'
    )
    """Address of a running scheduler; None: a cluster of processes on this machine."""
    workers: int = Field(default=2, ge=1, description="a whole number from 1")
    """Worker processes of that local cluster."""


class TritonSettings(_Section):
    """[triton]"""

    endpoints: tuple[Annotated[str, Field(pattern=r"^[^:/\s]+:\d+$")], ...] = Field(
        default=(), strict=False, description='a list of host:port, such as ["10.0.0.5:8001"]'
    )
    """host:port of running servers; none: one is started on this machine."""
    capacity: int = Field(default=4096, ge=1, description="a whole number from 1")
    """Slots for models per shape."""


class RetentionSettings(_Section):
    """[retention]"""

    snapshots: Duration = Field(default="1d", description=DURATION)
    """How long old snapshots of archive and batch views stay: longer than the longest training.

    Those that models name stay as long as the models. One takes about 20 kB.
    """

    @property
    def snapshots_ns(self) -> int:
        """The same in nanoseconds."""
        return parse_duration(self.snapshots)


class Settings(_Section):
    """site.toml"""

    shards: int = Field(default=2, ge=1, le=256, description="a whole number from 1 to 256")
    """Shards per dtype; fixed when the site is created."""
    journal: JournalSettings = JournalSettings()
    archive: ArchiveSettings = ArchiveSettings()
    dask: DaskSettings = DaskSettings()
    triton: TritonSettings = TritonSettings()
    retention: RetentionSettings = RetentionSettings()


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


def read_settings(path: Path) -> Settings:
    """site.toml; a missing file means all defaults. Raises PlantError with all mistakes."""
    try:
        text = path.read_text("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: cannot be read ({error})") from error
    return parse_settings(text, str(path))


def parse_settings(text: str, file: str) -> Settings:
    """site.toml's text; `file` names it in messages. Raises PlantError with all mistakes."""
    try:
        return Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PlantError(
            [Mistake(file=file, key="(syntax)", found=str(error), allowed="TOML that can be read")]
        ) from error
    except ValidationError as error:
        raise PlantError([_mistake(dict(e), file) for e in error.errors()]) from error


def _mistake(error: dict[str, Any], file: str) -> Mistake:
    """pydantic's error -> ours, with the nearest known key where one is unknown."""
    where = [str(part) for part in error["loc"]]
    place = ""
    for part in where:
        place = f"{place}[{part}]" if part.isdigit() else dotted(place, part)
    if error["type"] == "extra_forbidden":
        known = _keys(where[:-1])
        allowed = f"one of {', '.join(known)}"
        return Mistake(file=file, key=place, found="an unknown key", allowed=allowed, near=nearest(where[-1], known))
    return Mistake(file=file, key=place, found=shown(error["input"]), allowed=_allowed(where))


def _keys(where: list[str]) -> list[str]:
    section = Settings if not where else _field(where).annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _allowed(where: list[str]) -> str:
    """What may stand there: the field's description, which a test wants of every one; else it is a table."""
    known = ", ".join(_keys(where))
    return _field(where).description or f"a table, [{'.'.join(where)}], with {known}"


def _field(where: list[str]) -> FieldInfo:
    """The field at a place; that of the list for one of its items."""
    section: Any = Settings
    for part in where:
        if not part.isdigit():
            found: FieldInfo = section.model_fields[part]
            section = found.annotation
    return found


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
