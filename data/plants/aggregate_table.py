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
        periods_ns=_periods(table, period_ns), tags=_chosen(table, patterns, Names(stored))
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


def _chosen(table: Table, patterns: tuple[str, ...], names: Names) -> tuple[str, ...]:
    """In the order of the file; a pattern with "!" takes names away again."""
    chosen: set[str] = set()
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        found = [bare] if bare in names else names.matching(bare)
        if not found:
            near = near_name(bare, names.sorted)
            table.mistakes.add(
                table.place("tags"), shown(pattern), "stored tags: names, globs, exclusions with !", near
            )
        chosen = chosen - set(found) if pattern.startswith("!") else chosen | set(found)
    return tuple(name for name in names.position if name in chosen)
