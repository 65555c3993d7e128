"""The commands that change a plant: apply, plants."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer
from penstock.errors import SiteError

if TYPE_CHECKING:
    from penstock.data.plants.change import Change

app = typer.Typer()


@app.command()
def apply(
    plant: Annotated[
        Path | None, typer.Argument(help="The new plant.toml; else the site's own, edited since the last apply.")
    ] = None,
    site: SiteFolder = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    why: Annotated[str, typer.Option(help="Kept with the new plant.")] = "",
    as_json: Json = False,
) -> None:
    """Change a plant, whether it runs or not: show the difference, and on yes let the new plant.toml hold.

    A running stream goes over to it between two ticks and loses none. Where one change is refused nothing is done,
    exit code 1. `penstock plants` lists the plants so far.
    Example: penstock apply new/plant.toml --site turbine --dry-run
    """
    from penstock.plant_screen import changes_table
    from penstock.screen import Progress
    from penstock.site import Site

    shown = False

    def agreed(changes: Sequence[Change]) -> bool:
        nonlocal shown
        shown = True
        if not as_json:
            print_answer({}, False, changes_table([_plain(change) for change in changes]))
        return yes or _asked()

    with Site.open(site) as opened, Progress("apply"):
        answer = opened.apply(plant, dry_run=dry_run, agreed=agreed, why=why)
    if as_json:
        print_answer(answer, as_json)
    else:
        _tell(answer, shown)
    if answer["refused"]:
        raise SiteError(f"{answer['refused']} change(s) refused; nothing has changed")
    if any(over is False for over in answer["running"].values()):
        late = ", ".join(name for name, over in answer["running"].items() if not over)
        raise SiteError(f"plant {answer['applied']} holds; not gone over to it yet: {late}; see: penstock status")


@app.command()
def plants(site: SiteFolder = HERE, as_json: Json = False) -> None:
    """List the plants that a site has had: who applied each, when and why, and what it changed.

    Example: penstock plants --site turbine
    """
    from penstock.applying import history
    from penstock.plant_screen import plants_table
    from penstock.site import Site

    with Site.open(site) as opened:
        rows, zone = history(opened.editions), opened.plant.timezone
    print_answer({"plants": rows}, as_json, plants_table(rows, zone))


def _plain(change: Change) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(change)


def _tell(answer: dict[str, Any], shown: bool) -> None:
    from penstock.plant_screen import changes_table

    if not shown and answer["changes"]:
        print_answer({}, False, changes_table(answer["changes"]))
    if not answer["changes"]:
        typer.echo("the plant is as it was: nothing to apply")
    elif answer["applied"] is not None:
        over = [name for name, done in answer["running"].items() if done]
        typer.echo(f"plant {answer['applied']} holds" + (f"; gone over to it: {', '.join(over)}" if over else ""))
    elif not answer["refused"]:
        typer.echo("nothing has changed")


def _asked() -> bool:
    if not sys.stdin.isatty():
        raise SiteError("nobody can be asked here; nothing has changed. Look with --dry-run, then apply with --yes")
    return typer.confirm("apply?")
