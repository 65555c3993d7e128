"""How a plant's files are read: the table [sources.import] of plant.toml, which `penstock init --from` writes.

It holds for CSV files only: a table in memory, a Parquet or a gridded file says by its types what a CSV leaves open.
What a caller gives goes before it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from penstock.data.importing.gridded import is_netcdf
from penstock.data.importing.importers import Options
from penstock.data.plants.tables import shown
from penstock.errors import Mistake, PlantError, nearest

KNOWN = tuple(field.name for field in fields(Options))


def joined(plant_file: Path, source: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Options for reading `source`: those of plant.toml, and before them what is given in `wanted` (None: nothing is).

    Raises PlantError where [sources.import] has mistakes.
    """
    standing = read_options(plant_file) if _is_text(source) else {}
    return standing | {name: value for name, value in wanted.items() if value is not None}


def read_options(plant_file: Path) -> dict[str, Any]:
    """What [sources.import] says; nothing where there is no such table. Raises PlantError with all mistakes."""
    try:
        sources = tomllib.loads(plant_file.read_text("utf-8")).get("sources", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlantError(
            [Mistake(file=str(plant_file), key="(file)", found=str(error), allowed="TOML that can be read")]
        ) from error
    said = sources.get("import", {}) if isinstance(sources, dict) else {}
    mistakes = [m for key, value in said.items() if (m := _mistake(plant_file, key, value))]
    if mistakes:
        raise PlantError(mistakes)
    return {key: _value(value) for key, value in said.items()}


def _value(value: object) -> object:
    """TOML has no null: in a table of columns `false` leaves one out."""
    return {name: tag or None for name, tag in value.items()} if isinstance(value, dict) else value


def _mistake(file: Path, key: str, value: object) -> Mistake | None:
    place = f"sources.import.{key}"
    if key not in KNOWN:
        return Mistake(
            file=str(file), key=place, found="an unknown key", allowed=", ".join(KNOWN), near=nearest(key, KNOWN)
        )
    default = asdict(Options())[key]
    if not isinstance(default, dict):
        return (
            None if isinstance(value, str) else Mistake(file=str(file), key=place, found=shown(value), allowed="text")
        )
    if isinstance(value, dict) and all(tag is False or isinstance(tag, str) for tag in value.values()):
        return None
    allowed = "a table: a column's name = a tag, or false to leave it out"
    return Mistake(file=str(file), key=place, found=shown(value), allowed=allowed)


def _is_text(source: object) -> bool:
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    return path.is_file() and path.suffix.lower() not in (".parquet", ".pq") and not is_netcdf(path)
