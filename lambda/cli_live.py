"""Commands that run: stream, page, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli_options import (
    HERE,
    Decimal,
    Delimiter,
    Faults,
    Json,
    Seed,
    SiteFolder,
    TagCount,
    TimeColumn,
    TimeFormat,
    Timezone,
    Units,
    plant_text,
    print_answer,
    reading,
)

app = typer.Typer()


@app.command()
def stream(
    site: SiteFolder = HERE,
    replay: Annotated[str | None, typer.Option(help="A file or data set to replay, e.g. gas-turbine:2014.")] = None,
    rate: Annotated[float | None, typer.Option(help="Event seconds per second; else as fast as it goes.")] = None,
    ticks: Annotated[int | None, typer.Option(help="End after so many ticks.")] = None,
    time_column: TimeColumn = None,
    time_format: TimeFormat = None,
    timezone: Timezone = None,
    decimal: Decimal = None,
    delimiter: Delimiter = None,
    as_json: Json = False,
) -> None:
    """Run the speed layer: journal, window and score readings as they arrive.

    Ends with the source, after --ticks, or on Ctrl-C; the next start goes on where it stopped.
    Example: penstock stream --site turbine --replay gas-turbine:2014 --rate 3600
    """
    from penstock.screen import Progress, streamed
    from penstock.site import Site

    options = reading(time_column, time_format, timezone, decimal, delimiter)
    with Site.open(site) as opened, Progress("stream") as bar:
        report = opened.stream(replay, rate=rate, ticks=ticks, progress=bar, **options)
    print_answer(report if as_json else streamed(report), as_json)


@app.command()
def page(
    site: SiteFolder = HERE,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 0,
    as_json: Json = False,
) -> None:
    """Show the site in a browser: the live page and the archive page, until Ctrl-C.

    Reads files only: it runs beside a stream, or alone.
    Example: penstock page --site turbine --port 5006
    """
    from penstock.page import serve
    from penstock.site import Site

    with Site.open(site) as opened:
        serve(opened, port=port, ready=lambda address: print_answer({"page": address}, as_json))


@app.command()
def demo(
    plant: Annotated[str, typer.Option(help="Built-in plant to run.")] = "gas-turbine",
    site: Annotated[Path | None, typer.Option("--site", "-s", help="Folder of the site; else sites/PLANT.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Nothing but the end result.")] = False,
    ticks: Annotated[int | None, typer.Option(help="Ticks to replay; else all there are.")] = None,
    rate: Annotated[float | None, typer.Option(help="Event seconds per second; else as fast as it goes.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many passes of training.")] = None,
    units: Units = None,
    tags: TagCount = None,
    seed: Seed = None,
    faults: Faults = False,
    as_json: Json = False,
) -> None:
    """Import, train, deploy and replay a built-in plant, from nothing, with one command.

    Killed and started again it goes on where it stopped. Without gas-turbine's data and without a network
    the simulated plant takes its place, and says so.
    Example: penstock demo --plant gas-turbine --headless --ticks 2000 --json
    Example: penstock demo --plant hydraulic-rig --headless --ticks 3000 --rate 50 --json
    Example: penstock demo --plant simulated --units 2 --headless --ticks 2000 --json
    """
    from penstock.demo import run

    plant = plant_text(plant, units, tags, seed, faults)
    report = run(plant, folder=site, headless=headless, ticks=ticks, rate=rate, epochs=epochs)
    from penstock.screen import demo_table

    print_answer(report, as_json, demo_table(report))
    if not as_json:
        typer.echo(f"the site stays in {report['site']}; try:")
        for words in (f"query {next(iter(report['models']))} --start -24h", "models", "status"):
            typer.echo(f"  penstock {words} --site {report['site']}")
    if report["readings_lost"] or report["failed_requests"]:
        raise typer.Exit(1)
