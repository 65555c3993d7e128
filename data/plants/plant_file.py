"""plant.toml -> `Plant`: every mistake of the file is collected, then told at once.

The order is the file's own: plant, assets, tags (from the file or a table of
their own), then models over the tags. tomllib knows no lines of keys, so a
message names the key's path; a broken TOML syntax has line and column.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, cast
from zoneinfo import ZoneInfo, available_timezones

from penstock.data.durations import DURATION, duration_text
from penstock.data.expressions import names as names_in
from penstock.data.plant import MODEL_NAME, AggregateSpec, ModelSpec, Plant, Tag, usable_name
from penstock.data.plants.aggregate_table import read_aggregates
from penstock.data.plants.model_table import Scope, read_model
from penstock.data.plants.sink_table import read_sinks
from penstock.data.plants.source_table import read_sources
from penstock.data.plants.tables import Mistakes, Table, dotted, near_name, shown
from penstock.data.plants.tag_checks import check_conditions, check_joins
from penstock.data.plants.tag_file import read_tag_file
from penstock.data.plants.tag_table import Assets, read_tags
from penstock.data.plants.templates import RANGE, Names, expand_range, substituted
from penstock.errors import ExpressionError, Mistake, PlantError

TOP_KEYS = ("plant", "assets", "tags", "defaults", "model", "override", "sources", "aggregates", "sinks", "alarms")
MOST_AHEAD = 100_000
"""Ticks that a tag may be ahead: a day of seconds, 11 years of hours. Every shard keeps so many cells of it."""
PLANT_KEYS = ("name", "period", "timezone", "clock")


def load_plant(path: Path) -> Plant:
    """The plant that a plant.toml describes; files it names are relative to it.

    Raises PlantError with all the mistakes there are.
    """
    plant, mistakes = _parse(path)
    if mistakes:
        raise PlantError(mistakes)
    return plant


def check_plant(path: Path) -> list[Mistake]:
    """All mistakes of a plant.toml; an empty list when it can be used."""
    return _parse(path)[1]


def _parse(path: Path) -> tuple[Plant, list[Mistake]]:
    mistakes = Mistakes(str(path))
    root = Table([("", _toml(path, mistakes))], mistakes)
    if mistakes.found:
        return Plant(name="", period_ns=0, tags={}, models={}), mistakes.listed()
    root.close(TOP_KEYS)
    head = root.sub("plant")
    head.close(PLANT_KEYS)
    name, clock = head.text("name", required=True), head.text("clock", "live", one_of=("live", "replay"))
    period_ns, timezone = _period(head), _timezone(head)
    assets = _assets(root.sub("assets"))
    tags = _tags(root, assets, path.parent, mistakes)
    check_ahead(tags, period_ns, mistakes)
    check_joins(tags, period_ns, mistakes)
    check_conditions(tags, mistakes)
    scope = Scope(
        folder=path.parent,
        period_ns=period_ns,
        tags=tags,
        names=Names(list(tags)),
        needs=needs(tags, mistakes),
        timezone=timezone,
    )
    models = _models(root, assets, scope)
    sources = read_sources(root.sub("sources"), period_ns)
    kept = read_aggregates(root.sub("aggregates"), period_ns, tags) if "aggregates" in root else AggregateSpec()
    sinks = read_sinks(root.sub("sinks"), kept)
    for entry in (alarms := root.sub("alarms")).names():
        alarms.sub(entry)
    plant = Plant(
        name=name,
        period_ns=period_ns,
        timezone=timezone,
        clock=cast(Literal["live", "replay"], clock),
        tags=tags,
        models=models,
        sources=sources,
        aggregates=kept,
        sinks=sinks,
    )
    return plant, mistakes.listed()


def _toml(path: Path, mistakes: Mistakes) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        mistakes.add("(file)", "no such file", "a plant.toml; `penstock init` writes one")
    except UnicodeDecodeError as error:
        mistakes.add("(file)", f"byte {error.start} is not UTF-8", "text in UTF-8")
    except OSError as error:
        mistakes.add("(file)", error.strerror or str(error), "a file that can be read")
    except tomllib.TOMLDecodeError as error:
        mistakes.add("(syntax)", str(error), "TOML; mend this place first, the rest is read afterwards")
    return {}


def _period(head: Table) -> int:
    if "period" not in head:
        head.wrong("period", DURATION)
    period_ns = head.duration("period")
    if period_ns == 0:
        head.wrong("period", f"{DURATION}, longer than 0")
    return period_ns or 0


@cache
def _zones() -> tuple[str, ...]:
    return tuple(sorted(available_timezones()))


def _timezone(head: Table) -> str:
    name = head.text("timezone", "UTC")
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        head.wrong("timezone", 'a time zone such as "Europe/Berlin" or "UTC"', near_name(name, _zones()))
        return "UTC"
    return name


def _assets(table: Table) -> Assets:
    """Names per asset kind, listed or from a range."""
    found: dict[str, tuple[str, ...]] = {}
    for kind in table.names():
        asset = table.sub(kind)
        asset.close(("names", "range"))
        names = asset.texts("names", required="range" not in asset)
        if "range" in asset:
            try:
                names += expand_range(asset.text("range"))
            except ValueError:
                asset.wrong("range", RANGE)
        if len(set(names)) < len(names):
            asset.wrong("names", "each name once")
        found[kind] = tuple(dict.fromkeys(names))
    return found


def _tags(root: Table, assets: Assets, folder: Path, mistakes: Mistakes) -> dict[str, Tag]:
    """All tags, by name; duplicates among names and aliases are noted."""
    table = root.sub("tags")
    data = {name: table.raw(name) for name in table.names()}
    listed: list[Tag] = []
    if isinstance(file := data.get("file"), str):
        inside = Mistakes(str(folder / file))
        listed += read_tag_file(folder / file, inside)
        mistakes.found.update({(m.file + m.key, m.found): m for m in inside.listed()})
    listed += read_tags(data, assets, mistakes)
    if not listed and "tags" not in root:
        mistakes.add("tags", "nothing", 'a table of tags, or file = "tags.csv"')
    tags: dict[str, Tag] = {}
    for tag in listed:
        if tags.setdefault(tag.name, tag) is not tag:
            mistakes.add(dotted("tags", tag.name), f'a second tag "{tag.name}"', "each name once")
    _check_aliases(tags, mistakes)
    return tags


def _check_aliases(tags: Mapping[str, Tag], mistakes: Mistakes) -> None:
    owner: dict[str, str] = {}
    for tag in tags.values():
        for alias in tag.aliases:
            other = alias if alias in tags else owner.setdefault(alias, tag.name)
            if other != tag.name or alias in tags:
                place = dotted(dotted("tags", tag.name), "aliases")
                mistakes.add(place, f'"{alias}", which also names tag "{other}"', "former names of this tag alone")


def check_ahead(tags: Mapping[str, Tag], period_ns: int, mistakes: Mistakes) -> None:
    """What may be known ahead is of whole ticks, not too many, and stored; `period_ns` 0: unknown, not checked."""
    for tag in tags.values():
        if not tag.ahead_ns or not period_ns:
            continue
        place = dotted(dotted("tags", tag.name), "ahead")
        if tag.expr is not None:
            mistakes.add(place, "a derived tag", "`ahead` of the tags that it is computed from")
        elif tag.ahead_ns % period_ns or tag.ahead_ns > MOST_AHEAD * period_ns:
            allowed = f"a multiple of the plant's period, at most {duration_text(MOST_AHEAD * period_ns)}"
            mistakes.add(place, f'"{duration_text(tag.ahead_ns)}"', allowed)


def needs(tags: Mapping[str, Tag], mistakes: Mistakes) -> dict[str, frozenset[str]]:
    """Per derived tag all tags it is computed from; unknown names, bad syntax and circles are noted."""
    direct: dict[str, tuple[str, ...]] = {}
    ordered: list[str] = []
    for tag in tags.values():
        if tag.expr is None:
            continue
        place = dotted(dotted("tags", tag.name), "expr")
        try:
            direct[tag.name] = names_in(tag.expr)
        except ExpressionError as error:
            mistakes.add(place, shown(tag.expr), f"an expression over tags ({error})")
            continue
        for name in direct[tag.name]:
            if name not in tags:
                ordered = ordered or sorted(tags)
                mistakes.add(place, f'unknown tag "{name}"', "a tag of [tags]", near_name(name, ordered))
    return {name: _reached(name, direct, mistakes) for name in direct}


def _reached(name: str, direct: Mapping[str, tuple[str, ...]], mistakes: Mistakes) -> frozenset[str]:
    reached: set[str] = set()
    waiting = list(direct[name])
    while waiting:
        tag = waiting.pop()
        if tag not in reached:
            reached.add(tag)
            waiting.extend(direct.get(tag, ()))
    if name in reached:
        mistakes.add(
            dotted(dotted("tags", name), "expr"),
            f'"{name}" depends on itself',
            "an expression over other tags",
        )
    return frozenset(reached)


def _models(root: Table, assets: Assets, scope: Scope) -> dict[str, ModelSpec]:
    table, overrides = root.sub("model"), root.sub("override")
    defaults = root.sub("defaults")
    defaults.close(("model",))
    used: set[str] = set()
    models: dict[str, ModelSpec] = {}
    for template in table.names():
        layers = [*defaults.sub("model").layers, *table.sub(template).layers]
        for name, asset, unit in _expanded(template, Table(layers, root.mistakes), assets):
            over = overrides.sub(name).layers if name in overrides else ()
            used.update([name] if over else [])
            filled = [(p, cast(dict[str, object], substituted(d, asset, unit))) for p, d in (*layers, *over)]
            if not usable_name(name):  # it becomes a folder, and a model on Triton
                root.mistakes.add(dotted("model", template), f'the name "{name}"', MODEL_NAME)
            if name in models:
                root.mistakes.add(dotted("model", template), f'a second model "{name}"', "each name once")
            models[name] = read_model(name, Table(filled, root.mistakes), scope)
    for name in overrides.names():
        if name not in used:
            near = near_name(name, sorted(models))
            root.mistakes.add(dotted("override", name), f'unknown model "{name}"', "a model of this file", near)
    return models


def _expanded(template: str, table: Table, assets: Assets) -> Iterable[tuple[str, str, str]]:
    """(model name, asset kind, asset name) for each copy; one copy with empty names without `for_each`."""
    kind = table.text("for_each", one_of=tuple(assets))
    if "for_each" not in table:
        return [(template, "", "")]
    placed = "{" + kind + "}" in template
    return [
        (template.replace("{" + kind + "}", name) if placed else f"{template}.{name}", kind, name)
        for name in assets.get(kind, ())
    ]
