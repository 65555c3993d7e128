"""A site out of a file of readings: guess, write plant.toml, make the site, say what to do next."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import SiteError, SourceError
from penstock.guess import guess
from penstock.guess_text import model_name, plant_text
from penstock.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A new site and what was guessed."""

    folder: Path
    tags: tuple[str, ...]
    models: tuple[str, ...]
    notes: tuple[str, ...]
    """What should be looked at before more is done."""
    next: str
    """The command that brings the file in."""


def begin(folder: Path, file: Path, timezone: str | None = None) -> Begun:
    """Make a site in `folder` whose plant.toml is guessed from the CSV file `file`.

    `timezone`: of times without an offset; None: told by their clock changes, else UTC. Raises SourceError where
    the file cannot be understood, SiteError where `folder` is a site already; nothing is made then.
    """
    if (folder / "site.json").exists():
        raise SiteError(f"{folder}: is a site already; open it, or choose another folder")
    if file.suffix.lower() in (".parquet", ".pq", ".nc") or file.is_dir():
        raise SourceError(f"{file}: only CSV files are guessed from; write a plant.toml and give it with --plant")
    found = guess(file, timezone)
    with tempfile.TemporaryDirectory(prefix="penstock-") as aside:
        plant = Path(aside) / "plant.toml"
        plant.write_text(plant_text(found, folder.resolve().name), "utf-8")
        with Site.create(folder, plant) as site:
            tags, home = tuple(site.plant.tags), site.folder
    return Begun(
        folder=home,
        tags=tags,
        models=(model_name(found),),
        notes=found.notes,
        next=shlex.join(["penstock", "import", str(file), "--site", str(folder)]),
    )
