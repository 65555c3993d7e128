"""`penstock check`: everything that can be said of a plant without starting a process."""

from __future__ import annotations

from pathlib import Path

from penstock.data.plant import Plant
from penstock.data.plants.editions import Editions
from penstock.data.plants.plant_file import load_plant
from penstock.errors import PlantError, SiteError
from penstock.import_options import read_options
from penstock.sinks import unmatched_sinks
from penstock.site_toml import read_settings
from penstock.sources import unmatched


def check_place(place: Path) -> Plant:
    """The plant of a site's folder, or of a plant.toml, after every check that needs no process.

    Raises PlantError with all mistakes, SiteError where there is neither.
    """
    if place.is_file():
        return _checked(place)
    if not (place / "plant.toml").exists():
        raise SiteError(f"{place}: holds no plant.toml; make a site with: penstock init {place}")
    if not (place / "site.json").exists():
        return fitting(place / "plant.toml", place)
    with Editions(place).reading():
        return fitting(place / "plant.toml", place)


def fitting(file: Path, place: Path) -> Plant:
    """The plant of a plant.toml that fits the site.toml in `place`. Raises PlantError with all mistakes."""
    settings = read_settings(place / "site.toml")
    plant = _checked(file)
    if mistakes := [*unmatched(plant.sources, settings, place), *unmatched_sinks(plant, settings, place)]:
        raise PlantError(mistakes)
    return plant


def _checked(file: Path) -> Plant:
    plant = load_plant(file)
    read_options(file)
    return plant
