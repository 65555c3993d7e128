"""Commands about what is computed from history: recompute."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer
from penstock.errors import ModelError

app = typer.Typer()


@app.command()
def recompute(
    models: Annotated[list[str] | None, typer.Argument(help="Live models; 'nox.*' is a whole fleet.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All live models.")] = False,
    site: SiteFolder = HERE,
    start: Annotated[
        str | None, typer.Option("--from", "--start", help="Compute from here on again, whatever is there.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", "--end", help="Up to here; else as far as everything is known.")
    ] = None,
    aggregates: Annotated[bool, typer.Option("--aggregates", help="What [aggregates] lacks, too.")] = False,
    as_json: Json = False,
) -> None:
    """Bring up what live models say of the past: what is new, what late readings changed, what a new version says.

    How far back a new version speaks is `view.history` of plant.toml; a killed run is gone on with by the same command.
    Example: penstock recompute nox --site turbine --from 2013-09-01 --to 2014
    """
    from penstock.aggregates import brought_up
    from penstock.recomputing import live_like, recompute
    from penstock.screen import Progress
    from penstock.site import Site
    from penstock.views_screen import recomputed_table

    if (every and models) or not (every or models or aggregates):
        raise typer.BadParameter("give models, --all or --aggregates")
    with Site.open(site) as opened:
        names = live_like(opened, models or ["*"] * every)
        with Progress("recompute") as bar:
            kept = {"aggregates": brought_up(opened, bar)} if aggregates else {}
            rows, failed = recompute(opened, names, start, end, progress=bar)
        zone = opened.plant.timezone
    print_answer({"models": rows, "failed": failed, **kept}, as_json, recomputed_table(rows, zone, kept))
    if failed:
        raise ModelError("\n".join(failed.values()))
