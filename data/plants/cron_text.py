"""Cron expressions as crontab(5) has them: five fields of numbers, names, ranges, steps and lists.

Parsed here once, into numbers: libraries disagree on which weekday is 0, and on what two restricted days mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ALLOWED = 'five fields - minute, hour, day, month, weekday - such as "0 3 * * SUN" or "*/15 6-22 * * 1-5"'
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """When: ascending numbers per field."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """0 is Sunday."""
    either: bool
    """Days and weekdays are both restricted: then a day of either kind will do."""


def parse_cron(text: str) -> Cron:
    """Raises ValueError that names the field."""
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(ALLOWED)
    minutes = _field(fields[0], "minute", 0, 59)
    hours = _field(fields[1], "hour", 0, 23)
    days = _field(fields[2], "day", 1, 31)
    months = _field(fields[3], "month", 1, 12, {name: i for i, name in enumerate(_MONTHS, start=1)})
    weekdays = _field(fields[4], "weekday", 0, 7, {name: i for i, name in enumerate(_WEEKDAYS)})
    return Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=tuple(sorted({day % 7 for day in weekdays})),
        either=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )


def _field(text: str, what: str, low: int, high: int, names: dict[str, int] | None = None) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{ALLOWED}: {what} is {text!r}")
        star, begin, end, step = match.groups()
        first = low if star else _number(begin, names)
        last = _number(end, names) if end else high if star or step else first
        if what == "weekday" and end and last == 0 and first:
            last = 7  # FRI-SUN
        if first is None or last is None or not low <= first <= last <= high or step == "0":
            raise ValueError(f"{ALLOWED}: {what} is {text!r}; it lies within {low}-{high}")
        found.update(range(first, last + 1, int(step or 1)))
    return tuple(sorted(found))


def _number(text: str, names: dict[str, int] | None) -> int | None:
    return int(text) if text.isdecimal() else (names or {}).get(text.upper())
