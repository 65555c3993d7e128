"""JSON messages of devices as readings: one number, one reading, many readings, or many tags at one time.

What is understood, each with or without ``time`` and ``quality``; without a time, the reading is of its arrival:

    21.5                                             the tag is the topic's
    {"value": 21.5, "time": "2026-05-04T10:00:00Z"}  likewise
    {"tag": "T1", "value": 21.5, "time": 1777888800}
    {"values": {"T1": 21.5, "T2": 3}, "time": ...}   or the tags beside the time: {"T1": 21.5, "T2": 3, "time": ...}
    [ ... ]                                          any of the objects

Texts of time are ISO 8601, without an offset in the plant's zone; numbers are seconds, ms, us or ns since 1970, told by
their size. A reading that is no number, or has no usable time, is rejected; the rest of its message is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

import numpy as np

from penstock.data.frame import BAD, GOOD, UNCERTAIN, Frame
from penstock.errors import Mistake, PlantError
from penstock.speed.formats.names import Names

TIME, TAG, QUALITY = ("time", "timestamp", "ts"), ("tag", "name"), ("quality", "status")
"""Keys, the first that is there counts."""
ABOUT = frozenset((*TIME, *QUALITY))
STATUS: Mapping[object, int] = {"good": GOOD, "uncertain": UNCERTAIN, "bad": BAD, True: GOOD, False: BAD}
FINE = re.compile(r"[.,]\d{6}(\d{1,3})")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_NS, LAST_NS = -(2**63) + 1, 2**63 - 1
UNITS = ((1e11, 10**9), (1e14, 10**6), (1e17, 10**3))
"""Numbers below the first are in units of so many ns: seconds until the year 5138, ms, us; larger ones are ns."""


class Unreadable(Exception):
    """A message, or a reading of it, that cannot be read; the text says why."""


class Messages:
    """Reads one source's messages; what was read is taken in batches."""

    def __init__(self, names: Names, zone: tzinfo = UTC) -> None:
        """`zone`: of times without an offset."""
        self._names, self._zone = names, zone
        self._columns: tuple[list[int], list[str], list[float], list[int]] = ([], [], [], [])
        self._rejected = 0

    def __len__(self) -> int:
        return len(self._columns[0]) + self._rejected

    def add(self, message: bytes | str, tag: str, arrival_ns: int | None) -> None:
        """A message that came at `arrival_ns`; `tag`: of readings that name none. What cannot be read is counted.

        `arrival_ns` None: it is older than its arrival, so a reading without a time cannot be taken.
        """
        try:
            said = json.loads(message)
        except (ValueError, RecursionError):
            self._refuse(f"no JSON: {bytes(message[:60]) if isinstance(message, bytes) else message[:60]!r}")
            return
        for one in said if isinstance(said, list) else (said,):
            try:
                self._one(one, tag, arrival_ns)
            except Unreadable as why:
                self._refuse(str(why))

    def take(self) -> tuple[Frame, int]:
        """What was added since the last time: (readings, how many were rejected)."""
        (times, tags, values, quality), rejected = self._columns, self._rejected
        self._columns, self._rejected = ([], [], [], []), 0
        where: dict[str, int] = {}
        at = np.fromiter((where.setdefault(tag, len(where)) for tag in tags), np.int64, len(tags))
        frame, more = self._names.long(
            np.array(times, np.int64), at, list(where), np.array(values, np.float64), np.array(quality, np.uint8)
        )
        return frame, rejected + more

    def _refuse(self, why: str) -> None:
        self._rejected += 1
        self._names.link.refuse(why)

    def _one(self, said: Any, tag: str, arrival_ns: int | None) -> None:
        if not isinstance(said, dict):
            self._put(self._time({}, arrival_ns), tag, said, GOOD)
            return
        time_ns, status = self._time(said, arrival_ns), _status(said)
        if "value" in said:
            self._put(time_ns, _tag(said, tag), said["value"], status)
            return
        values = said.get("values")
        pairs = values.items() if isinstance(values, dict) else _beside(said)
        for name, value in pairs:
            try:
                self._put(time_ns, name, value, status)
            except Unreadable as why:
                self._refuse(str(why))

    def _put(self, time_ns: int, tag: str, value: Any, status: int) -> None:
        times, tags, values, quality = self._columns
        number = _number(value, tag)  # before anything is added: a reading is whole or not there
        times.append(time_ns)
        tags.append(tag)
        values.append(number)
        quality.append(status)

    def _time(self, said: Mapping[str, Any], arrival_ns: int | None) -> int:
        found = next((said[key] for key in TIME if key in said), None)
        if found is None:
            if arrival_ns is None:
                raise Unreadable("a retained message without a time")
            return arrival_ns
        if isinstance(found, str):
            return self._text_time(found)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise Unreadable(f"time {found!r:.40}: send ISO 8601, or a number since 1970")
        unit = next((ns for limit, ns in UNITS if abs(found) < limit), 1)
        at = round(found * unit)
        if not FIRST_NS < at < LAST_NS:
            raise Unreadable(f"time {found}: beyond the years 1678 to 2261")
        return at

    def _text_time(self, text: str) -> int:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise Unreadable(f"time {text[:40]!r}: send ISO 8601, such as 2026-05-04T10:00:00Z") from None
        since = (at if at.tzinfo else at.replace(tzinfo=self._zone)) - EPOCH
        ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000 + _below_us(text)
        if not FIRST_NS < ns < LAST_NS:
            raise Unreadable(f"time {text[:40]}: beyond the years 1678 to 2261")
        return ns


