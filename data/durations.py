"""Durations and rates as people write them: "1h", "250ms", "3y", "5/min".

Text stands in files only; everywhere else a duration is integer nanoseconds
and a rate is a number per second. This file knows nothing of plants.
"""

from __future__ import annotations

import re
from decimal import Decimal

SECOND_NS = 1_000_000_000

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": SECOND_NS,
    "min": 60 * SECOND_NS,
    "h": 3_600 * SECOND_NS,
    "d": 86_400 * SECOND_NS,
    "w": 7 * 86_400 * SECOND_NS,
    "y": 365 * 86_400 * SECOND_NS,
}
"""A year is 365 days: a duration has no calendar."""

DURATION = 'a duration such as "10s", "30min", "1h", "2d" or "3y"'
"""What may stand where a duration does, for messages."""
RATE = 'a number per second, or text such as "5/min" or "0.2/s"'
"""What may stand where a rate does, for messages."""

_LONGEST_NS = 2**63 - 1
_NUMBER = r"\d+(?:\.\d+)?"
_TEXT = re.compile(rf"\s*({_NUMBER})\s*([a-z]+)\s*", re.ASCII)
_RATE = re.compile(rf"\s*({_NUMBER}(?:[eE][+-]?\d+)?)\s*/\s*([a-z]+)\s*", re.ASCII)


def parse_duration(text: str) -> int:
    """Nanoseconds of "1h", "30min", "1.5s"; never negative.

    Raises ValueError when the text is no duration, no whole number of
    nanoseconds, or longer than 292 years.
    """
    match = _TEXT.fullmatch(text)
    if match is None or match[2] not in UNITS_NS:
        raise ValueError(f"{text!r} is not {DURATION}")
    span = Decimal(match[1]) * UNITS_NS[match[2]]
    if span != span.to_integral_value() or span > _LONGEST_NS:
        raise ValueError(f"{text!r} is not a whole number of nanoseconds below 292 years")
    return int(span)


def duration_text(span_ns: int) -> str:
    """The shortest text that `parse_duration` reads back as `span_ns`; never in years or weeks."""
    for unit in ("d", "h", "min", "s", "ms", "us"):
        if span_ns and span_ns % UNITS_NS[unit] == 0:
            return f"{span_ns // UNITS_NS[unit]}{unit}"
    return f"{span_ns}ns" if span_ns else "0s"


def parse_rate(text: str) -> float:
    """Per second, of "5/min", "0.2/s".

    Raises ValueError when the text is no rate.
    """
    match = _RATE.fullmatch(text)
    if match is None or match[2] not in UNITS_NS:
        raise ValueError(f"{text!r} is not {RATE}")
    return float(match[1]) * SECOND_NS / UNITS_NS[match[2]]
