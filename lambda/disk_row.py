"""The row `disk` of `status`: what the site takes, how fast it grows, when the disk is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.data.durations import parse_duration
from penstock.disk import DAY_NS, LEAST_FREE, Forecast, Sample, forecast, free_bytes, read_usage, size_text, usage

if TYPE_CHECKING:
    from penstock.site import Site

YEAR_DAYS = 365.0


def disk_row(site: Site, now_ns: int) -> dict[str, str]:
    """part, state, what, todo."""
    sample = usage(site.folder, now_ns)
    keep, head = site.settings.retention.keep, site.readings.head()
    span_days = (head.newest - head.span[0]) * site.plant.period_ns / DAY_NS
    told = forecast(
        [*(s for s in read_usage(site.folder) if s.at_ns < now_ns), sample],
        span_days=span_days,
        kept_days=None if keep is None else parse_duration(keep) / DAY_NS,
        free=free_bytes(site.folder),
    )
    return row_of(sample, told, limited=site.settings.retention.limited)


def row_of(sample: Sample, told: Forecast, *, limited: bool) -> dict[str, str]:
    """The same from values."""
    parts = ", ".join(f"{part} {size_text(size)}" for part, size in sample.used.items() if size)
    what = f"{size_text(sample.total)} used ({parts}); {_growth(told)}{size_text(told.free)} free{_full(told)}"
    return {"part": "disk", "state": "wrong" if told.wrong else "ok", "what": what, "todo": _todo(told, limited)}


def _growth(told: Forecast) -> str:
    if told.per_day is None:
        return ""
    if told.per_day <= 0:
        return "does not grow; "
    how = f"over {told.over_days:.0f} days" if told.measured else "as its readings do per day of theirs"
    return f"grows {size_text(told.per_day)} a day {how}; "


def _full(told: Forecast) -> str:
    if told.full_in_days is None:
        return ""
    days = told.full_in_days
    if days > 100 * YEAR_DAYS:
        return ", full in more than 100 years"
    return f", full in {days:.0f} days" if days < 2 * YEAR_DAYS else f", full in {days / YEAR_DAYS:.0f} years"


def _todo(told: Forecast, limited: bool) -> str:
    if not told.wrong:
        return ""
    why = f"less than {size_text(LEAST_FREE)} free" if told.free < LEAST_FREE else "the disk is full soon"
    how = "penstock prune --at-once, a shorter [retention]" if limited else "keep less: [retention] keep in site.toml"
    return f"{why}: {how}, or a larger disk"
