"""Spans of a data set that has no calendar: "60d", "60d..90d", counted from its first moment."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.data.durations import parse_duration
from penstock.errors import SourceError

ALLOWED = "a span such as 60d (from the beginning) or 60d..90d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """[first_ns, last_ns) after a data set's first moment."""

    first_ns: int
    last_ns: int | None
    """None: to its end."""


def parse_span(text: str, of: str) -> Span:
    """ "" is all there is, "60d" the first 60 days, "60d..90d" the 30 days after them, "60d.." all after them.

    `of` names the data set in messages. Raises SourceError where the text is no span, or an empty one.
    """
    head, dots, tail = text.partition("..")
    try:
        first = parse_duration(head) if dots and head else 0
        last = parse_duration(tail if dots else head) if (tail if dots else head) else None
    except ValueError as error:
        raise SourceError(f"{of}:{text}: {error}; allowed: {ALLOWED}") from None
    if last is not None and last <= first:
        raise SourceError(f"{of}:{text}: is empty; allowed: {ALLOWED}")
    return Span(first_ns=first, last_ns=last)
