"""Commands about which version answers, and who decided so: promote, rollback, audit."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer, reference

app = typer.Typer()

Why = Annotated[str, typer.Option(help="For the audit log.")]


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="NAME: its newest version, if the gate let it pass; or NAME@VERSION.")],
    why: Why = "",
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Let a version that the gate has judged answer from the next tick on.

    NAME@VERSION is promoted whatever the gate found; the audit log keeps both.
    Example: penstock promote nox --site turbine --why "agreed with the shift"
    """
    from penstock.promoting import promote
    from penstock.screen import Progress
    from penstock.site import Site

    name, version = reference(model)
    with Site.open(site) as opened:
        with Progress(f"promote {model}"):
            done = promote(opened, name, version, why)
        print_answer(done, as_json)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="Name of a live model.")],
    why: Why = "",
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Let the version that answered before answer again; a second time goes one further back.

    Example: penstock rollback nox --site turbine --why "drifts since noon"
    """
    from penstock.promoting import rollback
    from penstock.screen import Progress
    from penstock.site import Site

    with Site.open(site) as opened:
        with Progress(f"rollback {model}"):
            done = rollback(opened, model, why)
        print_answer(done, as_json)


@app.command()
def audit(
    model: Annotated[str | None, typer.Argument(help="Name of a model; else all of them.")] = None,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Tell who moved which model from which version to which, when, why, and on which data it was trained.

    Example: penstock audit nox --site turbine
    """
    from penstock.gate_screen import audit_table
    from penstock.promoting import audit
    from penstock.site import Site

    with Site.open(site) as opened:
        rows, zone = audit(opened, model), opened.plant.timezone
    print_answer({"moves": rows}, as_json, audit_table(rows, zone))
