"""Live sources written in plant.toml: one table ``[sources.NAME]`` each. ``[sources.import]`` is about files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, cast

from penstock.data.plant import SourceKind, SourceSpec
from penstock.data.plants.tables import Table, shown

KINDS = ("mqtt", "opcua", "kafka", "tcp")
FORMATS = ("json", "arrow")
COMMON = ("kind", "lateness", "idle", "skew", "columns")
OWN: Mapping[str, tuple[str, ...]] = {
    "mqtt": ("format", "topics", "tag"),
    "kafka": ("format", "topics", "tag"),
    "opcua": ("nodes", "interval"),
    "tcp": (),
}
"""Keys by kind, beside the common ones."""
KEYS = tuple(dict.fromkeys((*COMMON, *(key for own in OWN.values() for key in own))))
NOT_LIVE = "import"
"""How files are read: `penstock.import_options`."""
NAME = "letters, digits, '_' and '-' only"
MOST_LATE_NS = 2_000_000_000
IDLE_NS, SKEW_NS, INTERVAL_NS = 60_000_000_000, 60_000_000_000, 1_000_000_000


def read_sources(table: Table, period_ns: int) -> dict[str, SourceSpec]:
    """The live sources; mistakes are noted."""
    return {name: _source(name, table.sub(name), period_ns) for name in table.names() if name != NOT_LIVE}


def _source(name: str, table: Table, period_ns: int) -> SourceSpec:
    kind = table.text("kind", required=True, one_of=KINDS)
    table.close((*COMMON, *OWN[kind]) if kind else KEYS)
    if re.fullmatch(r"[A-Za-z0-9_\-]+", name) is None:
        table.mistakes.add("sources", f'the name "{name}"', NAME)
    topics = kind in ("mqtt", "kafka")
    return SourceSpec(
        name=name,
        kind=cast(SourceKind, kind or KINDS[0]),
        lateness_ns=_ns(table, "lateness", min(period_ns, MOST_LATE_NS)),
        idle_ns=_ns(table, "idle", IDLE_NS),
        skew_ns=_ns(table, "skew", SKEW_NS),
        format=cast(Literal["json", "arrow"], table.text("format", "json", one_of=FORMATS)),
        topics=table.texts("topics", required=True) if topics else (),
        tag=table.text("tag"),
        nodes=table.texts("nodes", required=True) if kind == "opcua" else (),
        interval_ns=_ns(table, "interval", INTERVAL_NS),
        columns=_columns(table),
    )


def _ns(table: Table, key: str, default: int) -> int:
    found = table.duration(key)
    return default if found is None else found


def _columns(table: Table) -> dict[str, str | None]:
    """TOML has no null: `false` leaves a name out."""
    said = table.raw("columns")
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        table.wrong("columns", "a table: a name of the source = a tag, or false to leave it out")
        return {}
    for name, tag in said.items():
        if tag is not False and not isinstance(tag, str):
            place = f"{table.place('columns')}.{name}"
            table.mistakes.add(place, shown(tag), "a tag's name, or false to leave it out")
    return {name: tag or None for name, tag in said.items() if tag is False or isinstance(tag, str)}
