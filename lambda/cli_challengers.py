"""Commands about challengers: challenge, challengers, dismiss."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer, reference
from penstock.errors import RetrainBusy
from penstock.retrain_codes import BUSY

app = typer.Typer()

Why = Annotated[str, typer.Option(help="For the audit log.")]


@app.command()
def challenge(
    model: Annotated[str, typer.Argument(help="NAME: its newest version; or NAME@VERSION.")],
    span: Annotated[
        str | None, typer.Option("--for", help="How long, such as 7d; else as retrain.live says, or a week.")
    ] = None,
    why: Why = "",
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Score a version at every tick beside the one that answers, to judge it by what it says live.

    It answers nobody: queries, pages and sinks give the champion's word. One challenger per model; another one takes
    its place.
    Example: penstock challenge nox@4 --for 7d --site turbine
    """
    from penstock.screen import Progress
    from penstock.site import Site

    name, version = reference(model)
    with Site.open(site) as opened:
        with Progress(f"challenge {model}"):
            done = opened.challenge(name, version, span=span, why=why)
        print_answer({"challenger": done}, as_json)


@app.command()
def dismiss(
    model: Annotated[str, typer.Argument(help="Name of a model that has a challenger.")],
    why: Why = "",
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Score a model's challenger no more; its version stays in the store.

    Example: penstock dismiss nox --site turbine
    """
    from penstock.screen import Progress
    from penstock.site import Site

    with Site.open(site) as opened:
        with Progress(f"dismiss {model}"):
            done = opened.dismiss(model, why)
        print_answer({"dismissed": done}, as_json)


@app.command()
def challengers(
    judge: Annotated[bool, typer.Option("--judge", help="Judge those whose time is over, and act on it.")] = False,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """List the versions that are scored beside champions, with what the test says of their live rows so far.

    --judge promotes (promote = "auto") or dismisses those whose time is over; a schedule does it by itself. Exit code
    3: a retrain is under way.
    Example: penstock challengers --site turbine
    """
    from penstock.challenger_rows import challenger_table
    from penstock.gate_screen import challengers_table, ended_table
    from penstock.retrain_lock import alone, now
    from penstock.site import Site
    from penstock.trials import end_due

    with Site.open(site) as opened:
        if not judge:
            rows = challenger_table(opened)
            print_answer({"challengers": rows}, as_json, challengers_table(rows, opened.plant.timezone))
            return
        try:
            with alone(opened.runs.folder, now()):
                ended = [asdict(one) for one in end_due(opened)]
        except RetrainBusy as busy:
            typer.echo(f"penstock: {busy}", err=True)
            raise typer.Exit(BUSY) from None
    print_answer({"ended": ended}, as_json, ended_table(ended))
