"""The command that walks through a past year as if it were live: backtest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer

app = typer.Typer()


@app.command()
def backtest(
    model: Annotated[str | None, typer.Argument(help="A model of the site's plant.toml.")] = None,
    plant: Annotated[
        str | None, typer.Option(help="Instead: 'gas-turbine', the published benchmark, from nothing.")
    ] = None,
    years: Annotated[str, typer.Option(help="With --plant: 2014, or 2014,2015; else all behind 2013.")] = "",
    target: Annotated[str, typer.Option(help="With --plant: of NOX,TEY,CO; else all.")] = "",
    setting: Annotated[str, typer.Option(help="static,live; with --plant also retrain,past-target,forecast-1.")] = "",
    start: Annotated[
        str | None, typer.Option("--from", help="First time said; the model is fitted on what is before.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End, not included; else where the readings end.")] = None,
    rows: Annotated[int | None, typer.Option(min=200, help="With --plant: only the first rows of one year.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for charts, one HTML file per target.")] = None,
    choose: Annotated[bool, typer.Option("--choose", help="With --plant: try settings on 2011-2013 alone.")] = False,
    keep: Annotated[Path | None, typer.Option(help="New folder in which the backtest's own site stays.")] = None,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Walk through a past year: archive, training on Dask, Triton, stream, merge; every method judged on the same rows.

    The site is only read; the walk has a site, workers and a Triton of its own. --choose shows how the settings of the
    published benchmark were chosen: each year of 2011 to 2013 left out in turn.
    Example: penstock backtest nox --from 2014-01-01 --setting static,live --site turbine
    """
    from penstock.backtest import backtest_own, backtest_published
    from penstock.backtest_screen import backtest_table, choice_table
    from penstock.screen import Progress
    from penstock.site import Site

    if (model is None) == (plant is None):
        raise typer.BadParameter("give a model of the site and --from, or --plant gas-turbine")
    if plant not in (None, "gas-turbine"):
        raise typer.BadParameter(f"--plant is {plant!r}; the published benchmark is of 'gas-turbine'")
    if model is not None and (start is None or years or target or choose or rows):
        raise typer.BadParameter(
            "a model of the site needs --from; --years, --target, --rows and --choose go with --plant"
        )
    with Progress("backtest") as bar:
        if choose:
            from penstock.backtest_choice import choice

            told = choice(_listed(target), _listed(setting), bar)
            print_answer(told, as_json, choice_table(told))
            return
        if model is not None and start is not None:
            with Site.open(site) as opened:
                found = backtest_own(opened, model, start, end, _listed(setting), folder=keep, told=bar)
        else:
            walked = [_year(text) for text in _listed(years)] or None
            found = backtest_published(
                walked, _listed(target), _listed(setting), folder=keep, rows=rows, told=bar
            )  # fmt: skip
    answer = found.summary()
    if plots is not None:
        answer["plots"] = found.plots(plots)
    print_answer(answer, as_json, backtest_table(answer))


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _year(text: str) -> int:
    """Raises BadParameter."""
    if not (text.isdecimal() and len(text) == 4):
        raise typer.BadParameter(f"--years: {text!r} is no year, such as 2014")
    return int(text)
