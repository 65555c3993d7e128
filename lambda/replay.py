"""A site's own past, said again by the speed layer's code, in a folder of its own: nothing of the site changes.

    piece ─► lay_out: its log ─► Service: shards on Dask, windows, requests ─► speed view ─► Said, beside the live one

Triton and workers are the replay's own. A live stream scores whatever is deployed on its servers: a version that was
tried there would be said live, and full speed would be asked of the engine that answers the plant.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penstock import pipeline
from penstock.data.archive import Archive
from penstock.data.journal import Journal
from penstock.data.journal.ledger import REVISED, late_list
from penstock.data.past import Past, Stretch, lay_out
from penstock.data.views.speed_view import SaidRows, SpeedView, Spoken
from penstock.data.window_spec import WindowSpec
from penstock.errors import ArchiveError, JournalError
from penstock.parts import Parts
from penstock.replay_pieces import Piece, lead_of
from penstock.serving.deploy import Deployer
from penstock.site_toml import DaskSettings, Settings
from penstock.speed.shard import forget

if TYPE_CHECKING:
    from penstock.site import Site

TRIES = 3
"""Of laying a piece out: a stream that runs beside it trims its journal and lets old commits go."""
GROUP = 256
"""Entries made durable together."""

Progress = Callable[[int, int | None, str], None]
Told = Callable[[Spoken], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """What one model said again in one piece, and what it had said live."""

    name: str
    version: int
    spec: WindowSpec
    scale: NDArray[np.float32]
    """[targets] of what differences are measured in."""
    again: SaidRows
    live: SaidRows
    """No rows where it had said nothing."""
    piece: Piece
    exact: int
    """From this tick on the order of arrival was the journal's own."""


def said_again(site: Site, pieces: Sequence[Piece], progress: Progress | None = None) -> Generator[Said, None, None]:
    """Every piece, model by model, on Dask workers and a Triton that end with the iterator.

    Raises Refused, ServingError, JournalError, ArchiveError.
    """
    with ExitStack() as held:
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="penstock-replay-")))
        parts = held.enter_context(closing(_parts(site, scratch)))
        parts.begin_triton()
        parts.client()
        deployer = held.enter_context(Deployer(parts.endpoints(), drain_s=0.0))
        told = _teller(sum(p.last - p.first for p in pieces), progress)
        for number, piece in enumerate(pieces):
            deployer.ensure([site.models.load(name, version) for name, version in piece.cast.items()])
            folder = scratch / f"piece-{number}"
            yield from _play(site, parts, folder, piece, told)
            shutil.rmtree(folder)


def _parts(site: Site, scratch: Path) -> Parts:
    """Workers and Triton of the replay's own."""
    return Parts(scratch, Settings(dask=DaskSettings(workers=site.settings.dask.workers)))


def _teller(ticks: int, progress: Progress | None) -> Told:
    done = 0

    def told(spoken: Spoken) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, ticks, "")

    return told


def _play(site: Site, parts: Parts, folder: Path, piece: Piece, told: Told) -> Iterator[Said]:
    specs = {n: WindowSpec.from_json(site.models.card(n, v)["spec"]) for n, v in piece.cast.items()}
    exact = _laid(site, folder, piece, list(specs.values()))
    client, ids = parts.client(), site.registry.lookup()
    pipeline.rehearse(client, parts.endpoints(), folder, site.readings.grid, site.layout(), ids, told)
    client.run(forget, str(folder))
    with ExitStack() as held:
        view = held.enter_context(closing(SpeedView.open(folder / "views" / "speed.sqlite")))
        live = site.desk().speed()
        if live is not None:
            held.enter_context(closing(live))
        for name, version in piece.cast.items():
            again = view.read(name, piece.first, piece.last)
            yield Said(
                name=name, version=version, spec=specs[name], again=again, piece=piece, exact=exact,
                live=view.read(name, 0, 0) if live is None else live.read(name, piece.first, piece.last),
                scale=site.models.load(name, version).golden.scale,
            )  # fmt: skip


def _laid(site: Site, folder: Path, piece: Piece, specs: Sequence[WindowSpec]) -> int:
    """Write the piece's log; the tick from which on it is in the journal's own order."""
    for left in reversed(range(TRIES)):
        Archive.create(folder / "archive", site.readings.grid)
        with closing(Journal.open(folder / "journal")) as journal:
            try:
                return _written(site, journal, piece, specs)
            except (JournalError, ArchiveError):
                if not left:
                    raise
        shutil.rmtree(folder)
    raise AssertionError("the last try returns or raises")


def _written(site: Site, journal: Journal, piece: Piece, specs: Sequence[WindowSpec]) -> int:
    known = site.registry.lookup()
    names = {tag.name for spec in specs for tag in spec.base_tags}
    ids = np.array(sorted(known[name] for name in names if name in known), np.int32)
    past = Past(
        archive=site.readings,
        journal=site.journal,
        layout=site.layout(),
        late=late_list(site.folder / "journal"),
        revised=late_list(site.folder / "journal", table=REVISED),
    )
    wait = max(spec.wait for spec in specs)
    stretch = Stretch(
        first=piece.first, last=piece.last, lead=lead_of(specs), wait=wait, ids=ids, closes=piece.closes
    )  # fmt: skip
    laid = lay_out(past, stretch)
    while entries := list(islice(laid.entries, GROUP)):
        journal.append(entries)
    return laid.exact