class TopicTag:
    """The tag of a message that names none, from its topic."""

    def __init__(self, template: str, place: str) -> None:
        """`template`: levels in braces, counted from 1 (from the end: -1), such as "{2}/{-1}"; empty: the whole topic.

        Raises PlantError, naming `place`, for braces that hold no level.
        """
        self._template = template
        self._known: dict[str, str] = {}
        if re.sub(r"\{-?[1-9]\d?\}", "", template).count("{"):
            allowed = 'text with levels of the topic in braces, such as "{2}/{-1}"'
            raise PlantError([Mistake(file="plant.toml", key=place, found=f'"{template}"', allowed=allowed)])

    def of(self, topic: str) -> str:
        """The tag; a level that the topic does not have is empty."""
        found = self._known.get(topic)
        if found is None:
            if len(self._known) > 1 << 20:
                self._known.clear()
            found = self._known[topic] = self._filled(topic) if self._template else topic
        return found

    def _filled(self, topic: str) -> str:
        levels = topic.split("/")

        def level(match: re.Match[str]) -> str:
            at = int(match[1])
            at = at - 1 if at > 0 else at
            return levels[at] if -len(levels) <= at < len(levels) else ""

        return re.sub(r"\{(-?\d+)\}", level, self._template)


def _below_us(text: str) -> int:
    """ns that a time's fraction has beyond its microseconds; datetime knows none."""
    match = FINE.search(text) if len(text) > len("2026-05-04T10:00:00.123456") else None
    return int(match[1].ljust(3, "0")) if match else 0


def _tag(said: Mapping[str, Any], tag: str) -> str:
    named = next((said[key] for key in TAG if key in said), tag)
    if not isinstance(named, str):
        raise Unreadable(f"tag {named!r:.40}: send a name")
    return named


def _beside(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tags that stand beside the time."""
    pairs = [(name, value) for name, value in said.items() if name not in ABOUT]
    if not pairs:
        raise Unreadable('no value: send "value", "values", or tags beside the time')
    return iter(pairs)


def _status(said: Mapping[str, Any]) -> int:
    found = next((said[key] for key in QUALITY if key in said), GOOD)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 255:
        return found
    status = STATUS.get(found.lower() if isinstance(found, str) else found) if _plain(found) else None
    if status is None:
        raise Unreadable(f"quality {found!r:.40}: send good, uncertain, bad, or 0 to 255")
    return status


def _plain(found: object) -> bool:
    return isinstance(found, str | bool)


def _number(value: Any, tag: str) -> float:
    """null is NaN: the device says that it has no value."""
    if isinstance(value, float | int):  # true and false are states
        try:
            return float(value)
        except OverflowError:
            raise Unreadable(f"{tag}: {str(value)[:20]}... is too large a number") from None
    if value is None:
        return float("nan")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    raise Unreadable(f"{tag}: {value!r:.40} is no number")
