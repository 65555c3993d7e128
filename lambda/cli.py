"""The `penstock` command: parses words, calls a Site, prints.

Every command answers people on standard output and, with --json, machines: one
object as the last line. Logs and progress go to standard error. Exit code 0
means that what was asked was done, 1 that it was not, 2 that the words were wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock import __version__, cli_tools
from penstock.cli_tools import HERE, Json, SiteFolder
from penstock.errors import ModelError, PenstockError, PlantError, SourceError

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train LSTM models on plant history, host them on Triton, predict live.",
)

app.add_typer(cli_tools.app)

INTERRUPTED = 130
"""Exit code that typer makes of Ctrl-C."""

TimeColumn = Annotated[str | None, typer.Option(help="Column of the time stamps.")]
TimeFormat = Annotated[str | None, typer.Option(help="strptime format of the time stamps, e.g. '%d.%m.%Y %H:%M'.")]
Timezone = Annotated[str | None, typer.Option(help="Zone of times without an offset; else the plant's.")]
Decimal = Annotated[str | None, typer.Option(help="Decimal mark of a CSV's numbers, e.g. ','; else a point.")]
Delimiter = Annotated[str | None, typer.Option(help="What parts a CSV's columns; else told from its header.")]
Units = Annotated[int | None, typer.Option(help="Simulated plant: power station units; else 2.")]
TagCount = Annotated[int | None, typer.Option("--tags", help="Simulated plant: sensors per unit, from 11; else 40.")]
Seed = Annotated[int | None, typer.Option(help="Simulated plant: another number is another station; else 1.")]
Faults = Annotated[bool, typer.Option("--faults", help="Simulated plant: let sensors fail now and then.")]


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


def _print(answer: dict[str, Any], as_json: bool, *tables: Any) -> None:
    from penstock.screen import show

    show(answer, as_json, *tables)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    plant: Annotated[str, typer.Option(help="A built-in plant, or a plant.toml to start from.")] = "gas-turbine",
    units: Units = None,
    tags: TagCount = None,
    seed: Seed = None,
    faults: Faults = False,
    file: Annotated[Path | None, typer.Option("--from", help="A CSV file to guess plant.toml from.")] = None,
    timezone: Annotated[str | None, typer.Option(help="With --from: zone of times without an offset.")] = None,
    as_json: Json = False,
) -> None:
    """Make a site: a folder that runs a plant. With --from its tags, units, ranges and period are guessed.

    Example: penstock init turbine --plant gas-turbine
    Example: penstock init mine --from history.csv --timezone Europe/Berlin
    Example: penstock init station --plant simulated --units 4 --tags 40 --seed 1 --faults
    """
    from penstock.site import Site

    if file is not None:
        _guessed(folder, file, timezone, as_json)
        return

    site = Site.create(folder, _plant(plant, units, tags, seed, faults))
    _print({"site": str(site.folder), "tags": len(site.plant.tags), "models": list(site.plant.models)}, as_json)
    if not as_json:
        typer.echo(f"next: penstock check {folder}")


def _plant(plant: str, units: int | None, tags: int | None, seed: int | None, faults: bool) -> str:
    """The plant's name, with the numbers of a simulated one: simulated,units=4,tags=40,seed=1,faults."""
    numbers = {"units": units, "tags": tags, "seed": seed}
    words = [f"{key}={value}" for key, value in numbers.items() if value is not None] + ["faults"] * faults
    if words and plant.split(",")[0] != "simulated":
        raise typer.BadParameter("--units, --tags, --seed and --faults are for --plant simulated")
    return ",".join([plant, *words])


def _guessed(folder: Path, file: Path, timezone: str | None, as_json: bool) -> None:
    from penstock.beginning import begin

    begun = begin(folder, file, timezone)
    answer = {"site": str(begun.folder), "tags": len(begun.tags), "models": list(begun.models)}
    if as_json:
        _print(answer | {"notes": list(begun.notes), "next": begun.next}, as_json)
        return
    _print(answer, as_json)
    for note in begun.notes:
        typer.echo(f"look: {note}")
    typer.echo(f"look through {begun.folder / 'plant.toml'}; next: {begun.next}")


