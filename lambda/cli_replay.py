"""The command that says the past again: replay."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder

app = typer.Typer()

NICE = 10
"""How far a replay stands back behind whatever else runs: full speed is for what others leave."""


@app.command()
def replay(
    site: SiteFolder = HERE,
    start: Annotated[str, typer.Option("--from", help="First tick: 2014-01-01, or -48h before the newest.")] = "-48h",
    end: Annotated[str | None, typer.Option("--to", help="End, not included; else the newest closed tick.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME, or NAME@VERSION; again for more. Else all that spoke.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write every answer to this .csv or .parquet file.")] = None,
    as_json: Json = False,
) -> None:
    """Say a site's past again with the stream's own code, and compare with what was said live. Changes nothing.

    With NAME@VERSION it is what that version would have said. It has workers and a Triton of its own and runs beside a
    stream. Exit code 1 where an answer of the same version differs and nothing explains it.
    Example: penstock replay --from 2014-01-10 --to 2014-01-12 --model nox@3 --site turbine
    """
    from penstock.replay_report import checked
    from penstock.screen import Progress, replay_table, show
    from penstock.site import Site

    if output is not None:
        checked(output)
    os.nice(NICE)
    begun = time.monotonic()
    with Site.open(site) as opened, Progress("replay") as bar:
        found = opened.replay(start, end, model=model or (), progress=bar)
    if output is not None:
        found.write(output)
    answer = {**found.summary(), "seconds": round(time.monotonic() - begun, 1), "output": output}
    show(answer, as_json, replay_table(answer))
    if found.unexplained:
        raise typer.Exit(1)
