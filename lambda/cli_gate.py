"""Commands about which version answers, and who decided so: retrain, schedule, promote, rollback, audit, runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from penstock.cli_options import HERE, Json, SiteFolder, print_answer, reference
from penstock.errors import RetrainBusy
from penstock.retrain_codes import BUSY, FAILED, TOO_FEW

app = typer.Typer()

Why = Annotated[str, typer.Option(help="For the audit log.")]


@app.command()
def retrain(
    models: Annotated[list[str] | None, typer.Argument(help="Models to retrain; 'nox.*' is a whole fleet.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All models of the plant.")] = False,
    site: SiteFolder = HERE,
    anew: Annotated[bool, typer.Option("--anew", help="Begin again instead of going on where one stopped.")] = False,
    on_drift: Annotated[
        bool, typer.Option("--on-drift", help="Only those whose drift plant.toml has retrained (retrain.on_drift).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train models again as plant.toml says, hold them against the live ones, and promote what passed.

    Made for cron: one at a time, and after a kill the same command goes on. Exit code 0: all of it was done, whatever
    the gate found; 3: another retrain is under way; 4: too little data to judge a model; 5: one could not be trained
    or was refused by Triton; the other models are done.
    Example: penstock retrain --all --site turbine
    """
    from penstock.drifting import drifted
    from penstock.gate_screen import retrain_table
    from penstock.known import trainable_like
    from penstock.retraining import now, retrain
    from penstock.screen import Progress
    from penstock.site import Site

    if every == bool(models):
        raise typer.BadParameter("give models, or --all")
    with Site.open(site) as opened:
        names = list(opened.plant.models) if every else trainable_like(opened.plant, models or [])
        reasons = drifted(opened, names, now()) if on_drift else {}
        if on_drift and not (names := list(reasons)):
            print_answer({"run": None, "models": []}, as_json, retrain_table([]))
            return
        try:
            with Progress("retrain") as bar:
                done = retrain(opened, names, now=now(), anew=anew, reasons=reasons, progress=bar)
        except RetrainBusy as busy:
            typer.echo(f"penstock: {busy}", err=True)
            raise typer.Exit(BUSY) from None
    rows = [asdict(result) for result in done.results]
    print_answer({"run": done.run, "models": rows}, as_json, retrain_table(rows))
    if any(result.version is None or result.outcome == "refused" for result in done.results):
        raise typer.Exit(FAILED)
    if any(result.verdict == "not enough data" for result in done.results):
        raise typer.Exit(TOO_FEW)


@app.command()
def schedule(
    listed: Annotated[bool, typer.Option("--list", help="Say what is due when, and end.")] = False,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Retrain models, and bring up views, at the times of plant.toml (retrain.cron, view.cron) until Ctrl-C.

    `penstock up` does so by itself.

    One at a time; what fell into a time without a schedule is caught up once.
    Example: penstock schedule --site turbine --list
    """
    import threading

    from penstock.gate_screen import schedule_table
    from penstock.retraining import now
    from penstock.schedule import Schedule
    from penstock.site import Site
    from penstock.turns import brought_up, listing

    with Site.open(site) as opened:
        kept, runs, zone = Schedule(opened.folder, opened.plant), opened.runs.all(), opened.plant.timezone
        views = brought_up(opened.folder, opened.plant)
    if listed:
        rows = listing(kept.turns, runs, zone, now(), views)
        print_answer({"turns": rows}, as_json, schedule_table(rows, zone))
        return
    stop = threading.Event()
    try:
        kept.run(runs, typer.echo, stop)
    except KeyboardInterrupt:
        stop.set()


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="NAME: its newest version, if the gate let it pass; or NAME@VERSION.")],
    why: Why = "",
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Let a version that the gate has judged answer from the next tick on.

    NAME@VERSION is promoted whatever the gate found; the audit log keeps both.
    Example: penstock promote nox --site turbine --why "agreed with the shift"
    """
    from penstock.promoting import promote
    from penstock.screen import Progress
    from penstock.site import Site

    name, version = reference(model)
    with Site.open(site) as opened:
        with Progress(f"promote {model}"):
            done = promote(opened, name, version, why)
        print_answer(done, as_json)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="Name of a live model.")],
    why: Why = "",
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Let the version that answered before answer again; a second time goes one further back.

    Example: penstock rollback nox --site turbine --why "drifts since noon"
    """
    from penstock.promoting import rollback
    from penstock.screen import Progress
    from penstock.site import Site

    with Site.open(site) as opened:
        with Progress(f"rollback {model}"):
            done = rollback(opened, model, why)
        print_answer(done, as_json)


@app.command()
def audit(
    model: Annotated[str | None, typer.Argument(help="Name of a model; else all of them.")] = None,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """Tell who moved which model from which version to which, when, why, and on which data it was trained.

    Example: penstock audit nox --site turbine
    """
    from penstock.gate_screen import audit_table
    from penstock.promoting import audit
    from penstock.site import Site

    with Site.open(site) as opened:
        rows, zone = audit(opened, model), opened.plant.timezone
    print_answer({"moves": rows}, as_json, audit_table(rows, zone))


@app.command()
def runs(
    most: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 20,
    site: SiteFolder = HERE,
    as_json: Json = False,
) -> None:
    """List trainings and retrains, newest first: what was trained, what the gate said, what became of it.

    Example: penstock runs --site turbine
    """
    from penstock.gate_screen import runs_table
    from penstock.site import Site

    with Site.open(site) as opened:
        rows, zone = [asdict(run) for run in opened.runs.all()[:most]], opened.plant.timezone
    print_answer({"runs": rows}, as_json, runs_table(rows, zone))
