"""Options that several commands share, and how each of them prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SiteFolder = Annotated[Path, typer.Option("--site", "-s", envvar="PENSTOCK_SITE", help="Folder of the site.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Start = Annotated[str | None, typer.Option(help="Begin: 2014-01-01, or -48h before the newest.")]
End = Annotated[str | None, typer.Option(help="End, not included.")]
HERE = Path(".")
TimeColumn = Annotated[str | None, typer.Option(help="Column of the time stamps.")]
TimeFormat = Annotated[str | None, typer.Option(help="strptime format of the time stamps, e.g. '%d.%m.%Y %H:%M'.")]
Timezone = Annotated[str | None, typer.Option(help="Zone of times without an offset; else the plant's.")]
Decimal = Annotated[str | None, typer.Option(help="Decimal mark of a CSV's numbers, e.g. ','; else a point.")]
Delimiter = Annotated[str | None, typer.Option(help="What parts a CSV's columns; else told from its header.")]
Encoding = Annotated[str | None, typer.Option(help="Letters of a CSV, e.g. cp1252; else UTF-8, or cp1252 if not.")]
Units = Annotated[int | None, typer.Option(help="Simulated plant: power station units; else 2.")]
TagCount = Annotated[int | None, typer.Option("--tags", help="Simulated plant: sensors per unit, from 11; else 40.")]
Seed = Annotated[int | None, typer.Option(help="Simulated plant: another number is another station; else 1.")]
Faults = Annotated[bool, typer.Option("--faults", help="Simulated plant: let sensors fail now and then.")]
NodeIds = Annotated[
    list[str] | None, typer.Option("--node", help="With --from opc.tcp: node id to begin at; else Objects.")
]
Topics = Annotated[list[str] | None, typer.Option("--topics", help="With --from mqtt: filter, such as 'plant/#'.")]
Listen = Annotated[str, typer.Option(help="With --from mqtt: how long to listen.")]
User = Annotated[str | None, typer.Option(help="With --from an address: name that it knows us by.")]
PasswordFile = Annotated[Path | None, typer.Option(help="With --from an address: file with the password.")]
CaFile = Annotated[Path | None, typer.Option(help="With --from an address: certificates that its own must come from.")]
CertFile = Annotated[Path | None, typer.Option(help="With --from an address: our certificate.")]
KeyFile = Annotated[Path | None, typer.Option(help="With --from an address: its private key.")]


def print_answer(answer: dict[str, Any], as_json: bool, *tables: Any) -> None:
    """One JSON line, or the tables, or the answer's items line by line."""
    from penstock.screen import show  # rich and pandas only where something is printed

    show(answer, as_json, *tables)


def reference(text: str) -> tuple[str, int | None]:
    """NAME or NAME@VERSION. Raises BadParameter."""
    name, _, version = text.partition("@")
    if version and not version.isdecimal():
        raise typer.BadParameter(f"{text!r}: the version is a number, as `penstock models` shows it")
    return name, int(version) if version else None


def reading(
    time_column: str | None,
    time_format: str | None,
    timezone: str | None,
    decimal: str | None,
    delimiter: str | None,
    encoding: str | None,
) -> dict[str, Any]:
    """How a file is to be read, by the names that `Site.load` and `Site.stream` know."""
    words = {"time_column": time_column, "time_format": time_format, "timezone": timezone}
    return words | {"decimal": decimal, "delimiter": delimiter, "encoding": encoding}


def duration_of(option: str, text: str) -> int:
    """ns, more than none. Raises BadParameter."""
    from penstock.data.durations import DURATION, parse_duration

    try:
        span_ns = parse_duration(text)
    except ValueError:
        span_ns = 0
    if span_ns <= 0:
        raise typer.BadParameter(f"{option} is {text!r}; give {DURATION}")
    return span_ns


def plant_text(plant: str, units: int | None, tags: int | None, seed: int | None, faults: bool) -> str:
    """The plant's name, with the numbers of a simulated one: simulated,units=4,tags=40,seed=1,faults."""
    numbers = {"units": units, "tags": tags, "seed": seed}
    words = [f"{key}={value}" for key, value in numbers.items() if value is not None] + ["faults"] * faults
    if words and plant.split(",")[0] != "simulated":
        raise typer.BadParameter("--units, --tags, --seed and --faults are for --plant simulated")
    return ",".join([plant, *words])
