"""A site's sinks: what plant.toml says goes where, joined with where site.toml says that is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penstock.data.models import ModelStore
from penstock.data.plant import Plant, SinkSpec, SourceSpec
from penstock.data.window_spec import WindowSpec
from penstock.errors import Mistake, ModelError, PlantError, SinkError, nearest
from penstock.site_toml import Settings
from penstock.sources import LIBRARIES, SCHEMES, access
from penstock.speed.broker import PORTS, address_of
from penstock.speed.feed import Feed
from penstock.speed.feed_aggregates import AggregateFeed
from penstock.speed.feed_said import SaidFeed
from penstock.speed.formats.aggregates import Aggregates
from penstock.speed.formats.predictions import Predictions
from penstock.speed.link import Link
from penstock.speed.outlet import Outlet
from penstock.speed.sink import Sink
from penstock.speed.source import Access
from penstock.speed.topics import may_meet

if TYPE_CHECKING:
    from penstock.site import Site

Make = Callable[[SinkSpec, Access, Link], Sink]
HERE = ("127.0.0.1", "::1")
"""Other names of localhost."""


def outlets(site: Site) -> list[Outlet]:
    """What feeds the sinks of plant.toml, not started; none where it names none.

    Raises PlantError where the two files do not fit together, SinkError for what cannot be used.
    """
    if mistakes := unmatched_sinks(site.plant, site.settings, site.folder):
        raise PlantError(mistakes)
    return [_outlet(site, spec) for spec in site.plant.sinks.values()]


def unmatched_sinks(plant: Plant, settings: Settings, folder: Path) -> list[Mistake]:
    """Where plant.toml and site.toml of `folder` differ about the sinks, and where a sink would feed a source."""
    file = str(folder / "site.toml")
    mistakes = []
    for name, spec in plant.sinks.items():
        place, where = f"sinks.{name}", settings.sinks.get(name)
        allowed = " or ".join(f"{scheme}://..." for scheme in SCHEMES[spec.kind])
        if where is None:
            what = f"a table [sinks.{name}] with url = {allowed}"
            mistakes.append(Mistake(file=file, key=place, found="nothing", allowed=what))
        elif where.url.partition("://")[0] not in SCHEMES[spec.kind]:
            mistakes.append(Mistake(file=file, key=f"{place}.url", found=f'"{where.url}"', allowed=allowed))
        else:
            mistakes += _heard(spec, where.url, plant, settings, folder)
    for name in settings.sinks:
        if name not in plant.sinks:
            near = nearest(name, list(plant.sinks))
            allowed = "the name of a sink of plant.toml"
            mistakes.append(Mistake(file=file, key=f"sinks.{name}", found=f'"{name}"', allowed=allowed, near=near))
    return mistakes


def _heard(sink: SinkSpec, url: str, plant: Plant, settings: Settings, folder: Path) -> list[Mistake]:
    """Filters of this plant's own sources that would bring what the sink sends: it would predict from predictions."""
    if sink.feedback:
        return []
    return [
        Mistake(
            file=str(folder / "plant.toml"),
            key=f"sinks.{sink.name}.topic",
            found=f'"{sink.topic}", which source {source.name} hears by its filter "{topic}" on the same broker',
            allowed="topics that no source of the plant reads; or feedback = true, if that is meant",
        )
        for source in plant.sources.values()
        if _same_broker(source, settings, url)
        for topic in source.topics
        if may_meet(sink.topic, plant.name, topic)
    ]


def _same_broker(source: SourceSpec, settings: Settings, url: str) -> bool:
    where = settings.sources.get(source.name)
    return source.kind == "mqtt" and where is not None and _broker(where.url) == _broker(url)


def _broker(url: str) -> tuple[str, int] | None:
    """Host and port; a broker's two usual ports are one broker."""
    address = address_of(url)
    if address is None:
        return None
    host, port = address
    return "localhost" if host in HERE else host, 0 if port in PORTS.values() else port


def _outlet(site: Site, spec: SinkSpec) -> Outlet:
    said = site.settings.sinks[spec.name]
    where = access(spec.name, said, site.folder, site.plant.name, what="sink", error=SinkError)
    link = Link()
    sink = _maker(spec)(spec, where, link)
    return Outlet(sink, _feed(site, spec, link))


def _feed(site: Site, spec: SinkSpec, link: Link) -> Feed:
    if spec.aggregates:
        messages = Aggregates(spec, site.plant, site.readings.grid)
        return AggregateFeed(site.folder, spec.name, messages, _ids_of(site, spec.aggregates))
    said = Predictions(spec, site.plant.name, site.readings.grid, _spec_of(site.models), link.refuse)
    return SaidFeed(site.folder, spec.name, said.messages, spec.catch_up)


def _ids_of(site: Site, names: tuple[str, ...]) -> Callable[[], NDArray[np.int32]]:
    def find() -> NDArray[np.int32]:
        known = site.registry.lookup()
        return np.fromiter((known.get(name, -1) for name in names), np.int32, len(names))

    return find


def _spec_of(models: ModelStore) -> Callable[[str, int], WindowSpec | None]:
    def find(name: str, version: int) -> WindowSpec | None:
        try:
            return WindowSpec.from_json(models.card(name, version)["spec"])
        except (ModelError, KeyError):
            return None

    return find


def _maker(spec: SinkSpec) -> Make:
    """Each kind is the module of its name, with a function `make`. Raises SinkError where its library is missing."""
    try:
        make: Make = import_module(f"penstock.speed.sinks.{spec.kind}").make
    except ModuleNotFoundError as error:
        if error.name is None or not LIBRARIES.get(spec.kind, "").startswith(error.name):
            raise
        raise SinkError(
            f"sink {spec.name}: {spec.kind} needs {LIBRARIES[spec.kind]}: pip install 'penstock[{spec.kind}]'"
        ) from error
    return make
