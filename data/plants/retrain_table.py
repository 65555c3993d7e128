"""The table `retrain` of a model: when and why it is trained again, on which part of the history, who promotes it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Literal, cast
from zoneinfo import ZoneInfo

from penstock.data.durations import DURATION
from penstock.data.plant import DriftSpec, RetrainSpec
from penstock.data.plants.cron_text import parse_cron
from penstock.data.plants.tables import Table, shown

RETRAIN_KEYS = (
    "cron", "span", "start", "end", "rows", "leave_out", "judge", "warm", "promote", "live", "on_drift",
)  # fmt: skip
DRIFT_KEYS = ("kinds", "cron", "over", "pause")
TIME = 'a time such as "2014", "2014-03-01" or "2014-03-01 12:00"'
_YEAR = re.compile(r"\d{4}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_retrain(table: Table, timezone: str) -> RetrainSpec:
    """Mistakes are noted and their keys left at the default; times without an offset are in `timezone`."""
    table.close(RETRAIN_KEYS)
    cron = _cron(table)
    start_ns, end_ns = _time(table, "start", timezone), _time(table, "end", timezone)
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        table.wrong("end", "a time behind start")
    judge_ns, live_ns = table.duration("judge"), table.duration("live")
    if judge_ns == 0:
        table.wrong("judge", 'a duration longer than 0, such as "30d"')
    if live_ns == 0:
        table.wrong("live", 'a duration longer than 0, such as "7d"')
    return RetrainSpec(
        cron=cron,
        span_ns=table.duration("span"),
        start_ns=start_ns,
        end_ns=end_ns,
        rows=table.whole("rows", 0) or None,
        leave_out=_spans(table, "leave_out", timezone),
        judge_ns=judge_ns,
        warm=table.flag("warm"),
        promote=cast(Literal["auto", "manual"], table.text("promote", "manual", one_of=("auto", "manual"))),
        live_ns=live_ns or None,
        drift=_drift(table),
    )


def _cron(table: Table) -> str | None:
    cron = table.text("cron") or None
    try:
        parse_cron(cron or "* * * * *")
    except ValueError as error:
        table.wrong("cron", str(error))
    return cron


def _drift(table: Table) -> DriftSpec | None:
    """`on_drift`: true, a list of kinds, or a table."""
    found = table.raw("on_drift")
    if found is None or found is False:
        return None
    if found is True:
        return DriftSpec()
    if isinstance(found, list):
        return DriftSpec(kinds=_kinds(table, "on_drift", found))
    mine, usual = table.sub("on_drift"), DriftSpec()
    mine.close(DRIFT_KEYS)
    over, pause = mine.duration("over"), mine.duration("pause")
    if over == 0:
        mine.wrong("over", f"{DURATION}, longer than 0")
    return DriftSpec(
        kinds=_kinds(mine, "kinds", mine.raw("kinds")) if "kinds" in mine else usual.kinds,
        cron=_cron(mine) or usual.cron,
        over_ns=over or usual.over_ns,
        pause_ns=usual.pause_ns if pause is None else pause,
    )


def _kinds(table: Table, key: str, found: object) -> tuple[str, ...]:
    """Of drift, in the order of the file."""
    allowed = DriftSpec().kinds
    if isinstance(found, list) and found and all(kind in allowed for kind in found):
        return tuple(dict.fromkeys(found))
    table.mistakes.add(table.place(key), shown(found), f"some of {', '.join(map(repr, allowed))}")
    return allowed


def time_ns(value: object, timezone: str) -> int:
    """ns UTC of an ISO 8601 text, a year, or a date or time of TOML's own; in `timezone` where it has no offset.

    Raises ValueError.
    """
    if isinstance(value, str):
        text = value.strip()
        value = datetime.fromisoformat(f"{text}-01-01" if _YEAR.fullmatch(text) else text)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the zone is given below
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is no time")
    known = value if value.tzinfo is not None else value.replace(tzinfo=ZoneInfo(timezone))
    passed = known - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1_000


def _time(table: Table, key: str, timezone: str) -> int | None:
    if key not in table:
        return None
    try:
        return time_ns(table.raw(key), timezone)
    except ValueError:
        table.wrong(key, TIME)
        return None


def _spans(table: Table, key: str, timezone: str) -> tuple[tuple[int, int], ...]:
    """Pairs of times, in order of time."""
    value = table.raw(key)
    if value is None:
        return ()
    found = []
    for pair in value if isinstance(value, list) else [value]:
        try:
            begin, end = (time_ns(moment, timezone) for moment in pair) if isinstance(pair, list) else (0, 0)
        except ValueError:
            begin, end = 0, 0
        if begin < end:
            found.append((begin, end))
        else:
            allowed = 'pairs of times, [["2014-03-01", "2014-03-08"]], the second behind the first'
            table.mistakes.add(table.place(key), shown(pair), allowed)
    return tuple(sorted(found))
