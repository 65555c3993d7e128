"""Commands for a site that lives for years: prune, backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer

app = typer.Typer()

KEEP = 7
"""Backups that stay in a folder, unless told otherwise."""


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Old commits of the archive go too, whatever retention.snapshots says.")
    ] = False,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Remove what [retention] of site.toml no longer keeps: readings, predictions, model versions, rejects.

    A stream may run beside it, and does the same once a day. What a stored model was trained on stays on the disk as
    long as that version.
    Example: penstock prune --dry-run --site turbine
    """
    if as_json and not (yes or dry_run):
        raise typer.BadParameter("with --json nobody can be asked: give --yes or --dry-run")
    import time

    from penstock.keeping_screen import prune_table
    from penstock.pruning import notes, told
    from penstock.site import Site

    with Site.open(site) as opened:
        rows, warnings = opened.prune(dry_run=True), notes(opened)
        limited, now_ns = opened.settings.retention.limited, time.time_ns()
        answer = {"dry_run": dry_run, "rows": told(rows), "notes": warnings, "bytes": sum(row.bytes for row in rows)}
        if not as_json:
            print_answer(answer, as_json, prune_table(rows, opened.plant.timezone, opened.settings.retention))
            for note in warnings:
                typer.echo(f"look: {note}")
        if not limited:
            typer.echo("penstock: [retention] of site.toml sets no limit: all is kept for ever", err=True)
        if not dry_run and (rows or at_once):
            if not yes:
                typer.confirm("Remove it?", abort=True)
            opened.prune(at_once=at_once, now_ns=now_ns)
        if as_json:
            print_answer(answer, as_json)


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(help="A folder of backups, made where there is none, or a file ending in .tar")],
    keep: Annotated[int, typer.Option(min=1, help="So many backups stay in the folder.")] = KEEP,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Copy the site as it stands, while it runs. A second backup into a folder stores only what is new.

    All that was acknowledged when it began is in it; passwords, keys and certificates that site.toml names are not.
    Example: penstock backup /mnt/backups/turbine --site turbine
    """
    from penstock.backup import backup
    from penstock.site import Site

    with Site.open(site) as opened:
        done = backup(opened, to, keep=keep)
    print_answer(done, as_json)
    _tell_left_out(done["not_copied"])


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A folder of backups, or a .tar")],
    folder: Annotated[Path, typer.Argument(help="The site's folder: new, or empty.")],
    at: Annotated[str | None, typer.Option(help="One of several backups in the folder; else the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Make a site from a backup: each file is checked, and the folder appears whole or not at all.

    Example: penstock restore /mnt/backups/turbine turbine-again
    """
    from penstock.backup import restore

    done = restore(source, folder, stamp=at)
    print_answer(done, as_json)
    _tell_left_out(done["not_copied"])


def _tell_left_out(names: list[str]) -> None:
    if names:
        typer.echo(f"penstock: not in the backup, to be brought by hand: {', '.join(names)}", err=True)
