"""The one noun a user holds: a site, local files and running parts alike.

    site = penstock.open("gas-turbine")
    run = site.train("nox", end="2014")
    site.deploy(run)
    site.query("nox", start="-48h")

A Site opens files at once and starts processes (Dask workers, Triton) only when
something needs them; they end with `close`, or with the `with` block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import pandas as pd
import xarray as xr

from penstock import (
    aggregates,
    answers,
    applying,
    challenging,
    deploying,
    drift,
    explain,
    foreign,
    known,
    live,
    loading,
    pipeline,
    pruning,
    recomputing,
    reconcile,
    replay_pieces,
    standing,
)
from penstock import backup as backups
from penstock.answers import Desk
from penstock.batch.plan import Wish
from penstock.compare import Comparison, compare
from penstock.data.archive import Archive
from penstock.data.archive.retention import Retention
from penstock.data.grid import Grid
from penstock.data.journal import Journal
from penstock.data.layout import Layout
from penstock.data.models import Artifact, ModelStore
from penstock.data.plant import Plant, Tag
from penstock.data.plants.change import Change
from penstock.data.plants.datasets import plant_path
from penstock.data.plants.editions import Editions
from penstock.data.plants.named_files import named_files
from penstock.data.plants.plant_file import load_plant
from penstock.data.plants.simulated import simulated_plant
from penstock.data.registry import Registry
from penstock.data.runs import Runs
from penstock.data.simulator_station import station_of
from penstock.data.views.reconciled import Run
from penstock.data.views.speed_view import Spoken
from penstock.data.windows import WindowSpec
from penstock.errors import ModelError, ModelNotFound, QueryError, SiteError
from penstock.export import export
from penstock.parts import Parts
from penstock.pruned import marks, refuse_pruned
from penstock.replay import said_again
from penstock.replay_report import Replayed, report
from penstock.runs import key_of, run_for
from penstock.serving.optimize import STANDARD
from penstock.settings import create, open_settings
from penstock.spans import Moment, moment_ns, span_ns

Progress = Callable[[int, int | None, str], None]


class Site:
    """A folder that runs a plant. Use `Site.open` or `Site.create`."""

    def __init__(self, folder: Path) -> None:
        """Raises SiteError where `folder` is no site, PlantError where its files have mistakes."""
        if not (folder / "site.json").exists():
            new = "FOLDER" if folder == Path(".") else folder
            raise SiteError(
                f"{folder}: is no site (it has no site.json); name one with --site, or make one: penstock init {new}"
            )
        folder = self.folder = folder.resolve()  # workers of another cluster have another working folder
        self.registry = Registry.open(folder / "tags.sqlite")
        self.editions = Editions(folder)
        self.take_over()
        self.journal = Journal.open(folder / "journal", segment_bytes=self.settings.journal.segment_mb << 20)
        self.readings = _archive(folder / "archive", Grid(period_ns=self.plant.period_ns))
        self.models = ModelStore(folder / "models")
        self.runs = Runs(folder / "runs")
        self.parts = Parts(self.folder, self.settings)

    @classmethod
    def open(cls, folder: str | Path) -> Site:
        """The site in `folder`."""
        return cls(Path(folder))

    @classmethod
    def create(cls, folder: str | Path, plant: str | Path = "gas-turbine", *, site_text: str = "") -> Site:
        """A new site of a built-in plant, or of the plant.toml at `plant`, with the files that it names.

        `site_text`: site.toml, where it says more than its defaults.

        ``simulated,units=4,tags=40,seed=1,faults`` is a built-in plant too; see `station_of`.

        Raises PlantError before anything is written where that file has mistakes.
        """
        if (simulated := station_of(str(plant))) is not None:
            create(Path(folder), simulated_plant(simulated[0]), created=_now(), site_text=site_text)
            return cls._begun(Path(folder))
        source = Path(plant) if Path(plant).is_file() else plant_path(str(plant))
        files = named_files(source, load_plant(source))
        create(Path(folder), source.read_text("utf-8"), created=_now(), site_text=site_text, files=files)
        return cls._begun(Path(folder))

    @classmethod
    def _begun(cls, folder: Path) -> Site:
        site = cls(folder)
        applying.begin(site)
        site.edition = site.editions.newest()
        return site

    def take_over(self) -> None:
        """Go on with plant.toml and site.toml as they are now. Raises PlantError, SiteError."""
        opened = open_settings(self.folder)
        self.settings, self._shards = opened.settings, opened.shards
        with self.editions.reading() as number:
            self.plant: Plant = load_plant(self.folder / "plant.toml")
            self.registry.register([tag for tag in self.plant.tags.values() if tag.expr is None])
        self.edition = number
        """Number of the plant, see `Editions`."""
        self._layout = self._laid_out()

    def superseded(self) -> bool:
        """Whether another plant was applied since this one was read."""
        return self.editions.newest() != self.edition

    def apply(
        self,
        plant: str | Path | None = None,
        *,
        dry_run: bool = False,
        agreed: Callable[[Sequence[Change]], bool] = lambda changes: True,
        why: str = "",
        wait_s: float = applying.WAIT_S,
    ) -> dict[str, Any]:
        """Change the plant to the plant.toml at `plant`, None: the site's own, edited since the newest apply.

        What runs on the site goes over to it; `wait_s`: how long that is waited for. `agreed` is asked before anything
        is done; not where a change is refused: then nothing is done. Raises PlantError where the file has mistakes.
        """
        source = None if plant is None else Path(plant)
        return applying.apply(self, source, dry_run=dry_run, agreed=agreed, why=why, wait_s=wait_s)

    def stored_tags(self, *, retired: bool = False) -> list[Tag]:
        """The tags that have an id, in order of it; with those that plant.toml has no more, if asked for."""
        return known.stored(self.plant, self.registry, self.editions, retired=retired)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End what was started here and let go of the files."""
        self.parts.close()
        self.journal.close()

    # History

    def load(self, source: Any, *, progress: Progress | None = None, **options: Any) -> dict[str, Any]:
        """Bring readings in: a CSV or Parquet file, a DataFrame, an Arrow table, a Dataset, a built-in data set.

        Through the journal and into the archive, whether the site runs or not; twice changes nothing.
        `options` are those of `importers.Options`. Returns the counts of
        `importers.ImportReport`, summed. Raises SourceError where it cannot be read at all, or an option is unknown.
        """
        return loading.load(self, source, progress, options)

    def archive(self, start: Moment = None, end: Moment = None, *, retired: bool = False) -> xr.Dataset:
        """All stored readings, lazily: `value`, `quality`, `offset` over time and tag; of retired tags if asked for."""
        begin, stop = self.span(start, end)
        refuse_pruned(self, stop, QueryError)
        tags = self.stored_tags(retired=retired)
        ids = self.registry.ids([tag.name for tag in tags])
        return self.readings.dataset(tags, ids, start=begin, end=stop)

    def export(
        self,
        path: str | Path,
        *,
        start: Moment = None,
        end: Moment = None,
        tags: str = "*",
        quality: bool = False,
        retired: bool = False,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Write stored readings of tags like `tags` to a .csv, .parquet or .zarr, whole or not at all.

        Without `quality` bad readings are left out; with it every one goes out beside its quality. `retired`: also of
        tags that plant.toml has no more.
        Raises SiteError where `path` is there already or cannot be written, QueryError for an empty choice.
        """
        return export(
            self, Path(path), start=start, end=end, pattern=tags, quality=quality, retired=retired,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip

    # Models

    def train(self, name: str, *, start: Moment = None, end: Moment = None, **wish: Any) -> Artifact:
        """Train one model and store it; `lstm={"units": 96}` overrides plant.toml. Raises ModelError."""
        outcome = self.train_all([name], start=start, end=end, **wish)
        if outcome.failed:
            raise ModelError(outcome.failed[name])
        return outcome.trained[0]

    def train_all(
        self,
        names: Sequence[str],
        *,
        start: Moment = None,
        end: Moment = None,
        lstm: Mapping[str, Any] | None = None,
        anew: bool = False,
        progress: Progress | None = None,
    ) -> pipeline.Outcome:
        """Train several models on the Dask workers; a failed one is named and stops no other.

        The same call goes on with an interrupted run, over its span and its state of the archive, where some of
        its models are done; `anew` begins another one.
        """
        names = list(dict.fromkeys(names))
        newest = self.readings.grid.time(self.readings.span()[1])
        wish = Wish(
            models=names,
            start_ns=None if start is None else moment_ns(start, timezone=self.plant.timezone, newest_ns=newest),
            end_ns=None if end is None else moment_ns(end, timezone=self.plant.timezone, newest_ns=newest),
            lstm=lstm,
        )
        for name in names:
            known.trainable(self.plant, self.models, name)  # a wrong name is told before any process is started
        if not len(range(*self.readings.span())):  # told before workers are started
            raise ModelError(f"there is no history to train on; bring it in: penstock import FILE --site {self.folder}")
        if wish.end_ns is not None:
            refuse_pruned(self, wish.end_ns, ModelError)
        key = key_of(self.plant, names, {"start": start, "end": end, "lstm": dict(lstm or {})})
        with run_for(self.runs, self.models, self.readings, wish, key=key, now=_now(), anew=anew) as run:
            return pipeline.train(
                self.parts.client(), self.desk(), self.plant, self.runs, run, home=self.folder, progress=progress,
                hatch=self.parts.hatch(),
            )  # fmt: skip

    def deploy(
        self,
        model: Any,
        version: int | None = None,
        *,
        name: str | None = None,
        inputs: str | Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        window: str | None = None,
        step: str | None = None,
        every: str | None = None,
        horizon: str | None = None,
        prepare: Mapping[str, Sequence[str]] | None = None,
        when: str | None = None,
        past_target: bool = False,
        isolate: bool = False,
    ) -> dict[str, Any]:
        """Make a model answer on every Triton endpoint: a stored version (an older one is a roll-back), or a new one.

        Stored: an artifact, or a name and a version (None: the newest). Ready made: a Keras model, any callable
        `predict(windows) -> values`, or the path of an .onnx file, all from [n, T, F] in engineering units, columns
        in the order of `inputs` (then past targets), to [n, targets]. It becomes the next version of `name`. Where
        plant.toml has that model the other words may be left out; else they are those of a [model.x] table. `isolate`
        gives it a process of its own, which callables and ONNX files always get.

        Raises Refused, ModelError or PlantError with the reason; the version before it then still answers.
        """
        said = {
            "inputs": inputs, "target": target, "window": window, "step": step, "every": every, "horizon": horizon,
            "prepare": prepare, "when": when, "past_target": past_target or None,
        }  # fmt: skip
        keys = {key: value for key, value in said.items() if value is not None}
        artifact = self._deployable(model, version, name, keys, isolate)
        return deploying.one(self, artifact)

    def deploy_all(
        self, models: Iterable[str | tuple[str, int | None]], *, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Make many stored models answer, names (the newest version) or (name, version); a refusal stops no other.

        `live`: name@version of those that answer now, `refused`: reason by name. Raises ModelNotFound for a model
        that was never trained, ServingError where an endpoint cannot be reached.
        """
        wanted = [self.artifact(m) if isinstance(m, str) else self.artifact(*m) for m in models]
        return deploying.many(self, wanted, progress)

    def _deployable(
        self, model: Any, version: int | None, name: str | None, keys: Mapping[str, Any], isolate: bool
    ) -> Artifact:
        if foreign.is_ready_made(model):
            if version is not None:
                raise ModelError(f"version = {version}: a ready-made model becomes the next version; leave it out")
            return foreign.stored(self, model, name, keys, isolate=isolate)
        if name is not None or keys or isolate:
            told = ", ".join([*(["name"] if name else []), *keys, *(["isolate"] if isolate else [])])
            raise ModelError(f"{told}: only for ready-made models; a stored version says that itself, so leave it out")
        return self.artifact(model, version) if isinstance(model, str) else cast(Artifact, model)

    def undeploy(self, name: str) -> dict[str, Any]:
        """Take a model off every endpoint; its versions stay."""
        return deploying.none(self, name)

    def challenge(self, name: str, version: int | None = None, *, span: str | None = None, why: str = "") -> str:
        """A stored version (None: the newest) is scored beside the champion at every tick, and answers nobody.

        `span`: how long, such as "7d"; None: as plant.toml's ``retrain.live`` says, else a week. Then `trials.end_due`
        judges it. Raises Refused, ModelError, RetrainBusy; the champion answers in any case. Gives name@version.
        """
        return challenging.challenge(self, name, version, span, why)

    def dismiss(self, name: str, why: str = "") -> str:
        """The challenger of a model is scored no more; its version stays. Raises ModelNotFound where there is none."""
        return challenging.dismiss(self, name, why)

    def optimize(self, tolerance: float = STANDARD) -> list[dict[str, Any]]:
        """Try every way to execute the live LSTMs of each shape, and other Keras models; keep the fastest right one.

        Per endpoint and shape (or model): `group`, `variant`, `members`, `tolerance`, the `table` of trials, and which
        versions are `live`: their cards tell it too, under `execution`. They answer meanwhile. `tolerance`: largest
        difference from Keras, in units of the target's scale.
        """
        return deploying.optimized(self, tolerance)

    def artifact(self, name: str, version: int | None = None) -> Artifact:
        """A stored version, None: the newest. Raises ModelNotFound."""
        versions = self.models.versions(name)
        if version is None and not versions:
            self.spec(name)
            raise ModelNotFound(f"{name}: has never been trained; do: penstock train {name}")
        return self.models.load(name, versions[-1] if version is None else version)

    def spec(self, name: str) -> WindowSpec:
        """How a model's windows are cut: as its live version says, else as plant.toml does. Raises ModelNotFound."""
        return known.spec(self.plant, self.models, name)

    def model_names(self) -> list[str]:
        """The models of plant.toml, then the ready-made ones that are live."""
        return known.names(self.plant, self.models)

    def cards(self) -> list[Mapping[str, Any]]:
        """The card of every stored version."""
        return [self.models.load(name, v).card for name in self.models.names() for v in self.models.versions(name)]

    def recompute(
        self, name: str, start: Moment = None, end: Moment = None, *, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Bring the batch view of a live model up: what is new, what has changed, what a new version is to say.

        With `start` or `end` those ticks are computed again instead, whatever the view has of them. The seam comes to
        lie no later than where all is known that comes onto the ticks before it. Returns `recomputed` (name@version),
        `from`, `seam`, `ticks` and `changed`: how many were computed, and how many of them again since readings came.
        Raises ModelNotFound where it is not live, ArchiveBusy where another process is at it.
        """
        return recomputing.site_recompute(self, name, start, end, progress)

    def compare(
        self, name: str, candidates: Sequence[Artifact | str] = (), *, start: Moment = None, end: Moment = None
    ) -> Comparison:
        """Methods beside each other on [start, end), only on rows where all of them answer.

        Candidates: artifacts, "nox" (newest version), "nox@2", "@champion", "persistence", "ridge"; none: the live
        (else the newest) version and both baselines. Raises QueryError where they cannot be compared.
        """
        return compare(self, name, candidates, start, end)

    # Live

    def stream(
        self,
        replay: Any = None,
        *,
        rate: float | None = None,
        ticks: int | None = None,
        brisk: int = 0,
        progress: Progress | None = None,
        on_tick: Callable[[Spoken], None] | None = None,
        metrics_port: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run the speed layer on a replay, or (None) on plant.toml's live sources: journal, windows, predictions.

        `rate`: event seconds per second, None: as fast as it goes. `ticks`: end after so many
        distinct event times, `brisk`: the first so many go as fast as they can whatever the rate,
        both counted from the source's beginning. `options` are those of `load`.
        Goes on where an earlier run stopped. Every champion answers, whatever Triton held before.
        `metrics_port`: Prometheus metrics at http://127.0.0.1:PORT/metrics meanwhile.
        """
        return live.stream(
            self, replay, options=options, rate=rate, ticks=ticks, brisk=brisk, progress=progress, on_tick=on_tick,
            metrics_port=metrics_port,
        )  # fmt: skip

    def replay(
        self,
        start: Moment,
        end: Moment = None,
        *,
        model: str | Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Replayed:
        """Say the ticks made in [start, end) again, with the stream's own code at full speed, and judge every one.

        `model`: "nox" or "nox@3", or several; none: all that spoke, each in the version that spoke. Nothing of the
        site changes: workers, Triton, log and answers are the replay's own and end with it. Without `end` it ends with
        the newest closed tick. Raises QueryError where there is nothing to say, ModelNotFound, Refused, ServingError.
        """
        pieces = replay_pieces.plan(self, start, end, [model] if isinstance(model, str) else list(model))
        with closing(said_again(self, pieces, progress)) as said:
            return report(self, pieces, said)

    def reconcile(
        self,
        names: str | Sequence[str] = (),
        *,
        start: Moment = None,
        end: Moment = None,
        progress: Progress | None = None,
    ) -> Run:
        """Hold what was said live beside what the batch layer makes of the same ticks, and write down what it found.

        By default all models that spoke, at the ticks that are new since the last time, that late readings came for,
        or that differed; with `start` or `end` all ticks made in [start, end). `unexplained` is to be 0. Raises
        ModelNotFound for a model that never spoke, QueryError, ModelError, ArchiveError, SiteError.
        """
        named = [names] if isinstance(names, str) else list(names)
        return reconcile.reconcile(self, named, start, end, progress=progress)

    def explain(self, name: str, time: Moment, *, made: bool = False) -> dict[str, Any]:
        """Where the prediction for `time` (`made`: made at it) comes from, and whether it can be computed again.

        `window` with times, values and quality flags, `model_made` (training span, snapshot, run, code), `moves` of the
        version, `layer`, `closed_by`, `beside`, `again`, `verdict`, `differs`, `late`; `equal`: same inputs and, within
        1e-5 of the target's scale, the same prediction. Raises ModelNotFound, QueryError with the nearest ones.
        """
        return explain.explain(self, name, time, made=made)

    def query(
        self, name: str, start: Moment = "-48h", end: Moment = None, *, strict: bool = False, version: int | None = None
    ) -> xr.Dataset:
        """Truth, prediction, quality, reason, layer, version, sample over the time predicted for, [start, end).

        `version`: what that one said, also while it was the challenger; None: what the model answered.
        `corrected`, `low`, `high`, `chance` of a model that asks for them: as they were said, never recomputed.
        Without `end` it ends with the newest tick that can have an answer; attribute `open` counts those behind
        it: not closed yet by a stream, or brought in behind it and not recomputed. Attributes `pruned` and
        `pruned_said`: readings, and what was said live, before that time were removed.
        """
        spec = self.spec(name)
        desk = self.desk()
        newest, open_ticks = answers.newest_answered(desk, name, max(spec.wait, self.plant.wait))
        begin, stop = self.span(start, end, newest=newest + spec.horizon)
        grid = self.readings.grid
        first = -(-(begin - grid.origin_ns) // grid.period_ns)
        last = -(-(stop - grid.origin_ns) // grid.period_ns)
        live = self.plant.models[name].live if name in self.plant.models else answers.NOTHING
        answer = answers.query(desk, name, spec, first, last, strict=strict, live=live, version=version)
        if answer.attrs["holes"] == answer.sizes["time"]:
            refuse_pruned(self, stop, QueryError)
        return answer.assign_attrs(open=open_ticks if end is None else 0, **marks(desk))

    def drift(self, name: str, start: Moment = "-30d", end: Moment = None) -> dict[str, Any]:
        """Whether what the live version sees and says in [start, end) is what it was trained on.

        `findings`: `kind` (sensor fault, outside the trained range, new regime, slow ageing), `what`, `told`, `todo`;
        none: all is as it was. `status` shows the newest. Raises ModelError where its card does not tell its inputs.
        """
        return drift.drift(self, name, start, end)

    def live(self, name: str, *, poll_s: float = 0.2, silent_s: float | None = None) -> Iterator[xr.Dataset]:
        """The newest predictions as they are said, one Dataset of one row each, until the caller stops.

        `silent_s`: it ends when no tick was said for so long; None: it waits for ever.
        """
        return live.follow(self, name, poll_s, silent_s)

    def aggregates(
        self, tags: str = "*", period: str | None = None, start: Moment = None, end: Moment = None
    ) -> xr.Dataset:
        """`count`, `mean`, `min`, `max`, `std` per period that is over, and tag like `tags`; [start, end).

        `period`: one of plant.toml's ``[aggregates]``, None: the shortest. Time is the period's beginning. Raises
        QueryError where nothing such is kept.
        """
        return aggregates.query(self, tags, period, start, end)

    # The state of things

    def newest(self, pattern: str = "*") -> list[dict[str, Any]]:
        """Newest reading of each tag whose name is like `pattern`."""
        return standing.newest(self, pattern)

    def status(self) -> list[dict[str, str]]:
        """One row per part: what it is, whether all is well, what to do."""
        return standing.status(self)

    def layout(self) -> Layout:
        """Tags over shards, as registered now."""
        self.registry.refresh()
        if len(self._layout) != len(self.registry):  # tags are only ever appended, and keep their dtype
            self._layout = self._laid_out()
        return self._layout

    def _laid_out(self) -> Layout:
        ahead = {t.name: t.ahead_ns // self.plant.period_ns for t in self.plant.tags.values() if t.ahead_ns}
        by_id = [ahead.get(name, 0) for name in self.registry.names()] if ahead else ()
        return Layout(self.registry.dtypes(), self._shards, ahead=by_id)

    def desk(self) -> Desk:
        """What questions are answered from."""
        return Desk(
            archive=self.readings,
            journal=self.journal,
            layout=self.layout(),
            ids=self.registry.lookup(),
            store=self.models,
            views=self.folder / "views",
        )

    def retention(self) -> Retention:
        """Which old snapshots may go: not those that a card names, or a training that has not ended reads."""

        def named() -> set[str]:
            return self.models.snapshots() | self.runs.snapshots()

        return Retention(snapshots_ns=self.settings.retention.snapshots_ns, named=named)

    def prune(self, *, dry_run: bool = False, at_once: bool = False, now_ns: int | None = None) -> list[pruning.Row]:
        """Remove what site.toml's ``[retention]`` no longer keeps; what that is and how many bytes come back.

        `dry_run`: nothing is removed. `at_once`: the archive's old commits go whatever their age. A stream may run
        beside it. Raises SiteError where another process is at it, ArchiveBusy.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        return pruning.prune(self, now_ns=now_ns, dry_run=dry_run, at_once=at_once)

    def backup(self, to: str | Path, *, keep: int = backups.KEEP) -> dict[str, Any]:
        """Copy the site as it stands to a folder of backups, or a .tar, while it runs; `penstock restore` makes a site
        of it again. The newest `keep` backups stay in a folder. Raises SiteError."""
        return backups.backup(self, Path(to), keep=keep)

    def span(self, start: Moment, end: Moment, *, newest: int | None = None) -> tuple[int, int]:
        """[start, end) in ns UTC; None: where the readings begin, and at tick `newest`, else where they end.

        Raises QueryError.
        """
        grid, first = self.readings.grid, self.readings.head().span[0]
        return span_ns(
            start,
            end,
            timezone=self.plant.timezone,
            first_ns=grid.time(first),
            newest_ns=grid.time(self.desk().newest() if newest is None else newest),
        )


open = Site.open
"""`penstock.open(folder)`"""


def _archive(folder: Path, grid: Grid) -> Archive:
    archive = Archive.open(folder) if folder.exists() else Archive.create(folder, grid)
    if archive.grid != grid:
        raise SiteError(f"{folder}: was made with another period than plant.toml has now; a site keeps its period")
    return archive


def _now() -> str:
    return pd.Timestamp.now("UTC").isoformat(timespec="seconds")
