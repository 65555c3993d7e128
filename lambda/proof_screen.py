"""Tables for people about proofs: what `cli_proof` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

DIFFERENCES = 12
"""Shown to people; --json tells all."""
COUNTS = ("equal", "close", "late", "no_answer_live", "passed_over_live", "no_model", "unexplained")


def reconcile_table(answer: Mapping[str, Any], timezone: str) -> Table:
    """A row per model, then what differs and why."""
    table = _table("model", "answers", *(count.replace("_", " ") for count in COUNTS), "apart", "from", "to")
    for model in answer["models"]:
        name = f"{model['model']}@{','.join(map(str, model['versions']))}" if model["versions"] else model["model"]
        apart = "" if model["apart"] is None else f"{model['apart']:.1e}"
        counts = (str(model[count] or "") for count in COUNTS)
        table.add_row(name, str(model["ticks"]), *counts, apart, model["from"] or "", model["to"] or "")
    when = f"{pd.Timestamp(answer['at']).tz_convert(timezone):%Y-%m-%d %H:%M:%S%z}"
    state = "nothing is unexplained" if not answer["unexplained"] else f"UNEXPLAINED: {answer['unexplained']}"
    notes = [f"{state}; looked at {when}, readings up to sequence {answer['position']}"]
    ordered = sorted(answer["differences"], key=lambda found: found["verdict"] != "unexplained")
    notes += [_difference(found) for found in ordered[:DIFFERENCES]]
    if len(ordered) > DIFFERENCES:
        notes.append(f"and {len(ordered) - DIFFERENCES} more; --json tells all")
    table.caption = Text("\n".join(notes))
    return table


def explain_tables(told: Mapping[str, Any]) -> list[Table]:
    """The window, then what is known of the prediction, line by line."""
    return [_window(told["window"]), _facts(told)]


def _window(window: Mapping[str, Any]) -> Table:
    """A row per row of the window; marks tell what became of the readings behind a value."""
    table = _table("row", *(_heading(column) for column in window["columns"]))
    for row in window["rows"]:
        cells = [_marked(value, flags) for value, flags in zip(row["values"], row["flags"], strict=True)]
        table.add_row(row["time"], *(Text(cell) for cell in cells))
    return table


def _heading(column: Mapping[str, Any]) -> str:
    unit = f" \\[{column['unit']}]" if column["unit"] else ""
    steps = f", {', '.join(column['steps'])}" if column["steps"] else ""
    derived = f" = {column['derived']}" if column["derived"] else ""
    return f"{column['name']}{derived}{steps}{unit}"


def _marked(value: float, flags: Sequence[str]) -> str:
    text = "withheld" if math.isnan(value) else f"{value:.6g}"
    return f"{text} {', '.join(flag.lower() for flag in flags)}".strip()


def _facts(told: Mapping[str, Any]) -> Table:
    table = _table("what", "")
    table.show_header = False
    for what, text in _lines(told):
        if text:
            table.add_row(what, Text(text))
    return table


def _lines(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    made, again, closed = told["model_made"], told["again"], told["closed_by"]
    yield "prediction", f"{_values(told, told['prediction'])} for {told['time']}, made at {told['made']}"
    yield "reason", "" if told["reason"] == "OK" else told["reason"]
    yield "layer", told["layer"]
    for target, beside in (told["beside"] or {}).items():
        yield f"beside {target}", ", ".join(f"{k} {v:.6g}" for k, v in beside.items() if not math.isnan(v))
    live = told["said_live"]
    yield "said live", "" if live is None else f"{_values(told, live['prediction'])} by version {live['version']}"
    yield "model", f"{told['model']}@{told['version']}, {made['kind']}, created {made['created']}, run {made['run']}"
    yield "trained on", _training(made)
    yield "code", ", ".join([f"penstock {made['penstock']}", *(f"{k} {v}" for k, v in made["libraries"].items())])
    for move in told["moves"]:
        why = f" ({move['why']})" if move["why"] else ""
        yield "moved", f"{move['at']} {move['action']} by {move['who']}: {move['from']} to {move['to']}{why}"
    yield "closed by", "" if closed is None else _closing(closed)
    yield "window hash", told["hash"] or ""
    yield (
        "again",
        f"{_values(told, again['prediction'])}" + (f" ({again['reason']})" if again["reason"] != "OK" else ""),
    )
    apart = "" if again["apart"] is None else f", {again['apart']:.1e} of the target's scale apart"
    yield "verdict", ("equal" if told["equal"] else _verdict(told)) + apart


def _values(told: Mapping[str, Any], values: Mapping[str, float]) -> str:
    parts = [f"{name} {_number(value)} {told['units'][name]}".strip() for name, value in values.items()]
    return ", ".join(parts)


def _number(value: float) -> str:
    return "withheld" if math.isnan(value) else f"{value:.6g}"


def _training(made: Mapping[str, Any]) -> str:
    if made["start"] is None:
        return "ready made: not trained here"
    kept = "kept" if made["snapshot_kept"] else "no longer kept"
    sample = "; this tick is in it" if made["in_sample"] else ""
    return f"{made['start']} to {made['end']}, {made['windows']} windows; snapshot {made['snapshot']}, {kept}{sample}"


def _closing(closed: Mapping[str, Any]) -> str:
    known = f": {closed['reason']}, closed until {closed['until']}" if closed["reason"] else ", trimmed since"
    return f"journal sequence {closed['position']}{known}"


def _verdict(told: Mapping[str, Any]) -> str:
    return f"{told['verdict'].replace('_', ' ').upper()}: {_why(told)}"


def _difference(found: Mapping[str, Any]) -> str:
    model = f"{found['model']}@{found['version']}" if found["version"] else found["model"]
    why, verdict = _why(found), found["verdict"].replace("_", " ")
    return f"{model}: {found['ticks']} from {found['from']} {verdict}" + (f": {why}" if why else "")


def _why(found: Mapping[str, Any]) -> str:
    """In what it differs, and the ranges that explain it."""
    late = [
        f"{r['readings']} {r['kind']} of {r['source']}, {r['from']} to {r['to']}, sequence {r['sequence']}"
        for r in found["late"][:3]
    ]
    more = [f"{found['ranges'] - len(late)} more ranges"] if found["ranges"] > len(late) else []
    return "; ".join([", ".join(found["differs"]), *late, *more]).strip("; ")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"model", "from", "to", "row"})
    return table
