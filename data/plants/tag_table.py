"""Tags written in plant.toml: one small table per tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, cast

from penstock.data.durations import DURATION
from penstock.data.plant import Join, Tag
from penstock.data.plants.tables import Mistakes, Table, dotted, shown
from penstock.data.plants.templates import substituted

KINDS = ("value", "counter", "state")
DTYPES = ("float32", "float64")
REPORTS = ("on change", "every period")
JOINS = ("last", "nearest", "linear")
TAG_KEYS = (
    "unit",
    "description",
    "kind",
    "dtype",
    "range",
    "rate",
    "flat_after",
    "max_gap",
    "substitute",
    "truth_delay",
    "ahead",
    "join",
    "join_delay",
    "reports",
    "heartbeat",
    "scale",
    "offset",
    "expr",
    "valid",
    "aliases",
    "for_each",
)

Assets = Mapping[str, tuple[str, ...]]
"""Names per asset kind: ``{"unit": ("U001", "U002")}``."""


def read_tags(data: Mapping[str, object], assets: Assets, mistakes: Mistakes) -> Iterator[Tag]:
    """The tags of ``[tags]``, templates expanded, in file order; names may still repeat."""
    over = Table([("tags", data)], mistakes).text("for_each", one_of=tuple(assets)) if _every(data) else ""
    for name, value in data.items():
        if name in ("file", "for_each") and isinstance(value, str):
            continue
        if not isinstance(value, Mapping):
            mistakes.add(dotted("tags", name), shown(value), 'a table, such as { unit = "degC" }')
            continue
        own = Table([(dotted("tags", name), value)], mistakes).text("for_each", over, one_of=tuple(assets))
        if not own:
            yield read_tag(name, Table([(dotted("tags", name), value)], mistakes))
            continue
        if "{" + own + "}" not in name:
            mistakes.add(dotted("tags", name), f'"{name}"', f"a name with {{{own}}} in it, as it is for_each {own}")
            continue
        for asset in assets.get(own, ()):
            filled = cast(dict[str, object], substituted(value, own, asset))
            table = Table([(dotted("tags", name), filled)], mistakes)
            yield read_tag(str(substituted(name, own, asset)), table)


def _every(data: Mapping[str, object]) -> bool:
    return isinstance(data.get("for_each"), str)


def read_tag(name: str, table: Table) -> Tag:
    """One tag from its table; mistakes are noted and their keys left at the default."""
    table.close(TAG_KEYS)
    if not name.strip():
        table.mistakes.add("tags", '""', "a tag name that is not empty")
    heartbeat = table.duration("heartbeat")
    if table.text("reports", one_of=REPORTS) == "on change" and "heartbeat" not in table:
        table.wrong("heartbeat", f'{DURATION}, as it reports = "on change"')
    scale, offset = table.number("scale"), table.number("offset")
    if scale == 0:
        table.wrong("scale", "a number that is not 0")
    return Tag(
        name=name,
        unit=table.text("unit"),
        description=table.text("description"),
        kind=cast(Literal["value", "counter", "state"], table.text("kind", "value", one_of=KINDS)),
        dtype=cast(Literal["float32", "float64"], table.text("dtype", "float32", one_of=DTYPES)),
        range=table.range("range"),
        rate=table.rate("rate"),
        flat_after_ns=table.duration("flat_after"),
        max_gap_ns=table.duration("max_gap") or 0,
        substitute=table.number("substitute"),
        truth_delay_ns=table.duration("truth_delay") or 0,
        ahead_ns=table.duration("ahead") or 0,
        join=cast(Join, table.text("join", "last", one_of=JOINS)),
        join_delay_ns=table.duration("join_delay") or 0,
        heartbeat_ns=heartbeat,
        scale=1.0 if scale is None else scale,
        offset=0.0 if offset is None else offset,
        expr=table.text("expr") or None,
        valid=table.text("valid") or None,
        aliases=table.texts("aliases"),
    )
