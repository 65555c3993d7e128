"""The words of a page as HTML: pure functions of values, nothing here knows panel.

An abnormal thing is coloured, and carries a sign and a word as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from penstock.serving.feed import Moment
from penstock.serving.questions import Choice, Entry, Face, Trace

CSS = """
body, .bk-root { background: #ececec; color: #222; font-family: system-ui, sans-serif; margin: 0 10px; }
"""
STYLE = """
.bk-clearfix { width: 100%; }
.top { display: flex; gap: 18px; align-items: baseline; flex-wrap: wrap; font-size: 14px; }
.top b { font-size: 20px; } .top a { color: #222; } .right { margin-left: auto; font-variant-numeric: tabular-nums; }
.mode { border: 1px solid #555; padding: 1px 8px; letter-spacing: .06em; }
.now { display: grid; grid-template-columns: 1.5fr 1fr 1fr 1fr; gap: 6px; margin-bottom: 6px; }
.now .tile span { font-size: 26px; line-height: 1.15; white-space: nowrap; } .now .first.tile span { font-size: 42px; }
.now u { text-decoration: none; font-size: 14px; color: #555; margin-left: 6px; font-weight: 400; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 6px; }
.tile { background: #f6f6f6; border: 1px solid #cfcfcf; padding: 4px 8px; min-height: 46px; }
.tile i { font-style: normal; color: #555; font-size: 11px; display: block; }
.tile small { display: block; font-size: 11px; color: #555; font-weight: 400; }
.tile span { font-size: 15px; font-variant-numeric: tabular-nums; }
.bad { color: #a00000; font-weight: 600; } .tile.off { border: 2px solid #c00000; padding: 3px 7px; }
.warn { color: #8a5200; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 13px; background: #f6f6f6; }
td, th { border: 1px solid #d5d5d5; padding: 2px 8px; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } th { background: #e2e2e2; }
"""
"""Of the places where these words stand."""
HOLE = "\x1f"
"""Where a value belongs in a sheet, and what stands between two values."""


def top(face: Face, moment: Moment, page: str) -> str:
    """Plant, mode, state, the other page, and where the browser shows the clock in the plant's zone."""
    other = '<a href="./archive">archive</a>' if page == "live" else '<a href="./">live</a>'
    name = face.plant.partition(",")[0]  # a simulated one carries its options in its name
    parts = [f'<b title="{escape(face.plant)}">{escape(name)}</b>', f"<span class=mode>{mode(face, moment)}</span>"]
    parts += ["<span class='mode warn'>SIMULATED: no plant behind it</span>"] if face.simulated else []
    parts += [_state(moment), other, f"<span class=right><time data-clock></time> {escape(face.zone)}</span>"]
    return f"<div class=top>{' '.join(parts)}</div>"


def mode(face: Face, moment: Moment) -> str:
    """LIVE, or REPLAY with the year of the data and the rate, where they are known."""
    standing = moment.standing
    if not (face.replay or standing.replay):
        return "LIVE"
    year = f" {np.datetime64(standing.tick_ns, 'ns').astype('datetime64[Y]')}" if standing.tick_ns is not None else ""
    return f"REPLAY{year}" + (f", {times(standing.rate)}" if standing.rate else "")


def times(rate: float) -> str:
    """A rate as people say it, 600x: two digits, as a measured one is never quite the same."""
    rounded = float(f"{rate:.2g}")
    return f"{rounded:,.0f}x" if rounded >= 10 else f"{rounded:g}x"


def _state(moment: Moment) -> str:
    if moment.trouble:
        return f"<span class=bad id=state>&#9650; TROUBLE: {escape(moment.trouble)}</span>"
    if moment.data_age_s is None:
        return "<span class=warn id=state>&#9671; nothing was said yet; start a stream: penstock stream</span>"
    if moment.standing.ended:
        since = _running(moment, moment.data_age_s)
        return f"<span class=warn id=state>&#9671; ENDED {since} ago, with its source</span>"
    if moment.stale:
        why = "the stream says nothing new" if moment.standing.running else "no stream runs"
        return f"<span class=bad id=state>&#9650; STALE, data {_running(moment, moment.data_age_s)} old: {why}</span>"
    return "<span id=state>current</span>"


def _running(moment: Moment, seconds: float) -> str:
    """An age that the browser lets run on: it knows since when (seconds UTC)."""
    return f'<time data-since="{moment.wall_s - seconds:.2f}">{age(seconds)}</time>'


def age(seconds: float) -> str:
    """Seconds, so that an age is read at a glance; tenths below ten, larger units from ten minutes on."""
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for size, name in ((86_400, "d"), (3600, "h")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds / 60:.0f} min"


def tiles(face: Face, moment: Moment, choice: Choice, entry: Entry | None) -> str:
    """The figures of the stream, and which model speaks."""
    standing = moment.standing
    behind = max(standing.closed - 1 - standing.tick, 0) if standing.closed and standing.tick is not None else 0
    version = f"{escape(choice.model)}@{entry.version}" if entry and entry.version else "none"
    beside = f"<small>challenger @{entry.challenger}</small>" if entry and entry.challenger is not None else ""
    over, pace = standing.ended, f"{moment.readings_per_s:,.0f} readings/s"
    day, _, hour = clock(standing.tick_ns, face).partition(" ")
    old = "none" if moment.data_age_s is None else _running(moment, moment.data_age_s)
    shown = [
        ("data time", f"{hour}<small>{day}</small>", False),
        ("data age", old, moment.stale and not over),
        ("stream heard", _heard(moment), moment.silent and not over),
        ("stream", f"{moment.ticks_per_s:,.1f} ticks/s<small>{pace}</small>", False),
        ("lag", f"{behind:,}<small>ticks</small>", behind > 2 and behind > 2 * moment.ticks_per_s),
        ("late", f"{standing.late:,}<small>readings</small>", standing.late > 0),
        ("rejected", f"{standing.refused:,}<small>readings</small>", standing.refused > 0),
        ("model", version + beside, version == "none"),
        ("trained to", escape(entry.trained) if entry else "", False),
    ]
    return f"<div class=tiles>{''.join(_tile(*each) for each in shown)}</div>"


def _heard(moment: Moment) -> str:
    return "never" if moment.link_age_s is None else f"{_running(moment, moment.link_age_s)}<small>ago</small>"


def _tile(name: str, text: str, off: bool, kind: str = "") -> str:
    sign = "&#9650; " if off else ""
    ink = " class=bad" if off else ""
    return f'<div class="tile {kind} {"off" if off else ""}"><i>{name}</i><span{ink}>{sign}{text}</span></div>'


def now(face: Face, moment: Moment, choice: Choice, trace: Trace) -> str:
    """What to act on, in large figures: the newest prediction, the truth so far, and how well the model does."""
    unit, said, truth = escape(choice.unit), trace.prediction[:, choice.column], trace.truth[:, choice.column]
    mine, naive, n = errors(trace, choice.column)
    both = np.flatnonzero(np.isfinite(truth) & np.isfinite(said))
    apart = f"{figure(truth[both[-1]] - said[both[-1]], sign=True)}<u>{unit}</u>" if len(both) else "none yet"
    beside = f"persistence {figure(naive)} {unit}, n {n}" if n else "no truth beside a prediction"
    newest, off = _newest(trace, said, unit)
    off = off or (moment.stale and not moment.standing.ended)  # nobody should act on an old one unawares
    shown = [
        (f"prediction of {escape(choice.target)}{_at(face, trace, said, 'for')}", newest, off, "first"),
        (f"truth{_at(face, trace, truth, 'of')}", *_value(truth, unit), ""),
        (f"truth - prediction{_at(face, trace, truth - said, 'of')}", apart, False, ""),
        ("live MAE", f"{figure(mine)}<u>{unit}</u><small>{beside}</small>" if n else beside, False, ""),
    ]
    return f"<div class=now>{''.join(_tile(*each) for each in shown)}</div>"


def _newest(trace: Trace, said: NDArray[np.float32], unit: str) -> tuple[str, bool]:
    """The newest prediction; one that was withheld is not replaced by an older one."""
    if not len(said):
        return "none yet", False
    if np.isfinite(said[-1]):
        return _value(said, unit)
    reason = str(trace.reasons[-1])
    return f"<b>{escape(reason.replace('_', ' ').lower())}</b>", reason != "NOT_RUNNING"


def _value(values: NDArray[np.float32], unit: str) -> tuple[str, bool]:
    """The newest value that there is, never abnormal in itself."""
    there = np.flatnonzero(np.isfinite(values))
    return (f"{figure(values[there[-1]])}<u>{unit}</u>" if len(there) else "none yet"), False


def _at(face: Face, trace: Trace, values: NDArray[np.float32], word: str) -> str:
    there = np.flatnonzero(np.isfinite(values))
    return f" {word} {clock(int(trace.times[there[-1]]), face)}" if len(there) else ""


def figure(value: float, *, sign: bool = False) -> str:
    """About four digits, and never an exponent."""
    size = abs(float(value))
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{float(value):{'+' if sign else ''},.{digits}f}"


def errors(trace: Trace, column: int) -> tuple[float, float, int]:
    """(MAE, MAE of persistence, n) over the rows where truth and both answers stand; NaN, NaN, 0 where none does."""
    truth, said, naive = (a[:, column].astype(np.float64) for a in (trace.truth, trace.prediction, trace.persistence))
    both = np.isfinite(truth) & np.isfinite(said) & np.isfinite(naive)
    if not both.any():
        return np.nan, np.nan, 0
    mine, theirs = (float(np.abs(truth - other)[both].mean()) for other in (said, naive))
    return mine, theirs, int(both.sum())


def clock(time_ns: int | None, face: Face) -> str:
    """A data time in the plant's zone; seconds where ticks are that short."""
    if time_ns is None:
        return ""
    form = "%Y-%m-%d %H:%M" + (":%S" if face.period_s < 60 else "")
    return f"{datetime.fromtimestamp(time_ns / 1e9, ZoneInfo(face.zone)):{form}}"


def sheet(entries: Sequence[Entry]) -> str:
    """All models at the newest tick, the abnormal ones first; a HOLE for each of `values`, which change every tick."""
    heads = "".join(
        f"<th>{h}</th>" for h in ("model", "target", "state", "prediction", "unit", "version", "trained to")
    )
    return f"<table><tr>{heads}</tr>{''.join(_line(entry) for entry in _ordered(entries))}</table>"


def values(entries: Sequence[Entry]) -> str:
    """The predictions in the order of the sheet, with HOLE in between; none where one is withheld."""
    return HOLE.join("" if np.isnan(e.prediction) else figure(e.prediction) for e in _ordered(entries))


def _ordered(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda e: (e.reason in ("OK", "NOT_RUNNING") and not e.filled, e.choice.label))


def _line(entry: Entry) -> str:
    choice = entry.choice
    cells: Iterable[tuple[str, str]] = (
        ("", escape(choice.model)), ("", escape(choice.target)), ("", _word(entry)), ("n v", HOLE),
        ("", escape(choice.unit)), ("n", _versions(entry)), ("", escape(entry.trained)),
    )  # fmt: skip
    told = (f"<td class='{kind}'>{text}</td>" if kind else f"<td>{text}</td>" for kind, text in cells)
    return f"<tr>{''.join(told)}</tr>"


def _versions(entry: Entry) -> str:
    """That which answered, and who is scored beside it."""
    beside = "" if entry.challenger is None else f" (challenger {entry.challenger})"
    return f"{entry.version or ''}{beside}"


def _word(entry: Entry) -> str:
    if entry.deployed is None:
        return "&#9671; not live"
    if entry.reason == "OK":
        return "<span class=warn>&#9670; input filled</span>" if entry.filled else "ok"
    text = escape(entry.reason.replace("_", " ").lower())
    return text if entry.reason == "NOT_RUNNING" else f"<span class=bad>&#9650; {text}</span>"
