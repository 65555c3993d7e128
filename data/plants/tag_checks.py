"""What no tag can say of itself alone: joins beside period and kind, conditions beside the other tags."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.data.derived import stored_tags
from penstock.data.expressions import names
from penstock.data.plant import Tag
from penstock.data.plants.tables import Mistakes, dotted, near_name, shown
from penstock.errors import ExpressionError, PlantError


def check_joins(tags: Mapping[str, Tag], period_ns: int, mistakes: Mistakes) -> None:
    """Note joins that cannot be: of what is no plain reading, without their delay, or not in whole periods."""
    for tag in tags.values():
        if tag.join == "last" and not tag.join_delay_ns:
            continue
        place = dotted("tags", tag.name)
        if tag.join == "last":
            mistakes.add(dotted(place, "join_delay"), "no join that waits", 'join = "nearest" or "linear" beside it')
        elif tag.ahead_ns:  # the archive orders the words on a tick by their arrival, not by their time
            mistakes.add(
                dotted(place, "join"),
                f'"{tag.join}" of a tag with `ahead`',
                '"last": of a forecast the last word holds',
            )
        elif tag.expr is not None or tag.kind != "value" or tag.heartbeat_ns is not None:
            what = "a derived tag" if tag.expr is not None else "a counter, a state, or a tag that reports on change"
            mistakes.add(dotted(place, "join"), f'"{tag.join}" of {what}', "plain values, reported now and then")
        elif period_ns and (tag.join_delay_ns < period_ns or tag.join_delay_ns % period_ns):
            found = f"{tag.join_delay_ns / 1e9:g} s" if tag.join_delay_ns else "nothing"
            allowed = "how far a reading may be from its tick: a multiple of the plant's period, at least one"
            mistakes.add(dotted(place, "join_delay"), found, allowed)


def check_conditions(tags: Mapping[str, Tag], mistakes: Mistakes) -> None:
    """Note a `valid` that cannot be read, names what is no tag, stands at a derived tag or rests on its own tag."""
    for tag in tags.values():
        if tag.valid is None:
            continue
        place = dotted(dotted("tags", tag.name), "valid")
        try:
            unknown = [name for name in names(tag.valid) if name not in tags]
        except ExpressionError as error:
            mistakes.add(place, shown(tag.valid), f"an expression over tags ({error})")
            continue
        for name in unknown:
            mistakes.add(place, f'unknown tag "{name}"', "a tag of [tags]", near_name(name, sorted(tags)))
        if tag.expr is not None:
            mistakes.add(place, "a condition of a derived tag", "stored tags; write where(..., ..., 0/0) in its expr")
        elif not unknown and _circular(tag.name, tags):
            mistakes.add(place, f'"{tag.name}" depends on itself', "an expression over other tags")


def _circular(name: str, tags: Mapping[str, Tag]) -> bool:
    """Whether what a tag needs needs it again; what is wrong with others is told at their own places."""
    try:
        stored_tags([name], tags)
    except (PlantError, ExpressionError) as error:
        return "needs itself" in str(error)
    return False
