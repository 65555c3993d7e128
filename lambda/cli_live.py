"""Commands that run: stream, page, up, down, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli_options import (
    HERE,
    Decimal,
    Delimiter,
    Encoding,
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
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port of 127.0.0.1.")
    ] = None,
    time_column: TimeColumn = None,
    time_format: TimeFormat = None,
    timezone: Timezone = None,
    decimal: Decimal = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Run the speed layer: journal, window and score readings as they arrive.

    Without --replay it reads the live sources of plant.toml. Ends with the source, after --ticks, or on Ctrl-C;
    the next start goes on where it stopped.
    Example: penstock stream --site turbine
    Example: penstock stream --site turbine --replay gas-turbine:2014 --rate 3600
    """
    from penstock.screen import Progress, streamed
    from penstock.site import Site

    options = reading(time_column, time_format, timezone, decimal, delimiter, encoding)
    with Site.open(site) as opened, Progress("stream") as bar:
        report = opened.stream(replay, rate=rate, ticks=ticks, progress=bar, metrics_port=metrics_port, **options)
    print_answer(report if as_json else streamed(report), as_json)


@app.command()
def page(
    site: SiteFolder = HERE,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 0,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="End with the process that started it.", hidden=True)
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the site in a browser: the live page and the archive page, until Ctrl-C.

    Reads files only: it runs beside a stream, or alone.
    Example: penstock page --site turbine --port 5006
    """
    from penstock.page import serve
    from penstock.site import Site

    with Site.open(site) as opened:
        serve(
            opened,
            port=port,
            ready=lambda address: print_answer({"page": address}, as_json),
            with_parent=with_parent,
        )


@app.command()
def up(
    site: SiteFolder = HERE,
    replay: Annotated[str | None, typer.Option(help="A file or data set to stream, e.g. gas-turbine:2014.")] = None,
    rate: Annotated[float | None, typer.Option(help="Event seconds per second; else as fast as it goes.")] = None,
    ticks: Annotated[int | None, typer.Option(help="The stream ends after so many ticks.")] = None,
    port: Annotated[int, typer.Option(help="Port of the page on this machine; 0 takes a free one.")] = 0,
    detach: Annotated[bool, typer.Option("--detach", help="Return once all is up; `penstock down` ends it.")] = False,
    time_column: TimeColumn = None,
    time_format: TimeFormat = None,
    timezone: Timezone = None,
    decimal: Decimal = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Run the whole site: Triton with every live model, Dask, the stream and the page, until Ctrl-C.

    A part that ends by itself is started again and goes on where it stopped; `penstock status` says what happened.
    Example: penstock up --site turbine --replay gas-turbine:2014 --rate 3600 --port 5006
    Example: penstock up --site turbine --detach
    """
    from penstock.up.screen import run

    options = reading(time_column, time_format, timezone, decimal, delimiter, encoding)
    wanted = {"source": replay, "rate": rate, "ticks": ticks, "options": options}
    run(site, wanted if replay is not None else None, port, detach=detach, as_json=as_json)


@app.command()
def down(site: SiteFolder = HERE, as_json: Json = False) -> None:
    """End what `penstock up` runs on a site, in order: stream, page, Dask, Triton. Nothing runs: that is fine too.

    Example: penstock down --site turbine
    """
    from penstock.up.commands import down as end

    gone = end(site.resolve(), lambda name: None if as_json else typer.echo(f"ended: {name}"))
    if as_json or not gone:
        print_answer({"ended": gone} if as_json else {"nothing": f"is up on {site}"}, as_json)


@app.command()
def demo(
    plant: Annotated[str, typer.Option(help="Built-in plant to run.")] = "gas-turbine",
    site: Annotated[Path | None, typer.Option("--site", "-s", help="Folder of the site; else sites/PLANT.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="No page, nothing but the end result.")] = False,
    ticks: Annotated[int | None, typer.Option(help="Ticks to replay; else all there are.")] = None,
    rate: Annotated[float | None, typer.Option(help="Event seconds per second; else as fast as it goes.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many passes of training.")] = None,
    units: Units = None,
    tags: TagCount = None,
    seed: Seed = None,
    faults: Faults = False,
    as_json: Json = False,
) -> None:
    """Import, train, deploy and replay a built-in plant, from nothing, with one command, and show it in a page.

    With the page open the last 240 ticks of the replay take a minute, so that there is something to see; all else
    goes as fast as it can, with --headless the whole of it. On a terminal the page stays until Ctrl-C.
    Killed and started again it goes on where it stopped. Without gas-turbine's data and without a network
    the simulated plant takes its place, and says so.
    Example: penstock demo --plant gas-turbine --headless --ticks 2000 --json
    Example: penstock demo --plant hydraulic-rig --headless --ticks 3000 --rate 50 --json
    Example: penstock demo --plant simulated --units 2 --headless --ticks 2000 --json
    """
    from penstock.demo import run
    from penstock.demo_end import Showing, next_commands
    from penstock.screen import demo_table

    plant = plant_text(plant, units, tags, seed, faults)
    with Showing() as page:
        show = None if headless else page.open
        report = run(plant, folder=site, headless=headless, ticks=ticks, rate=rate, epochs=epochs, show=show)
        print_answer(report, as_json, demo_table(report))
        if not as_json:
            typer.echo(f"the site stays in {report['site']}; try:")
            for words in next_commands(report):
                typer.echo(f"  {words}")
        page.stay()
    if report["readings_lost"] or report["failed_requests"]:
        raise typer.Exit(1)
