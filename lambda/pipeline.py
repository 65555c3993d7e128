"""Where the layers meet: plain functions that hand values from one to the next.

`batch`, `speed` and `serving` never import each other; each function here
brings two of them together over the site's files.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from penstock.answers import Desk
from penstock.batch import fleet
from penstock.batch.history import Source as HistorySource
from penstock.batch.plan import History, Warm, Wish, plan
from penstock.batch.summaries import IN_FLIGHT, across
from penstock.batch.view import Recompute, compute_spans
from penstock.data.aggregating import PIECE_CELLS, Wanted, bring_up, pending
from penstock.data.archive.archiver import drain
from penstock.data.archive.retention import Retention, needed_from
from penstock.data.grid import Grid
from penstock.data.hatch import Hatch
from penstock.data.layout import Layout
from penstock.data.models import Artifact, ModelStore
from penstock.data.plant import LiveSpec, Plant
from penstock.data.runs import Run, Runs
from penstock.data.views.aggregates import Mark
from penstock.data.views.batch_view import Part
from penstock.data.views.spans import Spans
from penstock.data.views.speed_view import Spoken
from penstock.data.windows import WindowSpec
from penstock.errors import ArchiveBusy, ArchiveError, ModelError
from penstock.serving.alone import alone
from penstock.serving.backfill import Backfill
from penstock.serving.metrics import served
from penstock.serving.pool import Pool
from penstock.serving.score import Score
from penstock.speed.clock import SourceClock
from penstock.speed.metrics import StreamMetrics
from penstock.speed.outlet import Outlet
from penstock.speed.overload import ALL, Overload
from penstock.speed.service import Service, Setup
from penstock.speed.source import Source
from penstock.speed.status import Report
from penstock.tally import Tally

Progress = Callable[[int, int | None, str], None]
REHEARSE_S = 10.0
"""Deadline of a request where nobody waits for one tick, and many go out together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a training run came to."""

    run: str
    trained: list[Artifact]
    """Those too that were finished when an interrupted run went on."""
    failed: dict[str, str]
    """Reason by model name."""


def train(
    client: Client,
    desk: Desk,
    plant: Plant,
    runs: Runs,
    run: Run,
    *,
    home: Path,
    progress: Progress | None = None,
    hatch: Hatch | None = None,
    stored: Callable[[str], None] = lambda name: None,
) -> Outcome:
    """Train what `run` names and has not done, on its state of the archive, and store the results.

    One failure stops no other. Each result stands in the store and in the record before the next one is looked at;
    `stored` hears between the two. A retrain keeps the newest readings for the gate.
    """
    first, last = desk.archive.span(snapshot=run.snapshot)
    source = HistorySource(folder=desk.archive.folder, snapshot=run.snapshot, hatch=hatch)
    history = History(source=source, grid=desk.grid, first=first, last=last)
    left = [name for name in run.models if name not in run.done]
    again = run.kind == "retrain"
    wish = Wish(
        models=left, start_ns=run.start_ns, end_ns=run.end_ns, lstm=run.lstm, run=run.id, held_out=again,
        warm=_warm(desk.store, plant, left) if again else {},
    )  # fmt: skip
    try:
        jobs = plan(plant, history, desk.ids, wish, home=home, created=run.begun)
    except ModelError:
        runs.end(run.id)  # nothing of it can ever be done
        raise
    trained = [desk.store.load(name, version) for name, version in run.done.items()]
    outcome = Outcome(run=run.id, trained=trained, failed={})
    tally = Tally({job.name: job.lstm.epochs for job in jobs}, before=len(run.done), told=progress)
    for result in fleet.train(jobs, client=client, progress=tally.epoch):
        match result:
            case fleet.Trained(name=name, draft=draft):
                outcome.trained.append(desk.store.save(draft))
                stored(name)
                runs.trained(run.id, name, outcome.trained[-1].version)
            case fleet.Failed(name=name, error=error):
                outcome.failed[name] = error
                runs.failed(run.id, name, error)
        tally.model(result.name)
    return outcome


def _warm(store: ModelStore, plant: Plant, names: Sequence[str]) -> dict[str, Warm]:
    """The champions of models that are to go on from them; only LSTMs of our own can be."""
    found = {}
    for name in names:
        champion = store.champion(name) if name in plant.models and plant.models[name].retrain.warm else None
        if champion is not None and (artifact := store.load(name, champion)).kind == "lstm":
            spec = WindowSpec.from_json(artifact.card["spec"])
            found[name] = Warm(version=champion, spec=spec, keras=artifact.keras)
    return found


def recompute(
    client: Client,
    desk: Desk,
    artifacts: Mapping[int, Artifact],
    spans: Spans,
    *,
    snapshot: str,
    endpoints: Sequence[str] = (),
    hatch: Hatch | None = None,
) -> list[Part]:
    """What the versions of one model say at the ticks of each span, of the archive's `snapshot`.

    `artifacts`: by version. `endpoints`: of servers that the workers ask where the version is live there, so that the
    answers are those of the speed layer; without them, or an answer, Keras says it.
    """
    source = HistorySource(folder=desk.archive.folder, snapshot=snapshot, hatch=hatch)
    served = Backfill(endpoints=tuple(endpoints)) if endpoints and hatch is None else None  # far workers reach none
    wanted = []
    for first, last, version in spans:
        artifact = artifacts[version]
        tags = WindowSpec.from_json(artifact.card["spec"]).base_tags
        wanted.append(
            Recompute(
                source=source, artifact=artifact, ids=tuple(desk.ids[tag.name] for tag in tags), first=first, last=last,
                alone=alone, served=served,
            )
        )  # fmt: skip
    found = compute_spans(client, wanted)
    return [Part(first=one.first, last=one.last, rows=rows) for one, rows in zip(wanted, found, strict=True)]


def archive_all(
    desk: Desk, layout: Callable[[], Layout], progress: Progress | None = None, wanted: Wanted | None = None
) -> bool:
    """Bring the archive up to the journal's tail, and the aggregates that are `wanted` up to the archive.

    False where another process is the committer and does it.
    """

    def told(done: int, total: int) -> None:
        if progress:
            progress(done, total, "archive")

    tail = desk.journal.tail  # before the tags: another process may register some and then append to them
    try:
        drain(desk.journal, desk.archive, layout(), stop=tail, progress=told)
        if wanted is not None:
            bring_up(desk.views / "aggregates", desk.archive, desk.journal, wanted)
    except ArchiveBusy:
        return False
    return True


def aggregate(
    client: Callable[[], Client], desk: Desk, wanted: Wanted, *, hatch: Callable[[], Hatch | None],
    progress: Progress | None = None,
) -> Mark:  # fmt: skip
    """Bring the aggregates up to the archive, much of it by the workers of `client`, little of it here.

    This process alone commits, and lets a stream's archiver in between two pieces. Raises ArchiveBusy, ArchiveError.
    """
    folder = desk.views / "aggregates"
    total = pending(folder, desk.archive, desk.journal, wanted)
    if total <= PIECE_CELLS:
        return bring_up(folder, desk.archive, desk.journal, wanted)
    workers = client()
    spread = across(workers, HistorySource(folder=desk.archive.folder, snapshot="", hatch=hatch()))
    jobs = 2 * IN_FLIGHT * max(1, len(workers.nthreads()))
    while True:
        mark = bring_up(folder, desk.archive, desk.journal, wanted, pieces=1, across=spread, jobs=jobs)
        left = sum(last - first for first, last in mark.todo) * wanted.periods[0] * len(wanted.tags)
        if progress:
            progress(max(0, total - left), max(total, left), "aggregates")
        if not mark.todo:
            return mark


def expire(desk: Desk, retention: Retention, now_ns: int) -> int:
    """Let go of the archive's old commits, where it is time to; how many. A busy archive keeps them until later."""
    speed = desk.speed()
    try:
        said = None if speed is None else speed.last_position()
        return retention.apply(desk.archive, needed_from(desk.journal, said), now_ns)
    except ArchiveBusy:
        return 0
    finally:
        if speed is not None:
            speed.close()


