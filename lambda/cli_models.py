"""Commands about models: train, deploy, undeploy, models, query."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli_options import (
    HERE,
    Json,
    SiteFolder,
    print_answer,
    reference,
)
from penstock.errors import ModelError

app = typer.Typer()


@app.command()
def train(
    models: Annotated[list[str] | None, typer.Argument(help="Models to train; 'nox.*' is a whole fleet.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All models of the plant.")] = False,
    site: SiteFolder = HERE,
    start: Annotated[str | None, typer.Option(help="Begin of the training span.")] = None,
    end: Annotated[str | None, typer.Option(help="End of the training span (not included).")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many passes; else as plant.toml says.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Begin again instead of going on where one stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Train models on the archive with Dask; the results are stored, not yet live.

    Interrupted or killed, the same command goes on: over the same span and readings, with the models left.
    Example: penstock train nox tey --site turbine --end 2014
    """
    from penstock.known import trainable_like
    from penstock.screen import Progress, models_table
    from penstock.site import Site

    with Site.open(site) as opened:
        names = list(opened.plant.models) if every or not models else trainable_like(opened.plant, models)
        with Progress("train") as bar:
            outcome = opened.train_all(
                names, start=start, end=end, lstm={"epochs": epochs} if epochs else None, anew=anew, progress=bar
            )
        print_answer(
            {
                "trained": [f"{a.name}@{a.version}" for a in outcome.trained],
                "failed": outcome.failed,
                "run": outcome.run,
            },
            as_json,
            models_table([a.card for a in outcome.trained], {}),
        )
    if outcome.failed:
        told = list(outcome.failed.values())
        if outcome.trained:
            told.append(f"{len(outcome.failed)} of {len(names)} not trained; the others are stored")
        raise ModelError("\n".join(told))


@app.command()
def deploy(
    models: Annotated[
        list[str], typer.Argument(help="NAME (its newest version), NAME@VERSION, or 'nox.*' for a whole fleet.")
    ],
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Put trained models live on Triton; an older version named here is a roll-back.

    A refusal says why, leaves the old version answering, and stops no other model.
    Example: penstock deploy nox@2 --site turbine
    """
    from penstock.known import stored_like
    from penstock.screen import Progress
    from penstock.site import Site

    with Site.open(site) as opened, Progress(f"deploy {' '.join(models)}") as bar:  # Triton's start takes a while
        wanted = stored_like(opened.models, [reference(text) for text in models])
        if len(wanted) == 1:
            print_answer(opened.deploy(*wanted[0]), as_json)
            return
        done = opened.deploy_all(wanted, progress=bar)
    print_answer(done, as_json)
    if done["refused"]:
        raise ModelError("\n".join(done["refused"].values()))


@app.command()
def undeploy(
    model: Annotated[str, typer.Argument(help="Name of a live model.")],
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Take a model off Triton; its versions stay in the store.

    Example: penstock undeploy nox --site turbine
    """
    from penstock.screen import Progress
    from penstock.site import Site

    with Site.open(site) as opened:
        with Progress(f"undeploy {model}"):
            done = opened.undeploy(model)
        print_answer(done, as_json)


@app.command()
def optimize(
    site: SiteFolder = HERE,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference from Keras, as a share of the target's scale.")
    ] = 1e-5,
    as_json: Json = False,
) -> None:
    """Measure every way to execute the live LSTMs of each shape and other Keras models, and keep the fastest right one.

    Models answer meanwhile. The choice holds after restarts, for models that join a shape later and for new versions.
    Example: penstock optimize --site turbine
    """
    from penstock.screen import Progress, variants_table
    from penstock.site import Site

    with Site.open(site) as opened, Progress("optimize"):
        found = opened.optimize(tolerance)
    print_answer({"groups": found}, as_json, variants_table(found))


@app.command()
def models(site: SiteFolder = HERE, as_json: Json = False) -> None:
    """List the trained versions of each model, and which one is live.

    Example: penstock models --site turbine
    """
    from penstock.screen import models_table
    from penstock.site import Site

    with Site.open(site) as opened:
        cards, champions = opened.cards(), opened.models.champions()
        print_answer({"models": cards, "live": champions}, as_json, models_table(cards, champions))


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
        "open": answer.attrs["open"],
    } | {key: answer.attrs[key] for key in ("pruned", "pruned_said") if key in answer.attrs}
    if as_json:
        summary["data"] = rows.assign(time=rows["time"].astype(str)).to_dict(orient="list")
    print_answer(summary, as_json, query_table(rows, zone, open_ticks=answer.attrs["open"]))