@app.command()
def check(
    place: Annotated[Path, typer.Argument(help="A site's folder or a plant.toml.")] = HERE,
    as_json: Json = False,
) -> None:
    """Validate plant.toml and site.toml without starting anything.

    Example: penstock check turbine
    """
    from penstock.check import check_place

    plant = check_place(place)
    _print({"plant": plant.name, "tags": len(plant.tags), "models": list(plant.models), "mistakes": 0}, as_json)


@app.command("import")
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files (CSV, Parquet, NetCDF), Zarr folders, or a built-in data set: gas-turbine:2011-2013."
        ),
    ],
    site: SiteFolder = HERE,
    time_column: TimeColumn = None,
    time_format: TimeFormat = None,
    timezone: Timezone = None,
    decimal: Decimal = None,
    delimiter: Delimiter = None,
    sql: Annotated[str | None, typer.Option(help="URL of a database; the arguments are queries then.")] = None,
    as_json: Json = False,
) -> None:
    """Bring history into the archive, through the journal, whether the site runs or not.

    Bad rows go into rejects/ with line and reason; the good ones go in. Twice changes nothing.
    Example: penstock import history.csv --site turbine --time-column Timestamp
    Example: penstock import --sql sqlite:///plant.db "SELECT time, T1, P1 FROM readings" --site turbine
    """
    from penstock.data.importing.sql_rows import SqlQuery
    from penstock.screen import Progress
    from penstock.site import Site

    options = _reading(time_column, time_format, timezone, decimal, delimiter)
    reports = []
    with Site.open(site) as opened:
        for source in sources:
            with Progress(source) as bar:
                wanted = source if sql is None else SqlQuery(url=sql, text=source)
                reports.append(opened.load(wanted, progress=bar, **options))
            if not as_json:
                _print(reports[-1], as_json)
    if as_json:
        _print(reports[0] if len(reports) == 1 else {"imports": reports}, as_json)
    for source, report in zip(sources, reports, strict=True):
        if report["rejected"] and not report["accepted"] and not report["already"]:
            raise SourceError(f"{source}: nothing of it could be taken; {report['rejects']} says why, line by line")


def _reading(
    time_column: str | None, time_format: str | None, timezone: str | None, decimal: str | None, delimiter: str | None
) -> dict[str, Any]:
    """How a file is to be read, by the names that `Site.load` and `Site.stream` know."""
    words = {"time_column": time_column, "time_format": time_format, "timezone": timezone}
    return words | {"decimal": decimal, "delimiter": delimiter}


