"""A site's live sources: what plant.toml says they are, joined with where site.toml says they can be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from penstock.data.importing.source_tags import SourceTags
from penstock.data.plant import SourceSpec
from penstock.errors import Mistake, PenstockError, PlantError, SourceError, nearest
from penstock.site_toml import Settings, SourceSettings
from penstock.speed.clock import SourceClock
from penstock.speed.formats.names import Names
from penstock.speed.link import Link
from penstock.speed.source import Access, Source

if TYPE_CHECKING:
    from penstock.site import Site

Make = Callable[[SourceSpec, Access, Names, ZoneInfo], Source]
SCHEMES: Mapping[str, tuple[str, ...]] = {
    "mqtt": ("mqtt", "mqtts"),
    "opcua": ("opc.tcp",),
    "kafka": ("kafka",),
    "tcp": ("tcp", "tls"),
}
"""Of addresses, by kind."""
LIBRARIES = {"mqtt": "paho.mqtt", "opcua": "asyncua", "kafka": "confluent_kafka"}
"""What a kind needs beside penstock itself; `pip install penstock[KIND]` brings it."""


def live_sources(site: Site) -> list[tuple[Source, SourceClock]]:
    """The sources of plant.toml, not yet connected; none where it names none.

    Raises PlantError where the two files do not fit together, SourceError for what cannot be used.
    """
    if mistakes := unmatched(site.plant.sources, site.settings, site.folder):
        raise PlantError(mistakes)
    return [
        (
            _made(site, spec),
            SourceClock(lateness_ns=spec.lateness_ns, idle_ns=spec.idle_ns, skew_ns=spec.skew_ns),
        )
        for spec in site.plant.sources.values()
    ]


def unmatched(sources: Mapping[str, SourceSpec], settings: Settings, folder: Path) -> list[Mistake]:
    """Where plant.toml and site.toml of `folder` do not say the same of the live sources."""
    file = str(folder / "site.toml")
    mistakes = []
    for name, spec in sources.items():
        place, where = f"sources.{name}", settings.sources.get(name)
        allowed = " or ".join(f"{scheme}://..." for scheme in SCHEMES[spec.kind])
        if where is None:
            what = f"a table [sources.{name}] with url = {allowed}"
            mistakes.append(Mistake(file=file, key=place, found="nothing", allowed=what))
        elif where.url.partition("://")[0] not in SCHEMES[spec.kind]:
            mistakes.append(Mistake(file=file, key=f"{place}.url", found=f'"{where.url}"', allowed=allowed))
        if settings.stream.overload == "block" and spec.kind == "opcua":
            found, allowed = (
                f'"block", with source {name}',
                '"all" or "newest": OPC UA servers drop what is not fetched',
            )
            mistakes.append(Mistake(file=file, key="stream.overload", found=found, allowed=allowed))
    for name in settings.sources:
        if name not in sources:
            allowed = "the name of a source of plant.toml"
            near = nearest(name, list(sources))
            mistakes.append(Mistake(file=file, key=f"sources.{name}", found=f'"{name}"', allowed=allowed, near=near))
    return mistakes


def access(
    name: str, where: SourceSettings, folder: Path, plant: str,
    *, what: str = "source", error: type[PenstockError] = SourceError,
) -> Access:  # fmt: skip
    """Addresses and secrets, read. Raises `error`, naming `what`, for a password file that cannot be read."""
    password = None
    if where.password_file is not None:
        file = folder / where.password_file
        try:
            password = file.read_text("utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as why:
            raise error(f"{what} {name}: {file}: cannot be read ({why}); write the password into it") from why
    paths = {key: folder / path for key in ("ca_file", "cert_file", "key_file") if (path := getattr(where, key))}
    return Access(
        url=where.url, client=f"penstock-{plant}", user=where.user, password=password, options=where.options, **paths
    )


def _made(site: Site, spec: SourceSpec) -> Source:
    names = Names(SourceTags(site.plant, site.registry, spec.columns), Link())
    where = access(spec.name, site.settings.sources[spec.name], site.folder, site.plant.name)
    return _maker(spec)(spec, where, names, ZoneInfo(site.plant.timezone))


def _maker(spec: SourceSpec) -> Make:
    """Each kind is the module of its name, with a function `make`. Raises SourceError where its library is missing."""
    try:
        make: Make = import_module(f"penstock.speed.sources.{spec.kind}").make
    except ModuleNotFoundError as error:
        if error.name is None or not LIBRARIES.get(spec.kind, "").startswith(error.name):
            raise
        raise SourceError(
            f"source {spec.name}: {spec.kind} needs {LIBRARIES[spec.kind]}: pip install 'penstock[{spec.kind}]'"
        ) from error
    return make