def stream(
    client: Client,
    endpoints: Sequence[str],
    desk: Desk,
    site: Path,
    layout: Callable[[], Layout],
    ids: Callable[[], Mapping[str, int]],
    sources: Sequence[tuple[Source, SourceClock]],
    *,
    segment_bytes: int,
    commit_every_s: float,
    retention: Retention,
    tidy: Callable[[], None] = lambda: None,
    aggregates: Callable[[], Wanted] | None = None,
    expected: Sequence[WindowSpec] = (),
    on_tick: Callable[[Spoken], None] = lambda spoken: None,
    metrics_port: int | None = None,
    hatch: Hatch | None = None,
    outlets: Sequence[Outlet] = (),
    overload: Overload = ALL,
    live: Mapping[str, LiveSpec] | None = None,
    plant: int = 0,
    superseded: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run the speed layer until its sources have ended or it is told to stop; its report as a dict.

    `layout`, `ids`: as registered now; a model may come whose tags were registered while the stream ran.
    `metrics_port`: of this machine alone, where the metrics of pool and stream are served meanwhile. Raises
    ServingError when it cannot be had. `outlets`: of the sinks. `live`: of the models
    beside whose predictions something is said. `plant`: its number; it stops where `superseded` says so.
    """
    with Pool(endpoints) as pool:
        setup = Setup(
            site=site,
            grid=desk.grid,
            layout=layout,
            resolve=_resolver(ids),
            sources=sources,
            scoring=Score(pool),
            scheduler=client.scheduler.address,
            security=client.security,
            hatch=hatch,
            segment_bytes=segment_bytes,
            commit_every_s=commit_every_s,
            retention=retention,
            tidy=tidy,
            aggregates=aggregates,
            expected=expected,
            on_tick=on_tick,
            outlets=outlets,
            overload=overload,
            live=live or {},
            plant=plant,
            superseded=superseded,
        )
        service = Service(setup)
        told = StreamMetrics(lambda: service.told, time.time_ns)
        with nullcontext() if metrics_port is None else served(pool, metrics_port, beside=[told]):
            return asdict(_run(service))


def rehearse(
    client: Client,
    endpoints: Sequence[str],
    folder: Path,
    grid: Grid,
    layout: Layout,
    ids: Mapping[str, int],
    on_tick: Callable[[Spoken], None],
) -> None:
    """Run the speed layer on `folder`, whose log is written already, until all that it closes is said.

    Every member of the endpoints answers. Ctrl-C ends it at once: nothing of the folder is worth an orderly end.
    """
    with Pool(endpoints, deadline_s=REHEARSE_S) as pool:
        setup = Setup(
            site=folder, grid=grid, layout=lambda: layout, resolve=_resolver(lambda: ids), sources=(),
            scoring=Score(pool), scheduler=client.scheduler.address, commit_every_s=math.inf, on_tick=on_tick,
        )  # fmt: skip
        _run(Service(setup), signals=False)


def _run(service: Service, *, signals: bool = True) -> Report:
    """To its end; in a thread of its own where this one runs an event loop already, as a notebook's does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # only a main thread may take signals
        main = threading.current_thread() is threading.main_thread()
        return asyncio.run(service.run(signals=signals and main))
    loop: Future[asyncio.AbstractEventLoop] = Future()
    with ThreadPoolExecutor(1, thread_name_prefix="stream") as thread:
        running = thread.submit(_run_beside, service, loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            loop.result().call_soon_threadsafe(service.stop)
            return running.result()


def _run_beside(service: Service, loop: Future[asyncio.AbstractEventLoop]) -> Report:
    with asyncio.Runner() as runner:
        loop.set_result(runner.get_loop())
        return runner.run(service.run(signals=False))


def _resolver(ids: Callable[[], Mapping[str, int]]) -> Callable[[Sequence[str]], NDArray[np.int32]]:
    def resolve(names: Sequence[str]) -> NDArray[np.int32]:
        known = ids()
        return np.array([known.get(name, -1) for name in names], np.int32)

    return resolve


def wait_archived(desk: Desk, position: int, pauses: Iterator[None]) -> None:
    """Until another process' committer has passed `position`.

    Raises ArchiveError when `pauses` ends before.
    """
    for _ in pauses:
        if desk.archive.head().position >= position:
            return
    raise ArchiveError(f"the process that runs this site has not archived sequence {position} in time; see its status")
