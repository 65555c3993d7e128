"""Commands around a site: export, compare, doctor, size. `cli` puts them beside its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli_options import HERE, End, Json, SiteFolder, Start

app = typer.Typer()


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File or folder to write; it ends with .csv, .parquet or .zarr.")],
    site: SiteFolder = HERE,
    start: Start = None,
    end: End = None,
    tags: Annotated[str, typer.Option(help="Only tags with names like this.")] = "*",
    quality: Annotated[bool, typer.Option("--quality", help="The quality of each reading too, bad ones included.")] = (
        False
    ),
    retired: Annotated[bool, typer.Option("--retired", help="Tags that plant.toml has no more, too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write readings to a plain file: CSV, Parquet or Zarr, whole or not at all.

    Times are UTC, the beginning of each period. Without --quality bad readings are left out.
    Example: penstock export history.parquet --site turbine --start 2014 --tags 'T*'
    """
    from penstock.screen import Progress, show
    from penstock.site import Site

    with Site.open(site) as opened, Progress("export") as bar:
        answer = opened.export(
            path, start=start, end=end, tags=tags, quality=quality, retired=retired, overwrite=overwrite,
            progress=bar,
        )  # fmt: skip
    show(answer, as_json)


@app.command()
def compare(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    candidates: Annotated[
        list[str] | None, typer.Argument(help="NAME, NAME@VERSION, @champion, persistence, ridge; else the live one.")
    ] = None,
    site: SiteFolder = HERE,
    start: Start = None,
    end: End = None,
    plot: Annotated[Path | None, typer.Option(help="Write bars and residuals to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare models with each other and with baselines, only on rows where all of them answer.

    Skill is 1 - RMSE / persistence's RMSE. Ridge is fitted on the first model's training span.
    Example: penstock compare nox nox@1 @champion persistence ridge --site turbine --start 2014
    """
    from penstock.screen import Progress, compare_table, show
    from penstock.site import Site

    with Site.open(site) as opened, Progress(f"compare {model}"):
        found = opened.compare(model, candidates or [], start=start, end=end)
    if plot is not None:
        found.save(plot)
    rows = [{str(key): value for key, value in row.items()} for row in found.table.to_dict(orient="records")]
    times = {"start": str(found.times[0]), "end": str(found.times[-1])}
    units = dict(zip(found.targets, found.units, strict=True))
    show({"model": model, "n": len(found.truth), **times, "rows": rows}, as_json, compare_table(rows, units))


@app.command()
def drift(
    models: Annotated[list[str] | None, typer.Argument(help="Names of models; else all that are live.")] = None,
    site: SiteFolder = HERE,
    start: Start = "-30d",
    end: End = None,
    as_json: Json = False,
) -> None:
    """Tell whether what models see and how they err is still what they were trained on.

    A sensor's fault, inputs outside the trained range, a new regime and slow ageing are told apart. Exit code 1 where
    something is found; `penstock status` shows it too.
    Example: penstock drift nox --site turbine --start -30d
    """
    from penstock.screen import drift_table, show
    from penstock.site import Site

    with Site.open(site) as opened:
        names = models or sorted(opened.models.champions())
        looked = [opened.drift(name, start, end) for name in names]
    show({"models": looked}, as_json, drift_table(looked))
    if any(one["findings"] for one in looked):
        raise typer.Exit(1)


@app.command()
def doctor(
    folder: Annotated[Path | None, typer.Argument(help="A site's folder; else this one, where it is a site.")] = None,
    as_json: Json = False,
) -> None:
    """Look at this machine and a site: what is wrong, and what to do. Changes nothing; exit code 1 where it is wrong.

    Example: penstock doctor turbine
    """
    from penstock.doctor import examine
    from penstock.screen import doctor_table, show

    place = folder or (HERE if (HERE / "site.json").exists() else None)
    findings = [asdict(finding) for finding in examine(place)]
    wrong = sum(finding["state"] == "wrong" for finding in findings)
    show({"findings": findings, "wrong": wrong}, as_json, doctor_table(findings))
    if wrong:
        raise typer.Exit(1)


@app.command()
def size(
    tags: Annotated[int, typer.Option(min=1, help="Sensors of the plant.")],
    models: Annotated[int, typer.Option(min=0, help="LSTMs, each answering at every tick.")],
    tick: Annotated[str, typer.Option(help="Time between two ticks, as plant.toml has it: 1s, 500ms, 1min.")] = "1s",
    window: Annotated[int, typer.Option(min=1, help="Rows of a model's window.")] = 60,
    inputs: Annotated[int, typer.Option(min=1, help="Inputs of a model, its past target among them.")] = 32,
    units: Annotated[int, typer.Option(min=1, help="Units of a layer.")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="LSTM layers.")] = 1,
    keep: Annotated[str, typer.Option(help="History that the disk is to hold: 30d, 1y.")] = "30d",
    by_windows: Annotated[
        bool, typer.Option("--by-windows", help="Models that go by windows: with a past target, or of another form.")
    ] = False,
    disk: Annotated[Path, typer.Option(help="A folder on the disk where the site is to be.")] = HERE,
    probe: Annotated[bool, typer.Option(help="Measure this machine for some seconds; else constants.")] = True,
    as_json: Json = False,
) -> None:
    """Tell whether this machine holds a plant: processor, memory, disk and time, and what to change. Needs no site.

    Exit code 0: it fits; 1: it does not. Above 70 % it fits, but is tight. The test of the
    disk leaves no file; compiled code stays in penstock's cache.
    Example: penstock size --tags 2000 --models 200 --tick 1s --keep 90d
    """
    from penstock.screen import show, size_table
    from penstock.size_report import sized

    words = {"tags": tags, "models": models, "rows": window, "inputs": inputs, "units": units, "layers": layers}
    answer = sized(words, tick=tick, keep=keep, disk=disk, probe=probe, by_rows=not by_windows)
    show(answer, as_json, size_table(answer))
    if not as_json:
        for text in answer["changes"]:
            typer.echo(f"  {text}")
    if not answer["fits"]:
        raise typer.Exit(1)
