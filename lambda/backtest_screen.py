"""A backtest as people read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def backtest_table(answer: Mapping[str, Any]) -> Table:
    """A row per target, setting and year: ours, the peers' RMSE, what it is held to."""
    peers = list(dict.fromkeys(name for row in answer["rows"] for name in row.get("peers", {})))
    columns = ["target", "setting", "year", "n", "MAE", "RMSE", "R2", "bias", *(f"{p} RMSE" for p in peers)]
    table = _table(*columns, "goal", "coverage", title=f"{answer['backtest']}: {answer['seconds']:.0f} s")
    for row in answer["rows"]:
        if not row["n"]:
            table.add_row(row["target"], row["setting"], str(row["year"]), "0", row["why"])
            continue
        ours = [_number(row[key]) for key in ("mae", "rmse", "r2", "bias")]
        theirs = [_number(row["peers"][p]["rmse"]) if p in row["peers"] else "" for p in peers]
        table.add_row(
            row["target"], row["setting"], str(row["year"]), str(row["n"]), *ours, *theirs, _goal(row), _coverage(row)
        )
    return table


def _goal(row: Mapping[str, Any]) -> str:
    return "" if "met" not in row else "met" if row["met"] else "missed"


def _coverage(row: Mapping[str, Any]) -> str:
    return " ".join(f"{100 * share:.0f}" for share in row.get("coverage", ()))


def choice_table(answer: Mapping[str, Any]) -> Table:
    """A row per candidate, best first within its target and setting."""
    years: Sequence[str] = answer["years"]
    table = _table("target", "setting", "candidate", "MAE", "RMSE", *years, title="each year left out in turn")
    for row in answer["choice"]:
        each = [_number(row["years"].get(year)) for year in years]
        name = f"{row['candidate']} *" if row["chosen"] else row["candidate"]
        table.add_row(row["target"], row["setting"], name, _number(row["mae"]), _number(row["rmse"]), *each)
    return table


def _table(*columns: str, title: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=title)
    for column in columns:
        table.add_column(column)
    return table


def _number(value: float | None) -> str:
    """Four digits."""
    return "" if value is None or math.isnan(value) else f"{value:.4g}"
