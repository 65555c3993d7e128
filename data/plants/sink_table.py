"""Sinks written in plant.toml: one table ``[sinks.NAME]`` each."""

from __future__ import annotations

import re
from typing import Literal, cast

from penstock.data.durations import duration_text, parse_duration
from penstock.data.plant import AggregateSpec, SinkSpec
from penstock.data.plants.aggregate_table import chosen
from penstock.data.plants.source_table import FORMATS, NAME
from penstock.data.plants.tables import Table, shown
from penstock.data.plants.templates import Names

KINDS = ("mqtt",)
CATCH_UP = ("all", "newest")
SHARED = ("kind", "topic", "tag", "format", "retain", "catch_up", "feedback")
KEYS = (*SHARED, "models", "aggregates")
AGGREGATE_KEYS = (*SHARED, "aggregates", "periods", "functions")
PARTS = ("plant", "model", "target")
"""What a topic and a tag may have in braces."""
AGGREGATE_PARTS = ("plant", "tag", "period", "function")
TAG = "{model}.{target}"
AGGREGATE_TAG = "{tag}.{function}.{period}"
FUNCTIONS = ("count", "mean", "min", "max", "std")
TOPIC = 'a topic such as "penstock/{plant}/{model}/{target}": no +, # or empty level, not beginning with $'
LONGEST = 1000
"""Characters of a topic; MQTT has 65,535 bytes, and names are filled in."""


def read_sinks(table: Table, kept: AggregateSpec) -> dict[str, SinkSpec]:
    """The sinks, of a plant that keeps these aggregates; mistakes are noted."""
    return {name: _sink(name, table.sub(name), kept) for name in table.names()}


def _sink(name: str, table: Table, kept: AggregateSpec) -> SinkSpec:
    aggregates = "aggregates" in table
    table.text("kind", required=True, one_of=KINDS)
    table.close(AGGREGATE_KEYS if aggregates else KEYS)
    if re.fullmatch(r"[A-Za-z0-9_\-]+", name) is None:
        table.mistakes.add("sinks", f'the name "{name}"', NAME)
    topic, tag = table.text("topic", required=True), table.text("tag", AGGREGATE_TAG if aggregates else TAG)
    if "topic" in table and isinstance(table.raw("topic"), str) and not usable_topic(topic):
        table.wrong("topic", TOPIC)
    _check_parts(table, {"topic": topic, "tag": tag}, AGGREGATE_PARTS if aggregates else PARTS)
    return SinkSpec(
        name=name,
        kind="mqtt",
        topic=topic,
        models=table.texts("models") or ("*",),
        tag=tag,
        format=cast(Literal["json", "arrow"], table.text("format", "json", one_of=FORMATS)),
        retain=table.flag("retain", not aggregates),
        catch_up=cast(
            Literal["all", "newest"], table.text("catch_up", "all", one_of=CATCH_UP[:1] if aggregates else CATCH_UP)
        ),
        feedback=table.flag("feedback"),
        aggregates=_tags(table, kept) if aggregates else (),
        periods_ns=_periods(table, kept) if aggregates else (),
        functions=_functions(table) if aggregates else (),
    )


def _check_parts(table: Table, texts: dict[str, str], parts: tuple[str, ...]) -> None:
    allowed = ", ".join("{" + part + "}" for part in parts[:-1]) + " or {" + parts[-1] + "}"
    for key, text in texts.items():
        if unknown := [part for part in re.findall(r"\{([^{}]*)\}", text) if part not in parts]:
            table.mistakes.add(table.place(key), "{" + unknown[0] + "}", allowed)


def _tags(table: Table, kept: AggregateSpec) -> tuple[str, ...]:
    if not kept.tags:
        table.wrong("aggregates", "a plant with a table [aggregates] that keeps some")
        return ()
    patterns = table.texts("aggregates", required=True)
    return chosen(table, "aggregates", patterns, Names(kept.tags), "tags of [aggregates]")


def _periods(table: Table, kept: AggregateSpec) -> tuple[int, ...]:
    """Those of [aggregates] that are named, in its order; all where none is."""
    known = ", ".join(f'"{duration_text(length)}"' for length in kept.periods_ns)
    found = set()
    for text in table.texts("periods"):
        length = _length(text)
        if length in kept.periods_ns:
            found.add(length)
        elif kept.tags:
            table.mistakes.add(table.place("periods"), shown(text), f"periods of [aggregates]: {known}")
    return tuple(length for length in kept.periods_ns if length in found or "periods" not in table)


def _length(text: str) -> int | None:
    try:
        return parse_duration(text)
    except ValueError:
        return None


def _functions(table: Table) -> tuple[str, ...]:
    found = table.texts("functions", required="functions" in table)
    for text in found:
        if text not in FUNCTIONS:
            table.mistakes.add(table.place("functions"), shown(text), ", ".join(f'"{f}"' for f in FUNCTIONS))
    return tuple(f for f in FUNCTIONS if f in found or "functions" not in table)


def usable_topic(text: str) -> bool:
    """Whether a message may be published there."""
    levels = text.split("/")
    return 0 < len(text) <= LONGEST and not text.startswith("$") and all(levels) and not set("+#\0") & set(text)
