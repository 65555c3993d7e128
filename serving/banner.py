"""The words of a page as HTML: pure functions of values, nothing here knows panel.

An abnormal thing is coloured, and carries a sign and a word as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

import numpy as np

from penstock.serving.feed import Moment
from penstock.serving.questions import Choice, Entry, Face, Trace

CSS = """
body, .bk-root { background: #ececec; color: #222; font-family: system-ui, sans-serif; margin: 0 10px; }
"""
STYLE = """
<style>
.top { display: flex; gap: 18px; align-items: baseline; flex-wrap: wrap; font-size: 14px; }
.top b { font-size: 20px; } .top a { color: #222; } .right { margin-left: auto; font-variant-numeric: tabular-nums; }
.mode { border: 1px solid #555; padding: 1px 8px; letter-spacing: .06em; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)); gap: 6px; }
.tile { background: #f6f6f6; border: 1px solid #cfcfcf; padding: 4px 8px; min-height: 46px; }
.tile i { font-style: normal; color: #555; font-size: 11px; display: block; }
.tile small { display: block; font-size: 11px; color: #555; font-weight: 400; }
.tile span { font-size: 15px; font-variant-numeric: tabular-nums; }
.bad { color: #a00000; font-weight: 600; } .tile.off { border: 2px solid #c00000; }
.warn { color: #8a5200; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 13px; background: #f6f6f6; }
td, th { border: 1px solid #d5d5d5; padding: 2px 8px; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } th { background: #e2e2e2; }
</style>
"""


def top(face: Face, moment: Moment, page: str) -> str:
    """Plant, mode, state, the other page, and the clock in the plant's zone."""
    now = datetime.fromtimestamp(moment.wall_s, ZoneInfo(face.zone))
    other = '<a href="./archive">archive</a>' if page == "live" else '<a href="./">live</a>'
    parts = [f"<b>{escape(face.plant)}</b>", f"<span class=mode>{mode(face, moment)}</span>"]
    parts += [_state(moment), other, f"<span class=right>{now:%Y-%m-%d %H:%M:%S} {escape(face.zone)}</span>"]
    return f"{STYLE}<div class=top>{' '.join(parts)}</div>"


def mode(face: Face, moment: Moment) -> str:
    """LIVE, or REPLAY with the year of the data and the rate, where they are known."""
    if not face.replay:
        return "LIVE"
    standing = moment.standing
    year = f" {np.datetime64(standing.tick_ns, 'ns').astype('datetime64[Y]')}" if standing.tick_ns is not None else ""
    return f"REPLAY{year}" + (f", {standing.rate:,.0f}x" if standing.rate else "")


def _state(moment: Moment) -> str:
    if moment.trouble:
        return f"<span class=bad id=state>&#9650; TROUBLE: {escape(moment.trouble)}</span>"
    if moment.data_age_s is None:
        return "<span class=warn id=state>&#9671; nothing was said yet; start a stream: penstock stream</span>"
    if moment.stale:
        why = "the stream says nothing new" if moment.standing.running else "no stream runs"
        return f"<span class=bad id=state>&#9650; STALE, data {age(moment.data_age_s)} old: {why}</span>"
    return "<span id=state>current</span>"


def age(seconds: float) -> str:
    """Whole seconds, so that an age is read at a glance; tenths below ten."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"


def tiles(face: Face, moment: Moment, choice: Choice, trace: Trace, entry: Entry | None) -> str:
    """The figures of the stream and of the model that is shown."""
    standing, unit = moment.standing, escape(choice.unit)
    mine, naive, n = errors(trace, choice.column)
    behind = max(standing.closed - 1 - standing.tick, 0) if standing.closed and standing.tick is not None else 0
    version = f"{escape(choice.model)}@{entry.version}" if entry and entry.version else "none"
    newest = "" if standing.tick_ns is None else clock(standing.tick_ns, face.zone)
    shown = [
        ("data time", newest, False),
        ("data age", "none" if moment.data_age_s is None else age(moment.data_age_s), moment.stale),
        ("stream heard", "never" if moment.link_age_s is None else age(moment.link_age_s), not standing.running),
        ("stream", f"{moment.ticks_per_s:,.1f}<small>ticks/s, {moment.readings_per_s:,.0f} readings/s</small>", False),
        ("lag", f"{behind:,}<small>ticks</small>", behind > 2 and behind > 2 * moment.ticks_per_s),
        ("late", f"{standing.late:,}", standing.late > 0),
        ("rejected", f"{standing.refused:,}", standing.refused > 0),
        ("live MAE", f"{mine:.3g}<small>{unit}, n {n}</small>" if n else "no truth", False),
        ("persistence", f"{naive:.3g}<small>{unit}, n {n}</small>" if n else "no truth", False),
        ("model", version, version == "none"),
        ("trained to", escape(entry.trained) if entry else "", False),
    ]
    return f"{STYLE}<div class=tiles>{''.join(_tile(*each) for each in shown)}</div>"


def _tile(name: str, text: str, off: bool) -> str:
    sign = "&#9650; " if off else ""
    kind, ink = (" off", " class=bad") if off else ("", "")
    return f'<div class="tile{kind}"><i>{name}</i><span{ink}>{sign}{text}</span></div>'


def errors(trace: Trace, column: int) -> tuple[float, float, int]:
    """(MAE, MAE of persistence, n) over the rows where truth and both answers stand; NaN, NaN, 0 where none does."""
    truth, said, naive = (a[:, column].astype(np.float64) for a in (trace.truth, trace.prediction, trace.persistence))
    both = np.isfinite(truth) & np.isfinite(said) & np.isfinite(naive)
    if not both.any():
        return np.nan, np.nan, 0
    mine, theirs = (float(np.abs(truth - other)[both].mean()) for other in (said, naive))
    return mine, theirs, int(both.sum())


def clock(time_ns: int, zone: str) -> str:
    """A data time in the plant's zone."""
    return f"{datetime.fromtimestamp(time_ns / 1e9, ZoneInfo(zone)):%Y-%m-%d %H:%M}"


def sheet(entries: Sequence[Entry]) -> str:
    """All models at the newest tick, the abnormal ones first."""
    ordered = sorted(entries, key=lambda e: (e.reason in ("OK", "NOT_RUNNING") and not e.filled, e.choice.label))
    heads = "".join(
        f"<th>{h}</th>" for h in ("model", "target", "state", "prediction", "unit", "version", "trained to")
    )
    return f"{STYLE}<table><tr>{heads}</tr>{''.join(_line(entry) for entry in ordered)}</table>"


def _line(entry: Entry) -> str:
    choice = entry.choice
    value = "" if np.isnan(entry.prediction) else f"{entry.prediction:,.2f}"
    cells: Iterable[tuple[str, str]] = (
        ("", escape(choice.model)), ("", escape(choice.target)), ("", _word(entry)), ("n", value),
        ("", escape(choice.unit)), ("n", str(entry.version or "")), ("", escape(entry.trained)),
    )  # fmt: skip
    return (
        f"<tr>{''.join(f'<td class={kind}>{text}</td>' if kind else f'<td>{text}</td>' for kind, text in cells)}</tr>"
    )


def _word(entry: Entry) -> str:
    if entry.deployed is None:
        return "&#9671; not live"
    if entry.reason == "OK":
        return "<span class=warn>&#9670; input filled</span>" if entry.filled else "ok"
    text = escape(entry.reason.replace("_", " ").lower())
    return text if entry.reason == "NOT_RUNNING" else f"<span class=bad>&#9650; {text}</span>"
