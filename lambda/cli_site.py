"""Commands that make a site and bring history in: init, check, import, tags, aggregates, status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli_options import (
    HERE,
    CaFile,
    CertFile,
    Decimal,
    Delimiter,
    Encoding,
    Faults,
    Json,
    KeyFile,
    Listen,
    NodeIds,
    PasswordFile,
    Seed,
    SiteFolder,
    TagCount,
    TimeColumn,
    TimeFormat,
    Timezone,
    Topics,
    Units,
    User,
    duration_of,
    plant_text,
    print_answer,
    reading,
)
from penstock.errors import SourceError

if TYPE_CHECKING:
    from penstock.beginning import Begun

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    plant: Annotated[str, typer.Option(help="A built-in plant, or a plant.toml to start from.")] = "gas-turbine",
    units: Units = None,
    tags: TagCount = None,
    seed: Seed = None,
    faults: Faults = False,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from", help="A CSV file to guess plant.toml from, or an address to look at: opc.tcp://, mqtt://"
        ),
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="With --from: zone of times without an offset.")] = None,
    node: NodeIds = None,
    topics: Topics = None,
    listen: Listen = "30s",
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make a site: a folder that runs a plant. With --from its tags, units, ranges and period are guessed.

    Example: penstock init turbine --plant gas-turbine
    Example: penstock init mine --from history.csv --timezone Europe/Berlin
    Example: penstock init line1 --from opc.tcp://plc.plant:4840 --node "ns=2;s=Line1"
    Example: penstock init hall --from mqtts://broker.plant:8883 --topics "hall/#" --listen 2min
    Example: penstock init station --plant simulated --units 4 --tags 40 --seed 1 --faults
    """
    from penstock.site import Site

    if origin is not None:
        from penstock.listening import Address, begin_from_address, is_address

        if is_address(origin):
            address = Address(
                url=origin, user=user, password_file=password_file, ca_file=ca_file, cert_file=cert_file,
                key_file=key_file, nodes=tuple(node or ()), topics=tuple(topics or ()),
                listen_ns=duration_of("--listen", listen),
            )  # fmt: skip
            _tell_begun(begin_from_address(folder, address, timezone), as_json)
            return
        from penstock.beginning import begin

        _tell_begun(begin(folder, Path(origin), timezone), as_json)
        return

    site = Site.create(folder, plant_text(plant, units, tags, seed, faults))
    print_answer({"site": str(site.folder), "tags": len(site.plant.tags), "models": list(site.plant.models)}, as_json)
    if not as_json:
        typer.echo(f"next: penstock check {folder}")


def _tell_begun(begun: Begun, as_json: bool) -> None:
    answer = {"site": str(begun.folder), "tags": len(begun.tags), "models": list(begun.models)}
    if as_json:
        print_answer(answer | {"notes": list(begun.notes), "next": begun.next}, as_json)
        return
    print_answer(answer, as_json)
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
    print_answer({"plant": plant.name, "tags": len(plant.tags), "models": list(plant.models), "mistakes": 0}, as_json)


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
    encoding: Encoding = None,
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

    options = reading(time_column, time_format, timezone, decimal, delimiter, encoding)
    reports = []
    with Site.open(site) as opened:
        for source in sources:
            with Progress(source) as bar:
                wanted = source if sql is None else SqlQuery(url=sql, text=source)
                reports.append(opened.load(wanted, progress=bar, **options))
            if not as_json:
                print_answer(reports[-1], as_json)
    if as_json:
        print_answer(reports[0] if len(reports) == 1 else {"imports": reports}, as_json)
    for source, report in zip(sources, reports, strict=True):
        if report["rejected"] and not report["accepted"] and not report["already"]:
            raise SourceError(f"{source}: nothing of it could be taken; {report['rejects']} says why, line by line")


@app.command()
def tags(
    pattern: Annotated[str, typer.Argument(help="Only names like this.")] = "*",
    site: SiteFolder = HERE,
    live: Annotated[bool, typer.Option("--live", help="Keep looking until Ctrl-C: age, quality and source too.")] = (
        False
    ),
    once: Annotated[bool, typer.Option("--once", help="With --live: look once and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="With --live: seconds between two looks.")] = 1.0,
    as_json: Json = False,
) -> None:
    """List tags with unit, newest value, its time and quality.

    With --live it reads files only and runs beside a stream; with --json it prints an object per look, a line each.
    Example: penstock tags 'T*' --site turbine
    Example: penstock tags 'U017/*' --live --site turbine
    """
    from penstock.screen import tags_table
    from penstock.site import Site

    if live or once:
        from penstock.live_screen import watch

        with Site.open(site) as opened:
            watch(opened, pattern, every_s=every, once=once, as_json=as_json)
        return
    with Site.open(site) as opened:
        rows = opened.newest(pattern)
        print_answer({"tags": rows}, as_json, tags_table(rows))


@app.command()
def aggregates(
    pattern: Annotated[str, typer.Argument(help="Only tags like this.")] = "*",
    site: SiteFolder = HERE,
    period: Annotated[str | None, typer.Option(help="One of plant.toml's periods; else the shortest.")] = None,
    start: Annotated[str | None, typer.Option(help="Begin: 2014-01-01, or -48h before the newest.")] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Count, mean, min, max, std of tags per minute, hour, ... as [aggregates] of plant.toml keeps them.

    Example: penstock aggregates 'T*' --site turbine --period 1h --start -24h
    """
    from penstock.screen import aggregates_table
    from penstock.site import Site

    with Site.open(site) as opened:
        told, zone = opened.aggregates(pattern, period, start, end), opened.plant.timezone
    rows = told.to_dataframe().reset_index()
    if csv is not None:
        rows.to_csv(csv, index=False)
    summary = {"period": told.attrs["period"], "rows": len(rows), "pending": told.attrs["pending"]}
    if as_json:
        summary["data"] = rows.assign(time=rows["time"].astype(str)).to_dict(orient="list")
    print_answer(summary, as_json, aggregates_table(rows, zone))


@app.command()
def status(site: SiteFolder = HERE, as_json: Json = False) -> None:
    """One line per part: what runs, how far it is, what is wrong and what to do.

    Example: penstock status --site turbine
    """
    from penstock.screen import status_table
    from penstock.site import Site

    with Site.open(site) as opened:
        parts = opened.status()
    print_answer({"parts": parts}, as_json, status_table(parts))
