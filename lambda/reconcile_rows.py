"""The row of `penstock status` for reconciliations: what is open, and when it was looked last."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from penstock.data.views.reconciled import Reconciled


def reconcile_rows(views: Path, timezone: str) -> list[dict[str, str]]:
    """None where nobody ever looked. `views`: the site's folder."""
    record = Reconciled(views / "reconcile.sqlite")
    run = record.last()
    if run is None:
        return []
    open_ticks = {name: sum(b - a for a, b in s.open) for name, s in record.standing().items() if s.open}
    when = f"{pd.Timestamp(run.at).tz_convert(timezone):%Y-%m-%d %H:%M:%S%z}"
    looked = sum(int(model["ticks"]) for model in run.models)
    late = sum(int(model["late"]) for model in run.models)
    what = f"last at {when}: {looked:,} answers, {looked - late - run.unexplained:,} agree"
    what += f", {late:,} differ by named late readings" if late else ""
    if not open_ticks:
        return [{"part": "reconcile", "state": "ok", "what": what, "todo": ""}]
    what += "; unexplained: " + ", ".join(f"{n:,} of {name}" for name, n in open_ticks.items())
    return [
        {"part": "reconcile", "state": "wrong", "what": what, "todo": "penstock reconcile --last; penstock explain"}
    ]