@app.command()
def train(
    models: Annotated[list[str] | None, typer.Argument(help="Models to train.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All models of the plant.")] = False,
    site: SiteFolder = HERE,
    start: Annotated[str | None, typer.Option(help="Begin of the training span.")] = None,
    end: Annotated[str | None, typer.Option(help="End of the training span (not included).")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many passes; else as plant.toml says.")] = None,
    as_json: Json = False,
) -> None:
    """Train models on the archive with Dask; the results are stored, not yet live.

    Example: penstock train nox tey --site turbine --end 2014
    """
    from penstock.screen import Progress, models_table
    from penstock.site import Site

    with Site.open(site) as opened:
        names = list(opened.plant.models) if every or not models else models
        with Progress("train") as bar:
            outcome = opened.train_all(
                names, start=start, end=end, lstm={"epochs": epochs} if epochs else None, progress=bar
            )
        _print(
            {"trained": [f"{a.name}@{a.version}" for a in outcome.trained], "failed": outcome.failed},
            as_json,
            models_table([a.card for a in outcome.trained], {}),
        )
    if outcome.failed:
        raise ModelError("\n".join(outcome.failed.values()))


@app.command()
def deploy(
    models: Annotated[list[str], typer.Argument(help="NAME (its newest version) or NAME@VERSION.")],
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Put trained models live on Triton; an older version named here is a roll-back.

    A refusal says why and leaves the old version answering.
    Example: penstock deploy nox@2 --site turbine
    """
    from penstock.site import Site

    with Site.open(site) as opened:
        done = [opened.deploy(*_reference(text)) for text in models]
    for answer in [] if as_json else done:
        _print(answer, as_json)
    if as_json:
        _print(done[0] if len(done) == 1 else {"deploys": done}, as_json)


def _reference(text: str) -> tuple[str, int | None]:
    """NAME or NAME@VERSION."""
    name, _, version = text.partition("@")
    if version and not version.isdecimal():
        raise typer.BadParameter(f"{text!r}: the version is a number, as `penstock models` shows it")
    return name, int(version) if version else None


@app.command()
def undeploy(
    model: Annotated[str, typer.Argument(help="Name of a live model.")],
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Take a model off Triton; its versions stay in the store.

    Example: penstock undeploy nox --site turbine
    """
    from penstock.site import Site

    with Site.open(site) as opened:
        _print(opened.undeploy(model), as_json)


@app.command()
def models(site: SiteFolder = HERE, as_json: Json = False) -> None:
    """List the trained versions of each model, and which one is live.

    Example: penstock models --site turbine
    """
    from penstock.screen import models_table
    from penstock.site import Site

    with Site.open(site) as opened:
        cards, champions = opened.cards(), opened.models.champions()
        _print({"models": cards, "live": champions}, as_json, models_table(cards, champions))


@app.command()
def tags(
    pattern: Annotated[str, typer.Argument(help="Only names like this.")] = "*",
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """List tags with unit, newest value, its time and quality.

    Example: penstock tags 'T*' --site turbine
    """
    from penstock.screen import tags_table
    from penstock.site import Site

    with Site.open(site) as opened:
        rows = opened.newest(pattern)
        _print({"tags": rows}, as_json, tags_table(rows))


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

    options = _reading(time_column, time_format, timezone, decimal, delimiter)
    with Site.open(site) as opened, Progress("stream") as bar:
        report = opened.stream(replay, rate=rate, ticks=ticks, progress=bar, **options)
    _print(report if as_json else streamed(report), as_json)


@app.command()
def query(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    site: SiteFolder = HERE,
    start: Annotated[str | None, typer.Option(help="Begin: 2014-01-01, or -48h before the newest.")] = "-48h",
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    strict: Annotated[bool, typer.Option(help="A hole is an error, not a marked row.")] = False,
    as_json: Json = False,
) -> None:
    """Truth, prediction, reason, layer, version across the seam of the two layers.

    Example: penstock query nox --site turbine --start 2014-01-05 --end 2014-01-07
    """
    from penstock.screen import query_table
    from penstock.site import Site

    with Site.open(site) as opened:
        answer, zone = opened.query(model, start=start, end=end, strict=strict), opened.plant.timezone
    rows = answer.to_dataframe().reset_index()
    if csv is not None:
        rows.to_csv(csv, index=False)
    summary = {
        "model": model,
        "rows": len(rows),
        "seam": answer.attrs["seam"],
        "holes": answer.attrs["holes"],
    }
    if as_json:
        summary["data"] = rows.assign(time=rows["time"].astype(str)).to_dict(orient="list")
    _print(summary, as_json, query_table(rows, zone))


@app.command()
def recompute(
    model: Annotated[str, typer.Argument(help="Name of a live model.")],
    site: SiteFolder = HERE,
    start: Annotated[str | None, typer.Option(help="Begin; else where the readings begin.")] = None,
    end: Annotated[str | None, typer.Option(help="End, where the seam then lies; else the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Recompute the past with the live version on Dask: the batch view, up to the seam.

    Example: penstock recompute nox --site turbine --start 2013-09-01 --end 2014
    """
    from penstock.site import Site

    with Site.open(site) as opened:
        _print(opened.recompute(model, start, end), as_json)


@app.command()
def status(site: SiteFolder = HERE, as_json: Json = False) -> None:
    """One line per part: what runs, how far it is, what is wrong and what to do.

    Example: penstock status --site turbine
    """
    from penstock.screen import status_table
    from penstock.site import Site

    with Site.open(site) as opened:
        parts = opened.status()
    _print({"parts": parts}, as_json, status_table(parts))


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
        serve(opened, port=port, ready=lambda address: _print({"page": address}, as_json))


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

    plant = _plant(plant, units, tags, seed, faults)
    report = run(plant, folder=site, headless=headless, ticks=ticks, rate=rate, epochs=epochs)
    from penstock.screen import demo_table

    _print(report, as_json, demo_table(report))
    if not as_json:
        typer.echo(f"the site stays in {report['site']}; try:")
        for words in (f"query {next(iter(report['models']))} --start -24h", "models", "status"):
            typer.echo(f"  penstock {words} --site {report['site']}")
    if report["readings_lost"] or report["failed_requests"]:
        raise typer.Exit(1)
