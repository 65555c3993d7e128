"""`penstock bench`: measurements of penstock itself, each a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from penstock.cli_options import Json, print_answer

app = typer.Typer()
bench = typer.Typer(no_args_is_help=True)
app.add_typer(
    bench,
    name="bench",
    help="Measure penstock on this machine; it should be quiet. Example: penstock bench page --minutes 2 --json",
)


def _measured(name: str, run: Callable[[Callable[[str], None]], dict[str, Any]], as_json: bool) -> None:
    """Run a benchmark, which is given where to tell what it does, and print its answer."""
    from penstock.screen import Progress, bench_table

    with Progress(f"bench {name}") as bar:
        answer = run(lambda text: bar(0, None, text))
    print_answer(answer, as_json, bench_table(answer))


@bench.callback()
def _group() -> None:
    """One command only would otherwise stand in the group's place."""


@bench.command()
def page(
    minutes: Annotated[float, typer.Option(help="How long the page is open.", min=0.2)] = 10.0,
    models: Annotated[int, typer.Option(help="Models of the simulated plant.", min=1)] = 200,
    sessions: Annotated[int, typer.Option(help="Open browser sessions; the first of them stalls.", min=2)] = 5,
    as_json: Json = False,
) -> None:
    """Stream a simulated plant at a tick a second and watch the live page: its memory, and what it costs the ticks.

    Makes a scratch site, which is removed; takes two minutes more than --minutes.
    Example: penstock bench page --minutes 10 --models 200 --sessions 5 --json
    """
    from penstock.bench.page import Wish, run

    _measured("page", lambda told: run(Wish(minutes=minutes, models=models, sessions=sessions), told), as_json)


@bench.command()
def fleet(
    models: Annotated[str, typer.Option(help="Sizes of the fleet, ascending.")] = "100,300,500",
    as_json: Json = False,
) -> None:
    """A tick of hundreds of LSTMs on the real Triton, beside the usual ways to ask them, all measured in one run.

    Takes about six minutes and 3 GiB; nothing stays. OpenVINO is among them where penstock[bench] is installed.
    Example: penstock bench fleet --models 100,300,500 --json
    """
    from penstock.bench.fleet import run

    counts = tuple(sorted(int(text) for text in models.split(",")))
    _measured("fleet", lambda told: run(counts, told), as_json)


@bench.command()
def ingest(
    seconds: Annotated[float, typer.Option(help="Each of two turns of each way from the broker.", min=1)] = 10.0,
    tags: Annotated[int, typer.Option(help="Tags that are written to the archive.", min=64)] = 100_000,
    ticks: Annotated[int, typer.Option(help="Ticks of them.", min=64)] = 1280,
    as_json: Json = False,
) -> None:
    """Into the journal from an MQTT broker, into the archive from the journal, and out of it for a training.

    Starts a mosquitto of its own; takes about four minutes and 4 GB of disk; nothing stays.
    Example: penstock bench ingest --seconds 10 --json
    """
    from penstock.bench.ingest import Wish, run

    _measured("ingest", lambda told: run(Wish(seconds=seconds, tags=tags, ticks=ticks), told), as_json)


@bench.command("end-to-end")
def end_to_end(
    tags: Annotated[int, typer.Option(help="Tags of the plant that comes flat out.", min=1000)] = 1_000_000,
    timed_tags: Annotated[
        int, typer.Option(help="Tags of the plant that comes 10 times a second.", min=1000)
    ] = 100_000,
    models: Annotated[int, typer.Option(help="LSTMs of 60 steps x 32 inputs, 64 units.", min=1)] = 100,
    seconds: Annotated[float, typer.Option(help="How long each of the two is measured.", min=3)] = 60.0,
    minutes: Annotated[float, typer.Option(help="So much longer for the memory of the processes.", min=0)] = 0.0,
    peers: Annotated[bool, typer.Option(help="Measure streamz and Bytewax, too.")] = True,
    as_json: Json = False,
) -> None:
    """From a source's process through socket, journal, windows and Triton into the speed view; and a killed worker.

    Makes scratch sites, which are removed; takes about seven minutes and up to 20 GB of disk.
    Example: penstock bench end-to-end --minutes 10 --json
    """
    from penstock.bench.end_to_end import Wish, run

    wish = Wish(tags=tags, timed_tags=timed_tags, models=models, seconds=seconds, minutes=minutes, peers=peers)
    _measured("end-to-end", lambda told: run(wish, told), as_json)


