"""The files that a plant.toml names, so that a copy of it can stand alone.

Tags from a file (`tags = { file = ... }`) and networks (`network = "networks/nox.py:build"`). What a network's
own code imports or opens is not known here.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from penstock.data.plant import Plant
from penstock.errors import Mistake, PlantError


def named_files(path: Path, plant: Plant) -> dict[str, bytes]:
    """Contents by path relative to plant.toml at `path`, which `plant` was loaded from; absolute ones are left out.

    Raises PlantError for files that are missing or lie above plant.toml, with all of them.
    """
    networks = {m.name: m.network.rpartition(":")[0] for m in plant.models.values() if m.network is not None}
    tags = tomllib.loads(path.read_text("utf-8")).get("tags", {}).get("file")
    places = {f"model.{name}.network": file for name, file in networks.items()}
    if isinstance(tags, str):
        places["tags.file"] = tags
    found: dict[str, bytes] = {}
    mistakes: list[Mistake] = []
    for key, name in places.items():
        if name in found or Path(name).is_absolute():
            continue
        try:
            found[name] = _content(path.parent, name)
        except ValueError as error:
            mistakes.append(Mistake(file=str(path), key=key, found=f'"{name}"', allowed=str(error)))
    if mistakes:
        raise PlantError(mistakes)
    return found


def _content(folder: Path, name: str) -> bytes:
    """Raises ValueError with what is allowed."""
    if ".." in Path(name).parts:
        raise ValueError("a file beside plant.toml or below it: a new site has no other")
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"a file that can be read: {folder / name}: {error.strerror}") from error
