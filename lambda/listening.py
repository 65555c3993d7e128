"""A site out of an address: look at what is there, write plant.toml, tags.csv and site.toml, make the site.

How an address is looked at is the business of one module per scheme, with a function `look(address) -> Found`.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from penstock.beginning import Begun
from penstock.data.durations import duration_text
from penstock.data.plants.tag_file import FILE_COLUMNS
from penstock.errors import SiteError, SourceError
from penstock.guess_columns import tag_names
from penstock.guess_text import key_text, quoted
from penstock.site import Site
from penstock.site_toml import SourceSettings, parse_settings

LOOKS: Mapping[str, str] = {
    "mqtt": "penstock.look_mqtt",
    "mqtts": "penstock.look_mqtt",
    "opc.tcp": "penstock.look_opcua",
}
"""By scheme, the module that looks."""
EXTRAS: Mapping[str, str] = {"mqtt": "mqtt", "mqtts": "mqtt", "opc.tcp": "opcua"}
"""What brings its library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to look, and what to show there: as site.toml says it of a source."""

    url: str
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    nodes: tuple[str, ...] = ()
    """Where to begin, in the words of the scheme; none: at the top."""
    topics: tuple[str, ...] = ()
    """MQTT: filters of what is listened to; none: everything."""
    listen_ns: int = 30_000_000_000
    """How long is listened, where nothing can be looked at."""

    @property
    def scheme(self) -> str:
        """Before ``://``."""
        return self.url.partition("://")[0]

    def settings(self) -> dict[str, str]:
        """Keys of ``[sources.NAME]`` in site.toml; files with their whole paths."""
        files = ("password_file", "ca_file", "cert_file", "key_file")
        paths = {key: str(path.resolve()) for key in files if (path := getattr(self, key)) is not None}
        return {"url": self.url} | ({"user": self.user} if self.user is not None else {}) | paths


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTag:
    """Something that looks like a tag."""

    source: str
    """What the source calls it, in the words of ``columns``."""
    name: str
    """What people call it; the tag's name is made of it, and has no strange letters."""
    named: bool = False
    """Whether the source is understood under `name` too."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """Of tags.csv, by column, beside the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was seen at an address."""

    kind: str
    """Of source; the source is called so too."""
    keys: Mapping[str, str]
    """Of its table in plant.toml beside kind and columns: TOML."""
    tags: tuple[FoundTag, ...]
    period_ns: int
    notes: tuple[str, ...] = ()
    """What should be looked at, as sentences."""


def is_address(text: str) -> bool:
    """Whether a site is begun from an address, not from a file."""
    return "://" in text


def begin_from_address(folder: Path, address: Address, timezone: str | None = None) -> Begun:
    """Make a site in `folder` for what is found at `address`.

    `timezone`: of screens; None: UTC. Raises SourceError where nothing can be found there, SiteError where `folder` is
    a site already; nothing is made then.
    """
    if (folder / "site.json").exists():
        raise SiteError(f"{folder}: is a site already; open it, or choose another folder")
    found = _look(address)
    if not found.tags:
        raise SourceError(f"{address.url}: nothing there looks like a tag")
    names = tag_names(tag.name for tag in found.tags)
    with tempfile.TemporaryDirectory(prefix="penstock-") as aside:
        plant = Path(aside) / "plant.toml"
        plant.write_text(_plant_text(found, names, folder.resolve().name, timezone or "UTC", address.url), "utf-8")
        (plant.parent / "tags.csv").write_text(_tags_text(found, names), "utf-8")
        with Site.create(folder, plant, site_text=_site_text(found, address)) as site:
            tags, home = tuple(site.plant.tags), site.folder
    return Begun(folder=home, tags=tags, models=(), notes=found.notes, next=f"penstock stream --site {folder}")


def _look(address: Address) -> Found:
    name = LOOKS.get(address.scheme)
    if name is None:
        known = ", ".join(f"{scheme}://..." for scheme in LOOKS)
        raise SourceError(f"{address.url}: this kind of address cannot be looked at; allowed: {known}, or a CSV file")
    parse_settings(_toml_table("sources.x", {k: quoted(v) for k, v in address.settings().items()}), "--from")
    try:
        found: Found = import_module(name).look(address)
    except ModuleNotFoundError as error:
        extra = f"penstock[{EXTRAS[address.scheme]}]"
        raise SourceError(f"{address.url}: {error.name} is missing: pip install '{extra}'") from error
    return found


def settings_of(address: Address) -> SourceSettings:
    """As if site.toml said so."""
    return SourceSettings.model_validate(address.settings())


def _plant_text(found: Found, names: Mapping[str, tuple[str, str]], plant: str, timezone: str, url: str) -> str:
    notes = "".join(f"# ! {note}\n" for note in found.notes)
    columns = {
        tag.source: names[tag.name][0] for tag in found.tags if not (tag.named and names[tag.name][0] == tag.name)
    }
    source = _toml_table(f"sources.{found.kind}", {"kind": quoted(found.kind), **found.keys})
    if columns:
        lines = {key_text(name): quoted(tag) for name, tag in columns.items()}
        source += "\n" + _toml_table(f"sources.{found.kind}.columns", lines)
    first = names[found.tags[-1].name][0]
    return f"""# Found at {url}: {len(found.tags)} tags, in tags.csv.
# All of it may be changed, but that a site keeps its period.
{notes}
[plant]
name = {quoted(plant)}
period = "{duration_text(found.period_ns)}"
timezone = {quoted(timezone)} # of screens; inside all is UTC

[tags]
file = "tags.csv"

{source}
# A model, for example; docs/plant.md has all keys:
# [model.first]
# target = {quoted(first)}
# inputs = ["*"]
# window = "{duration_text(60 * found.period_ns)}"
"""


def _tags_text(found: Found, names: Mapping[str, tuple[str, str]]) -> str:
    """tags.csv: only the columns that say something."""
    rows = [{"name": names[tag.name][0], **tag.cells} for tag in found.tags]
    used = [column for column in FILE_COLUMNS if any(row.get(column) for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _site_text(found: Found, address: Address) -> str:
    return _toml_table(f"sources.{found.kind}", {key: quoted(value) for key, value in address.settings().items()})


def _toml_table(name: str, keys: Mapping[str, str]) -> str:
    """`keys` as TOML already."""
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
