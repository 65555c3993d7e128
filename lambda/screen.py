"""What commands print: tables for people, one JSON line for machines, progress on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

PIPED_COLUMNS = 240
"""Width where nobody watches: a table in a pipe or a file must not be cut to a screen that is not there."""
OUT = Console(
    highlight=False,
    soft_wrap=False,
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS,
)
ERR = Console(stderr=True, highlight=False)
DIFFERENCES = 8
"""Differences of a replay shown to people; --json tells all."""
QUERY_ROWS = 24
"""Rows of a query shown to people; files and --json get all."""


def show(answer: Mapping[str, Any], as_json: bool, *tables: Table) -> None:
    """Print `answer` as one JSON line, or else the tables, or else its items line by line."""
    if as_json:
        print(json.dumps(_plain(answer)), flush=True)
    elif tables:
        for table in tables:
            OUT.print(table)
    else:
        for key, value in answer.items():
            OUT.print(f"{key}: {_text(value)}", markup=False)


class Progress:
    """A progress bar on standard error; called with (done, total, text), total None while unknown."""

    def __init__(self, title: str) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=ERR,
            transient=True,
            disable=not sys.stderr.isatty(),  # not ERR.is_terminal: a notebook forces colours upon what it starts
        )
        self._title = title
        self._task = self._bar.add_task(title, total=None)

    def __call__(self, done: int, total: int | None = None, text: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, description=f"{self._title} {text}".strip())

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def models_table(cards: Sequence[Mapping[str, Any]], live: Mapping[str, int]) -> Table:
    """One row per target of each trained version; figures are those of the validation part."""
    table = _table("model", "live", "target", "trained to", "n", "MAE", "RMSE", "persistence RMSE", "skill")
    for card in cards:
        # A ready-made model was judged by whoever made it.
        for target, metrics in (card["metrics"] or {target: {} for target in card["spec"]["targets"]}).items():
            skill = 1 - metrics["rmse"] / metrics["persistence_rmse"] if metrics.get("persistence_rmse") else math.nan
            table.add_row(
                f"{card['name']}@{card['version']}",
                "live" if live.get(card["name"]) == card["version"] else "",
                _cell(target),
                str(card["trained"].get("end", "ready made"))[:10],
                str(metrics.get("n", "")),
                *(_figure(metrics.get(key)) for key in ("mae", "rmse", "persistence_rmse")),
                "" if math.isnan(skill) else f"{skill:.2f}",
            )
    return table


def variants_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    """One row per way that was tried to execute a shape, or a solo."""
    columns = ("us/tick", "us/window, 1 each", "us/window, 16 each")
    table = _table("shape", "members", "way", "taken", *columns, "from Keras", "note")
    for group in groups:
        for trial in group["table"]:
            table.add_row(
                _cell(group["group"]),
                str(group["members"]),
                trial["variant"],
                "yes" if trial["variant"] == group["variant"] else "",
                *(_figure(trial[key]) for key in ("tick_us", "one_us", "many_us")),
                "" if trial["apart"] is None else f"{trial['apart']:.1e}",
                _cell(trial["why"]),
            )
    table.caption = (
        None if groups else "no LSTM of penstock's own form, and no other Keras model, is live: nothing to try"
    )
    return table


def drift_table(looked: Sequence[Mapping[str, Any]]) -> Table:
    """One row per finding, one of a model in which all is as it was."""
    table = _table("model", "rows", "found", "in", "how it shows", "what to do")
    for one in looked:
        model, rows = f"{one['model']}@{one['version']}", str(one["rows"])
        for found in one["findings"]:
            table.add_row(model, rows, found["kind"], *(_cell(found[key]) for key in ("what", "told", "todo")))
        if not one["findings"]:
            table.add_row(model, rows, "nothing" if one["judged"] else "too few rows", "", "", "")
    return table


def tags_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row per tag."""
    table = _table("id", "tag", "unit", "value", "time", "quality")
    for row in rows:
        texts = {**row, "value": _shortest(row["value"])}
        table.add_row(*(_cell(str(texts[key])) for key in ("id", "tag", "unit", "value", "time", "quality")))
    name = table.columns[1]
    name.no_wrap, name.overflow = False, "fold"  # a long name may take a second line, a figure is never cut
    return table


