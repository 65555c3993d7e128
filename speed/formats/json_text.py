"""JSON messages of devices as readings: one number, one reading, many readings, or many tags at one time.

What is understood, each with or without ``time`` and ``quality``; without a time, the reading is of its arrival:

    21.5                                             the tag is the topic's
    {"value": 21.5, "time": "2026-05-04T10:00:00Z"}  likewise
    {"tag": "T1", "value": 21.5, "time": 1777888800}
    {"values": {"T1": 21.5, "T2": 3}, "time": ...}   or the tags beside the time: {"T1": 21.5, "T2": 3, "time": ...}
    [ ... ]                                          any of the objects

Texts of time are ISO 8601, without an offset in the plant's zone; numbers are seconds, ms, us or ns since 1970, told by
their size. A reading that is no number, or has no usable time, is rejected; the rest of its message is taken.

Messages come one by one, tens of thousands a second: what is done for each of them is counted in hundreds of ns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, tzinfo
from itertools import repeat
from typing import Any

import msgspec
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
S_BELOW, MS_BELOW, US_BELOW = 1e11, 1e14, 1e17
"""Numbers below these are seconds (until the year 5138), ms and us; larger ones are ns."""
NUMBERS = frozenset((int, float, bool))
"""true and false are states."""

_decode = msgspec.json.Decoder().decode
"""Ten times as fast as `json.loads` and stricter: what it takes, `json.loads` takes as the same."""


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
            said = _decoded(message)
        except (ValueError, RecursionError):
            self._refuse(f"no JSON: {bytes(message[:60]) if isinstance(message, bytes) else message[:60]!r}")
            return
        for one in said if type(said) is list else (said,):
            try:
                self._one(one, tag, arrival_ns)
            except Unreadable as why:
                self._refuse(str(why))

    def take(self) -> tuple[Frame, int]:
        """What was added since the last time: (readings, how many were rejected)."""
        (times, tags, values, quality), rejected = self._columns, self._rejected
        self._columns, self._rejected = ([], [], [], []), 0
        frame, more = self._names.each(
            np.array(times, np.int64), tags, np.array(values, np.float64), np.array(quality, np.uint8)
        )
        return frame, rejected + more

    def _refuse(self, why: str) -> None:
        self._rejected += 1
        self._names.link.refuse(why)

    def _one(self, said: Any, tag: str, arrival_ns: int | None) -> None:
        if type(said) is not dict:
            self._put(_arrived(arrival_ns), tag, said, GOOD)
            return
        time_ns, status = self._time(said, arrival_ns), _status(said)
        if "value" in said:
            self._put(time_ns, _tag(said, tag), said["value"], status)
            return
        values = said.get("values")
        self._put_all(time_ns, values if type(values) is dict else _beside(said), status)

    def _put(self, time_ns: int, tag: str, value: Any, status: int) -> None:
        times, tags, values, quality = self._columns
        values.append(value if type(value) is float else _number(value, tag))  # or raises, before anything is added
        times.append(time_ns)
        tags.append(tag)
        quality.append(status)

    def _put_all(self, time_ns: int, said: Mapping[str, Any], status: int) -> None:
        """Readings of one time; those that cannot be taken are counted."""
        numbers = _numbers(said.values())
        if numbers is not None:
            times, tags, values, quality = self._columns
            times.extend(repeat(time_ns, len(said)))
            tags.extend(said)
            values.extend(numbers)
            quality.extend(repeat(status, len(said)))
            return
        for name, value in said.items():
            try:
                self._put(time_ns, name, value, status)
            except Unreadable as why:
                self._refuse(str(why))

    def _time(self, said: Mapping[str, Any], arrival_ns: int | None) -> int:
        found = said["time"] if "time" in said else said.get("timestamp", said.get("ts"))
        if type(found) is int or type(found) is float:
            return _since_1970(found)
        if found is None:
            return _arrived(arrival_ns)
        if type(found) is str:
            return self._text_time(found)
        raise Unreadable(f"time {found!r:.40}: send ISO 8601, or a number since 1970")

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


def _decoded(message: bytes | str) -> Any:
    """Raises ValueError or RecursionError where it is no JSON."""
    try:
        return _decode(message)
    except (msgspec.DecodeError, RecursionError):
        return json.loads(message)  # it takes more: NaN, UTF-16, numbers of any size


def _arrived(arrival_ns: int | None) -> int:
    if arrival_ns is None:
        raise Unreadable("a retained message without a time")
    return arrival_ns


def _since_1970(number: float) -> int:
    size = abs(number)
    unit = 1_000_000_000 if size < S_BELOW else 1_000_000 if size < MS_BELOW else 1000 if size < US_BELOW else 1
    at = number * unit
    if not FIRST_NS < at < LAST_NS:  # nor is NaN
        raise Unreadable(f"time {number}: beyond the years 1678 to 2261")
    return at if type(at) is int else round(at)


def _below_us(text: str) -> int:
    """ns that a time's fraction has beyond its microseconds; datetime knows none."""
    match = FINE.search(text) if len(text) > len("2026-05-04T10:00:00.123456") else None
    return int(match[1].ljust(3, "0")) if match else 0


def _tag(said: Mapping[str, Any], tag: str) -> str:
    named = said["tag"] if "tag" in said else said.get("name", tag)
    if type(named) is not str:
        raise Unreadable(f"tag {named!r:.40}: send a name")
    return named


def _beside(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tags that stand beside the time."""
    found = {name: value for name, value in said.items() if name not in ABOUT}
    if not found:
        raise Unreadable('no value: send "value", "values", or tags beside the time')
    return found


def _status(said: Mapping[str, Any]) -> int:
    found = said["quality"] if "quality" in said else said.get("status", GOOD)
    if type(found) is int and 0 <= found <= 255:
        return found
    status = STATUS.get(found.lower() if type(found) is str else found) if type(found) in (str, bool) else None
    if status is None:
        raise Unreadable(f"quality {found!r:.40}: send good, uncertain, bad, or 0 to 255")
    return status


def _numbers(values: Collection[Any]) -> list[float] | None:
    """All of them, where all are plain numbers that are not too large."""
    if NUMBERS.issuperset(map(type, values)):
        try:
            return list(map(float, values))
        except OverflowError:
            pass
    return None


def _number(value: Any, tag: str) -> float:
    """null is NaN: the device says that it has no value."""
    if type(value) in NUMBERS:
        try:
            return float(value)
        except OverflowError:
            raise Unreadable(f"{tag}: {str(value)[:20]}... is too large a number") from None
    if value is None:
        return float("nan")
    if type(value) is str:
        try:
            return float(value)
        except ValueError:
            pass
    raise Unreadable(f"{tag}: {value!r:.40} is no number")
