"""Sinks written in plant.toml: one table ``[sinks.NAME]`` each."""

from __future__ import annotations

import re
from typing import Literal, cast

from penstock.data.plant import SinkSpec
from penstock.data.plants.source_table import FORMATS, NAME
from penstock.data.plants.tables import Table

KINDS = ("mqtt",)
CATCH_UP = ("all", "newest")
KEYS = ("kind", "topic", "models", "tag", "format", "retain", "catch_up", "feedback")
PARTS = ("plant", "model", "target")
"""What a topic and a tag may have in braces."""
TAG = "{model}.{target}"
TOPIC = 'a topic such as "penstock/{plant}/{model}/{target}": no +, # or empty level, not beginning with $'
LONGEST = 1000
"""Characters of a topic; MQTT has 65,535 bytes, and names are filled in."""


def read_sinks(table: Table) -> dict[str, SinkSpec]:
    """The sinks; mistakes are noted."""
    return {name: _sink(name, table.sub(name)) for name in table.names()}


def _sink(name: str, table: Table) -> SinkSpec:
    table.text("kind", required=True, one_of=KINDS)
    table.close(KEYS)
    if re.fullmatch(r"[A-Za-z0-9_\-]+", name) is None:
        table.mistakes.add("sinks", f'the name "{name}"', NAME)
    topic, tag = table.text("topic", required=True), table.text("tag", TAG)
    if "topic" in table and isinstance(table.raw("topic"), str) and not usable_topic(topic):
        table.wrong("topic", TOPIC)
    for key, text in (("topic", topic), ("tag", tag)):
        if unknown := [part for part in re.findall(r"\{([^{}]*)\}", text) if part not in PARTS]:
            table.mistakes.add(table.place(key), "{" + unknown[0] + "}", "{plant}, {model} or {target}")
    return SinkSpec(
        name=name,
        kind="mqtt",
        topic=topic,
        models=table.texts("models") or ("*",),
        tag=tag,
        format=cast(Literal["json", "arrow"], table.text("format", "json", one_of=FORMATS)),
        retain=table.flag("retain", True),
        catch_up=cast(Literal["all", "newest"], table.text("catch_up", "all", one_of=CATCH_UP)),
        feedback=table.flag("feedback"),
    )


def usable_topic(text: str) -> bool:
    """Whether a message may be published there."""
    levels = text.split("/")
    return 0 < len(text) <= LONGEST and not text.startswith("$") and all(levels) and not set("+#\0") & set(text)
