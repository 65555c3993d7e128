"""What JSON messages say, read slowly and obviously: the model of `penstock.speed.formats.json_text`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS = {"time": ("time", "timestamp", "ts"), "tag": ("tag", "name"), "quality": ("quality", "status")}
STATUS: dict[object, int] = {"good": 0, "uncertain": 64, "bad": 128, True: 0, False: 128}


class Refused(Exception):
    """Why something is not taken."""


@dataclass
class Said:
    """All that some messages say."""

    rows: list[tuple[str, int, float, int]] = field(default_factory=list)
    """(name, time, value, status)."""
    refused: list[str] = field(default_factory=list)

    def add(self, message: bytes, tag: str, arrival_ns: int | None) -> None:
        try:
            said = json.loads(message)
        except (ValueError, RecursionError):
            self.refused.append(f"no JSON: {message[:60]!r}")
            return
        for one in said if isinstance(said, list) else [said]:
            try:
                self._one(one, tag, arrival_ns)
            except Refused as why:
                self.refused.append(str(why))

    def _one(self, said: Any, tag: str, arrival_ns: int | None) -> None:
        if not isinstance(said, dict):
            self.rows.append((tag, _time({}, arrival_ns), _number(said, tag), 0))
            return
        time_ns, status = _time(said, arrival_ns), _status(said)
        if "value" in said:
            name = _first(said, "tag", tag)
            if not isinstance(name, str):
                raise Refused(f"tag {name!r:.40}: send a name")
            self.rows.append((name, time_ns, _number(said["value"], name), status))
            return
        if isinstance(said.get("values"), dict):
            pairs = said["values"]
        else:
            pairs = {k: v for k, v in said.items() if k not in KEYS["time"] + KEYS["quality"]}
            if not pairs:
                raise Refused('no value: send "value", "values", or tags beside the time')
        for name, value in pairs.items():
            try:
                self.rows.append((name, time_ns, _number(value, name), status))
            except Refused as why:
                self.refused.append(str(why))


def _first(said: Mapping[str, Any], what: str, otherwise: Any) -> Any:
    return next((said[key] for key in KEYS[what] if key in said), otherwise)


def _time(said: Mapping[str, Any], arrival_ns: int | None) -> int:
    found = _first(said, "time", None)
    if found is None:
        if arrival_ns is None:
            raise Refused("a retained message without a time")
        return arrival_ns
    if isinstance(found, str):
        try:
            at = datetime.fromisoformat(found)
        except ValueError:
            raise Refused(f"time {found[:40]!r}: send ISO 8601, such as 2026-05-04T10:00:00Z") from None
        since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH
        digits = re.search(r"[.,]\d{6}(\d{1,3})", found)
        below = int(digits[1].ljust(3, "0")) if digits and len(found) > 26 else 0
        ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000 + below
        shown: object = found[:40]
    elif isinstance(found, bool) or not isinstance(found, int | float):
        raise Refused(f"time {found!r:.40}: send ISO 8601, or a number since 1970")
    else:
        shown = found
        if found != found or abs(found) == float("inf"):
            raise Refused(f"time {shown}: beyond the years 1678 to 2261")
        size = abs(found)
        ns = round(found * (10**9 if size < 1e11 else 10**6 if size < 1e14 else 10**3 if size < 1e17 else 1))
    if not -(2**63) + 1 < ns < 2**63 - 1:
        raise Refused(f"time {shown}: beyond the years 1678 to 2261")
    return ns


def _status(said: Mapping[str, Any]) -> int:
    found = _first(said, "quality", 0)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 255:
        return found
    if isinstance(found, str | bool) and (found.lower() if isinstance(found, str) else found) in STATUS:
        return STATUS[found.lower() if isinstance(found, str) else found]
    raise Refused(f"quality {found!r:.40}: send good, uncertain, bad, or 0 to 255")


def _number(value: Any, tag: str) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, str | int | float):
        try:
            return float(value)
        except OverflowError:
            raise Refused(f"{tag}: {str(value)[:20]}... is too large a number") from None
        except ValueError:
            pass
    raise Refused(f"{tag}: {value!r:.40} is no number")


# Messages: plain ones, odd ones, and what is no JSON

NAMES = st.sampled_from(["A", "B", "old B", "F", "N", "D", "?", "noise", "ä", "", "\ud800"])
INTEGERS = st.one_of(st.integers(-5, 300), st.integers(), st.integers(10**10, 2 * 10**20), st.just(10**400))
NUMBERS = st.one_of(INTEGERS, st.floats(), st.booleans(), st.none(), st.floats(1e9, 2e18))
TEXTS = st.one_of(st.sampled_from(["off", "1.5", " nan ", "1_0", "-inf", "ON"]), st.text(max_size=5))
VALUES = st.one_of(NUMBERS, TEXTS, st.just([1]), st.just({}))
ISO = st.builds(
    "{}{}{}".format,
    st.datetimes().map(lambda t: t.isoformat()),
    st.sampled_from(["", ".5", ".1234567", ".123456789", ",25"]),
    st.sampled_from(["Z", "", "+02:00", "-11:30", "?"]),
)
TIMES = st.one_of(ISO, NUMBERS, TEXTS, st.just([]))
STATUSES = st.one_of(st.sampled_from(["good", "Bad", "UNCERTAIN", "so so"]), st.integers(-3, 300), VALUES)
FIELDS = {
    "value": VALUES, "values": st.one_of(st.dictionaries(NAMES, VALUES, max_size=4), VALUES), "time": TIMES,
    "timestamp": TIMES, "ts": TIMES, "tag": st.one_of(NAMES, VALUES), "name": NAMES, "quality": STATUSES,
    "status": STATUSES, "A": VALUES, "B": NUMBERS, "F": NUMBERS,
}  # fmt: skip
SAID = st.one_of(
    st.fixed_dictionaries({"value": st.floats(-1e6, 1e6), "time": st.integers(1, 2 * 10**12)}),
    st.fixed_dictionaries({}, optional=FIELDS),
    st.dictionaries(NAMES, st.floats(width=32), max_size=4),
    VALUES,
)
JSON = st.one_of(SAID, st.lists(SAID, max_size=3)).map(json.dumps)
MESSAGES = st.one_of(
    JSON.map(str.encode),
    JSON.map(lambda text: text.encode("utf-16")),
    st.builds(lambda text, at: text.encode()[: at % (len(text) + 1)], JSON, st.integers(0, 200)),  # cut off
    st.builds(lambda a, b: (a + b).encode(), JSON, JSON),
    st.binary(max_size=12),
    st.sampled_from(
        [b"", b"-0", b"1e400", b"0.1e-500", b'{"A":1,"A":"x"}', b'{"value":1}\n', b"1" * 5000, b"[" * 2000]
    ),
)