def aggregates_table(rows: pd.DataFrame, timezone: str) -> Table:
    """The newest rows of aggregates, times in the plant's zone."""
    table = _table("time", "tag", "unit", "count", "mean", "min", "max", "std")
    for row in rows.tail(QUERY_ROWS).to_dict(orient="records"):
        time = row["time"].tz_localize("UTC").tz_convert(timezone).isoformat(sep=" ")
        figures = (_figure(row[key]) for key in ("mean", "min", "max", "std"))
        table.add_row(time, _cell(row["tag"]), _cell(row["unit"]), str(row["count"]), *figures)
    if len(rows) > QUERY_ROWS:
        table.caption = f"the newest {QUERY_ROWS} of {len(rows)} rows; --csv FILE writes all"
    return table


def live_tags_table(rows: Sequence[Mapping[str, Any]], most: int) -> Table:
    """One row per tag, at most `most` of them."""
    table = _table("tag", "value", "unit", "age", "quality", "source")
    for row in rows[:most]:
        texts = (row["tag"], _shortest(row["value"]), row["unit"], _age(row["age_s"]), row["quality"], row["source"])
        table.add_row(*(_cell(str(text or "")) for text in texts))
    if len(rows) > most:
        table.caption = f"{len(rows) - most} more tags; name fewer"
    return table


def replay_table(answer: Mapping[str, Any]) -> Table:
    """A row per model and target, then what differs and why."""
    counts = (
        "equal",
        "close",
        "late",
        "no_answer_live",
        "passed_over_live",
        "other_version",
        "not_said_live",
        "unexplained",
    )
    table = _table("model", "target", "ticks", *(c.replace("_", " ") for c in counts), "MAE", "live MAE")
    for model in answer["models"]:
        name = f"{model['model']}@{','.join(map(str, model['versions']))}"
        for target, figures in model["targets"].items():
            numbers = (_figure(figures[key]) for key in ("mae", "live_mae"))
            table.add_row(name, _cell(target), str(model["ticks"]), *(str(model[c] or "") for c in counts), *numbers)
    order = ", ".join(f"{ticks:,} {name}" for name, ticks in answer["order"].items() if ticks)
    notes = [f"{answer['ticks']:,} ticks in {answer['seconds']} s; order of arrival: {order}"]
    for found in answer["differences"][:DIFFERENCES]:
        late = "; ".join(f"{r['readings']} of {r['source']}, {r['from']} to {r['to']}" for r in found["late"][:3])
        why = f"{found['verdict'].replace('_', ' ')} {late}".strip()
        notes.append(f"{found['model']}: {found['ticks']} from {found['from']}: {why}")
    if len(answer["differences"]) > DIFFERENCES:
        notes.append(f"and {len(answer['differences']) - DIFFERENCES} more; --json tells all")
    table.caption = _cell("\n".join(notes))
    return table


def query_table(rows: pd.DataFrame, timezone: str, *, open_ticks: int = 0) -> Table:
    """The newest rows of a query, times in the plant's zone; `open_ticks` newer ones have no answer yet."""
    beside = [name for name in ("corrected", "low", "high", "chance") if name in rows]
    table = _table("time", "target", "truth", "prediction", *beside, "layer", "version", "reason")
    for row in rows.tail(QUERY_ROWS).to_dict(orient="records"):
        table.add_row(
            row["time"].tz_localize("UTC").tz_convert(timezone).isoformat(sep=" "),
            _cell(str(row["target"])),
            _figure(row["truth"]),
            _figure(row["prediction"]),
            *(_figure(row[name]) for name in beside),
            str(row["layer"]),
            str(row["version"] or ""),
            "" if row["reason"] == "OK" else str(row["reason"]),
        )
    notes = [f"the newest {QUERY_ROWS} of {len(rows)} rows; --csv FILE writes all"] * (len(rows) > QUERY_ROWS)
    if open_ticks:
        notes.append(f"{open_ticks} newer ticks have no answer yet: still open, or neither streamed nor recomputed")
    table.caption = "; ".join(notes) or None
    return table


def streamed(report: Mapping[str, Any]) -> dict[str, Any]:
    """A stream's report for people: only what is worth a line."""
    always = ("ticks", "predictions", "readings")
    lines = {key: report[key] for key in always}
    faults = ("late", "revised", "rejected", "quarantined", "failed_requests")
    lines |= {key: report[key] for key in faults if report[key]}
    return lines | {"ended": "with its source" if report["ended"] else "stopped; the same command goes on from here"}


def status_table(parts: Sequence[Mapping[str, Any]]) -> Table:
    """One row per part of a site."""
    table = _table("part", "state", "what", "to do")
    for part in parts:
        table.add_row(*(_cell(_text(part.get(key, ""))) for key in ("part", "state", "what", "todo")))
    return table


