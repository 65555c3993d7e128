"""``[aggregates]`` of plant.toml: which statistics of which tags are kept."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.data.durations import DURATION, parse_duration
from penstock.data.plant import AggregateSpec, Tag
from penstock.data.plants.tables import Table, near_name, shown
from penstock.data.plants.templates import Names

KEYS = ("periods", "tags")


def read_aggregates(table: Table, period_ns: int, tags: Mapping[str, Tag]) -> AggregateSpec:
    """Periods in ascending order, and the stored tags whose names match; mistakes are noted."""
    table.close(KEYS)
    stored = [tag.name for tag in tags.values() if tag.expr is None]
    patterns = table.texts("tags") if "tags" in table else ("*",)
    return AggregateSpec(
        periods_ns=_periods(table, period_ns), tags=chosen(table, "tags", patterns, Names(stored), "stored tags")
    )  # fmt: skip


def _periods(table: Table, period_ns: int) -> tuple[int, ...]:
    found: list[int] = []
    for text in table.texts("periods", required=True):
        try:
            length = parse_duration(text)
        except ValueError:
            table.mistakes.add(table.place("periods"), shown(text), DURATION)
            continue
        before = found[-1] if found else period_ns
        if period_ns and (length <= before or length % before):
            allowed = "each a multiple of the one before, the first of the plant's period"
            table.mistakes.add(table.place("periods"), shown(text), allowed)
            continue
        found.append(length)
    return tuple(found)


def chosen(table: Table, key: str, patterns: tuple[str, ...], names: Names, what: str) -> tuple[str, ...]:
    """Of `names`, in their order; a pattern with "!" takes names away again. Mistakes are noted at `key`."""
    found: set[str] = set()
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        some = [bare] if bare in names else names.matching(bare)
        if not some:
            near = near_name(bare, names.sorted)
            table.mistakes.add(table.place(key), shown(pattern), f"{what}: names, globs, exclusions with !", near)
        found = found - set(some) if pattern.startswith("!") else found | set(some)
    return tuple(name for name in names.position if name in found)
