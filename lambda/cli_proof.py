"""The commands that prove: do both layers agree (reconcile), and where does a prediction come from (explain)."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer

app = typer.Typer()


@app.command()
def reconcile(
    models: Annotated[list[str] | None, typer.Argument(help="Models; else all that spoke.")] = None,
    site: SiteFolder = HERE,
    start: Annotated[str | None, typer.Option("--from", help="Look at all ticks made from then on, again.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="End, not included; else the newest.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Show what was found last; look at nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Hold what was said live beside what the batch layer makes of the same ticks; write down and show what it found.

    Without --from and --to it looks at what is new since the last time, what late readings came for, and what differed
    then. Exit code 1 where something differs and nothing explains it.
    Example: penstock reconcile --site turbine
    """
    from penstock.proof_screen import reconcile_table
    from penstock.reconcile import record_of, summary
    from penstock.screen import Progress
    from penstock.site import Site

    with Site.open(site) as opened:
        zone = opened.plant.timezone
        if last:
            run = record_of(opened.folder).last()
            if run is None:
                typer.echo("penstock: nothing was reconciled yet; do: penstock reconcile", err=True)
                raise typer.Exit(1)
        else:
            with Progress("reconcile") as bar:
                run = opened.reconcile(models or (), start=start, end=end, progress=bar)
    answer = summary(run)
    print_answer(answer, as_json, reconcile_table(answer, zone))
    if run.unexplained:
        raise typer.Exit(1)


@app.command(context_settings={"ignore_unknown_options": True})  # -2h is a time
def explain(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    time: Annotated[str, typer.Argument(help="The time predicted for: 2014-01-10T12:00, or -1h before the newest.")],
    made: Annotated[bool, typer.Option("--made", help="TIME is when it was made.")] = False,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Tell where a prediction comes from - window, model, training, layer - and compute it again.

    Exit code 1 where that comes to something else and nothing explains it.
    Example: penstock explain nox 2014-01-10T12:00 --site turbine
    """
    from penstock.proof_screen import explain_tables
    from penstock.site import Site
    from penstock.verdicts import UNEXPLAINED

    with Site.open(site) as opened:
        told = opened.explain(model, time, made=made)
    print_answer(told, as_json, *explain_tables(told))
    if told["verdict"] == UNEXPLAINED:
        raise typer.Exit(1)