def compare_table(rows: Sequence[Mapping[str, Any]], units: Mapping[str, str]) -> Table:
    """One row per target and method of a comparison."""
    table = _table("tag", "model", "n", "MAE", "RMSE", "R2", "bias", "skill", "in sample")
    for row in rows:
        figures = (_figure(row[key]) for key in ("mae", "rmse", "r2", "bias"))
        skill = "" if math.isnan(row["skill"]) else f"{row['skill']:.2f}"
        seen = str(row["in_sample"] or "")
        target = f"{row['target']} [{units[row['target']]}]" if units[row["target"]] else row["target"]
        table.add_row(escape(target), row["method"], str(row["n"]), *figures, skill, seen)
    return table


def doctor_table(findings: Sequence[Mapping[str, Any]]) -> Table:
    """One row per check."""
    table = _table("check", "state", "what", "to do")
    for finding in findings:
        table.add_row(*(str(finding[key]) for key in ("check", "state", "what", "todo")))
    return table


def size_table(answer: Mapping[str, Any]) -> Table:
    """One row per resource that a plant needs."""
    table = _table("resource", "unit", "needs", "there is", "share", "", "of which")
    for row in answer["needs"]:
        share = "" if row["share"] is None else _percent(row["share"])
        state = {"ok": "", "tight": "tight", "no": "NO"}[row["state"]]
        parts = ", ".join(f"{name} {_figure(part)}" for name, part in row["parts"].items())
        what = "; ".join(text for text in (row["what"], parts) if text)
        figures = (_figure(row[key]) for key in ("need", "have"))
        table.add_row(row["resource"], row["unit"], *figures, share, state, _cell(what))
    machine, fits = answer["machine"], "it fits" if answer["fits"] else "it does NOT fit"
    measured = ", ".join(machine["measured"]) or "nothing"
    table.caption = (
        f"{fits}; measured on this machine just now: {measured}; the rest are constants (docs/operations.md)"
    )
    return table


def bench_table(told: Mapping[str, Any]) -> Table:
    """One row per figure of a benchmark, and the machine it was measured on."""
    table = _table("figure", "unit", "ours", "others", "goal", "met")
    for row in told["rows"]:
        why = row.get("why")
        peers = ", ".join(f"{name} {_figure(value)}" for name, value in row["peers"].items())
        if why and row["ours"] is not None:  # what could not be measured beside it
            peers = f"{peers}; {why}" if peers else why
        sign = "" if row["goal"] is None else ("at least " if row["better"] == "higher" else "at most ")
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        ours = _figure(row["ours"]) if row["ours"] is not None else why or _figure(None)
        table.add_row(row["what"], row["unit"], ours, peers, f"{sign}{_figure(row['goal'])}", met)
    machine = told["machine"]
    table.caption = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['fma_gflops']} GFLOP/s; "
        f"other processes used {100 * machine['others_cpu']:.0f} % of it meanwhile"
    )
    return table


def demo_table(report: Mapping[str, Any]) -> Table:
    """What a demo found."""
    table = _table("model", "version", "n", "MAE", "RMSE", "persistence MAE", "persistence RMSE")
    for name, row in report["models"].items():
        figures = (_figure(row[key]) for key in ("mae", "rmse", "persistence_mae", "persistence_rmse"))
        table.add_row(name, str(row["version"]), str(row["n"]), *figures)
    said = "SIMULATED, not measured: " if report["simulated"] else ""
    table.title = f"{said}{report['plant']}: {report['ticks']} ticks, {report['predictions']} predictions"
    first = report["seconds_to_first_prediction"]
    table.caption = (
        f"readings sent {report['readings_sent']:,}, archived {report['readings_archived']:,}, "
        f"lost {report['readings_lost']}; failed requests {report['failed_requests']}; "
        + ("nothing was left to replay" if first is None else f"first prediction after {first} s")
    )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"model", "part", "tag", "time", "value"})
    return table


def _cell(text: str) -> Text:
    """As it is: tags have units in [brackets], which rich would take for its own marks and leave out."""
    return Text(text)


def _figure(value: float | None) -> str:
    """Four digits; of a large number all in front of the point, as 1.013e+05 mbar is nothing to read."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def _percent(share: float) -> str:
    return "under 0.1 %" if share < 0.001 else f"{100 * share:,.1f} %"


def _age(seconds: float | None) -> str:
    """In the largest unit of which there are two."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.1f} s"


def _shortest(value: float | None) -> str:
    """The shortest text that gives a stored number back; a counter's last digits are what moves."""
    if value is None or math.isnan(value):
        return ""
    narrow = np.float32(value)
    return np.format_float_positional(narrow if float(narrow) == value else value, trim="-")


def _text(value: Any) -> str:
    return _figure(value) if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """JSON has no NaN, no numpy and no paths: NaN becomes null, a path its text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