@bench.command()
def deploy(
    models: Annotated[int, typer.Option(help="Members of the fleet.", min=2)] = 300,
    as_json: Json = False,
) -> None:
    """How long until one member's new version answers, while every member is asked at every tick.

    Takes about four minutes; nothing stays.
    Example: penstock bench deploy --models 300 --json
    """
    from penstock.bench.deploy import run

    _measured("deploy", lambda told: run(models, told), as_json)


@bench.command()
def train(
    models: Annotated[int, typer.Option(help="Models of one shape.", min=5)] = 100,
    as_json: Json = False,
) -> None:
    """Train a fleet over Dask, beside a plain loop of Keras build + fit on the same windows.

    Makes a scratch site, which is removed; takes about three minutes.
    Example: penstock bench train --models 100 --json
    """
    from penstock.bench.train import run

    _measured("train", lambda told: run(models, told), as_json)


@bench.command()
def windows(
    tags: Annotated[int, typer.Option(help="Tags of the plant.", min=1)] = 100_000,
    frames: Annotated[int, typer.Option(help="Long frames that are laid onto the grid.", min=1)] = 20,
    peer_readings: Annotated[int, typer.Option(help="Readings that each peer is given at most.", min=1)] = 1_000_000,
    as_json: Json = False,
) -> None:
    """Sliding statistics of all tags, and long frames onto the grid, in this process, beside pandas, Polars and others.

    Takes about a minute and 2 GiB; nothing stays. Peers come with: pip install 'penstock[bench]'.
    Example: penstock bench windows --tags 100000 --json
    """
    from penstock.bench.windows import Size, run

    _measured("windows", lambda told: run(Size(tags=tags, frames=frames, peer_readings=peer_readings), told), as_json)


@bench.command()
def backfill(
    ticks: Annotated[int, typer.Option(help="Ticks of history, a second each.", min=1000)] = 200_000,
    as_json: Json = False,
) -> None:
    """One model over its history through Triton, as recomputing does it, beside Keras and ONNX Runtime.

    Makes a scratch site, which is removed; takes about three minutes.
    Example: penstock bench backfill --ticks 200000 --json
    """
    from penstock.bench.backfill import run

    _measured("backfill", lambda told: run(ticks, told), as_json)


@bench.command()
def query(
    rows: Annotated[int, typer.Option(help="Rows of an answer: seconds of one model.", min=240)] = 86_400,
    queries: Annotated[int, typer.Option(help="Questions, each from another second on.", min=10)] = 300,
    as_json: Json = False,
) -> None:
    """A day of one model, a tick a second, across the seam, out of an open site; DuckDB on Parquet beside it.

    Makes a scratch site, which is removed; takes about a minute.
    Example: penstock bench query --json
    """
    from penstock.bench.query import Wish, run

    _measured("query", lambda told: run(Wish(rows=rows, queries=queries), told), as_json)


@bench.command("retrain")
def retrain_fleet(
    models: Annotated[int, typer.Option(help="Models of one shape.", min=1)] = 200,
    as_json: Json = False,
) -> None:
    """Retrain and judge a fleet on two Dask workers, beside a plain loop of Keras build + fit + predict.

    Makes a scratch site, which is removed; takes some ten minutes.
    Example: penstock bench retrain --models 200 --json
    """
    from penstock.bench.retrain import run

    _measured("retrain", lambda told: run(models, told), as_json)
