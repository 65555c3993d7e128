"""The `penstock` command: puts the groups of commands together and turns errors into text.

Every command answers people on standard output and, with --json, machines: one
object as the last line. Logs and progress go to standard error. Exit code 0
means that what was asked was done, 1 that it was not, 2 that the words were wrong.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from penstock import (
    __version__,
    cli_apply,
    cli_backtest,
    cli_bench,
    cli_challengers,
    cli_gate,
    cli_live,
    cli_models,
    cli_proof,
    cli_replay,
    cli_site,
    cli_tools,
    cli_views,
    cli_years,
)
from penstock.errors import PenstockError, PlantError

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train LSTM models on plant history, host them on Triton, predict live.",
)

for group in (
    cli_site,
    cli_apply,
    cli_models,
    cli_views,
    cli_gate,
    cli_live,
    cli_replay,
    cli_proof,
    cli_tools,
    cli_years,
    cli_backtest,
    cli_bench,
    cli_challengers,
):
    app.add_typer(group.app)

INTERRUPTED = 130
"""Exit code that typer makes of Ctrl-C."""


def main() -> None:
    """Entry point: runs the command, turns a PenstockError into its text and exit code 1."""
    try:
        app()
    except PlantError as error:
        sys.exit(f"penstock: {len(error.mistakes)} mistake(s)\n{error}")
    except PenstockError as error:
        sys.exit(f"penstock: {error}")
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            print("penstock: interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
