"""Tables for people about champions and runs: what `cli_gate` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

FEW = 4
"""Models that are told by name."""


def audit_table(rows: Sequence[Mapping[str, Any]], timezone: str) -> Table:
    """One row per move of a champion, times in the plant's zone."""
    table = _table("time", "who", "model", "from", "to", "what", "snapshot", "why")
    for row in rows:
        table.add_row(
            _when(row["at"], timezone),
            Text(row["who"]),
            row["model"],
            *("" if row[key] is None else str(row[key]) for key in ("from", "to")),
            row["action"],
            row["snapshot"] or "",
            Text(row["why"]),
        )
    table.caption = None if rows else "no model was ever live here"
    return table


def retrain_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row per model of a retrain."""
    table = _table("model", "verdict", "outcome", "why")
    for row in rows:
        name = row["model"] if row["version"] is None else f"{row['model']}@{row['version']}"
        table.add_row(name, row["verdict"] or "", row["outcome"] or "not trained", Text(row["why"]))
    return table


def challengers_table(rows: Sequence[Mapping[str, Any]], timezone: str) -> Table:
    """One row per challenger, times in the plant's zone."""
    table = _table("model", "version", "beside", "since", "until", "rows", "so far")
    for row in rows:
        since, until = (_when(row[key], timezone) for key in ("since", "until"))
        told = row["so_far"] if row["verdict"] is None else f"{row['verdict']}; {row['so_far']}"
        table.add_row(
            row["model"], str(row["version"]), str(row["champion"]), since, until, str(row["rows"]), Text(told)
        )
    table.caption = None if rows else "no version is scored beside another one"
    return table


def ended_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row per trial that was judged."""
    table = _table("model", "verdict", "outcome", "why")
    for row in rows:
        table.add_row(f"{row['model']}@{row['version']}", row["verdict"], row["outcome"], Text(row["why"]))
    table.caption = None if rows else "no trial is over"
    return table


def schedule_table(rows: Sequence[Mapping[str, Any]], timezone: str) -> Table:
    """One row per cron expression, times in the plant's zone."""
    table = _table("cron", "what", "models", "next", "missed")
    for row in rows:
        due = "never" if row["next"] is None else _when(row["next"], timezone)
        what = "on drift" if row["drift"] else row["command"]
        table.add_row(row["cron"], what, ", ".join(row["models"]), due, "yes" if row["missed"] else "")
    return table


def runs_table(rows: Sequence[Mapping[str, Any]], timezone: str) -> Table:
    """One row per run, times in the plant's zone; of a fleet the outcomes are counted."""
    table = _table("run", "begun", "what", "trained", "verdict", "outcome", "ended")
    for row in rows:
        table.add_row(
            row["id"],
            _when(row["begun"], timezone),
            f"{row['kind']} (drift)" if row["reasons"] else row["kind"],
            f"{len(row['done'])} of {len(row['models'])}",
            _joined(row["verdicts"]),
            _joined(row["outcomes"]),
            "" if row["ended"] is None else _when(row["ended"], timezone),
        )
    table.caption = None if rows else "nothing was trained here yet"
    return table


def _joined(said: Mapping[str, str]) -> str:
    """ "nox better, tey no better", and of many models how often what was said."""
    if len(said) <= FEW:
        return ", ".join(f"{name} {word}" for name, word in said.items())
    return ", ".join(f"{count} {word}" for word, count in Counter(said.values()).most_common())


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"model", "time"})
    return table


def _when(text: str, timezone: str) -> str:
    """ISO text in UTC, to the second, in the plant's zone."""
    return f"{pd.Timestamp(text).tz_convert(timezone):%Y-%m-%d %H:%M:%S%z}"
