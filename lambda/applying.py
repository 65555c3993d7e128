"""`penstock apply`: another plant takes the place of a site's, while it runs.

    new plant.toml ─► check ─► difference ─► refused? agreed? ─► edition: it holds ─► files, registry ─► what runs
                                                │
                                                └──► nothing has changed

Plan first: everything that can be said no to is said before the first byte is written. What runs is not told; it
looks at the site once a second, goes over by itself, and is only waited for here. So a kill at any moment leaves
nobody who waits, and the next apply, or whatever opens the site, finishes what holds already.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.check import fitting
from penstock.data.plant import Plant
from penstock.data.plants.change import Change, Standing
from penstock.data.plants.difference import difference
from penstock.data.plants.editions import PLANT, Edition, Editions, retired_form
from penstock.data.plants.named_files import named_files
from penstock.data.plants.plant_file import load_plant
from penstock.data.window_spec import WindowSpec
from penstock.errors import PlantError, SiteError
from penstock.speed.process import occupied
from penstock.speed.status import read_status
from penstock.up import record

if TYPE_CHECKING:
    from penstock.site import Site

WAIT_S = 120.0
"""How long what runs may take to go over: a stream says what is closed, for half a minute at most."""
GONE_S = 15.0
"""A stream that goes over is away for less."""
POLL_S = 0.1
AS_MADE = "as it was made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A plant that could take the place of the one that holds."""

    plant: Plant
    files: Mapping[str, bytes]
    """plant.toml and what it names, by path below the site."""
    changes: tuple[Change, ...]
    retired: Mapping[str, Mapping[str, Any]]
    """All tags that plant.toml has had and then has no more."""

    @property
    def refused(self) -> list[Change]:
        """What of it cannot be done."""
        return [change for change in self.changes if change.refused is not None]


def apply(
    site: Site, source: Path | None, *, dry_run: bool, agreed: Callable[[Sequence[Change]], bool], why: str,
    wait_s: float,
) -> dict[str, Any]:  # fmt: skip
    """`Site.apply`: `changes`, `refused` (how many), `applied` (the new plant's number, or None), `running`."""
    site.take_over()  # what another one has applied meanwhile is the plant that this one is compared with
    proposal = propose(site, source)
    told = {"changes": [asdict(change) for change in proposal.changes], "refused": len(proposal.refused)}
    nothing = {**told, "applied": None, "running": {}}
    if proposal.refused or not proposal.changes or dry_run or not agreed(proposal.changes):
        return nothing
    _done(steps(site, source, proposal, why))
    return {**told, "applied": site.edition, "running": awaited(site.folder, site.edition, wait_s)}


def propose(site: Site, source: Path | None) -> Proposal:
    """What `source` would change, None: what was edited in the site's own plant.toml. Changes nothing.

    Raises PlantError where it has mistakes, SiteError where there is nothing that it could be compared with.
    """
    file = source if source is not None else site.folder / PLANT
    plant = fitting(file, site.folder)
    files = {PLANT: file.read_bytes(), **named_files(file, plant)}
    before, old = (site.plant, _files_now(site)) if source is not None else _newest(site)
    held = standing(site, before, None if source is not None else _kept(site))
    changes = [*difference(before, plant, held), *_networks(old, files, plant)]
    if not any(change.refused for change in changes) and (no := site.registry.refusal(list(plant.tags.values()))):
        changes.append(Change(kind="tag fixed", what="", effect="what is stored keeps its form", refused=no))
    if not changes and any(old.get(name) != content for name, content in files.items()):
        changes.append(Change(kind="text", what=PLANT, effect="comments, order, alarms or how files are imported"))
    return Proposal(plant=plant, files=files, changes=tuple(changes), retired=_retired(site, before, plant, held))


def standing(site: Site, plant: Plant, retired: Mapping[str, Any] | None = None) -> Standing:
    """What the site holds that decides what can be changed from `plant`.

    `retired`: the tags that were so before; None: all that are registered and not the plant's. A plant.toml that was
    edited in place has registered its new names already.
    """
    names, lookup = site.registry.names(), site.registry.lookup()
    called = {lookup[tag.name]: tag.name for tag in plant.tags.values() if tag.expr is None and tag.name in lookup}
    others = names if retired is None else retired
    known = called | {at: name for at, name in enumerate(names) if at not in called and name in others}
    owners = {name: known[at] for name, at in lookup.items() if at in known}
    live, reads = site.models.champions(), {}
    for name, version in live.items():
        spec = WindowSpec.from_json(site.models.card(name, version)["spec"])
        reads[name] = frozenset(owners.get(tag.name, tag.name) for tag in spec.stored)
    where = site.settings.sources
    sessions = [n for n, s in plant.sources.items() if s.kind == "mqtt" and "client_id" not in _options(where.get(n))]
    return Standing(
        owners=owners, trained=frozenset(site.models.names()), live=live, reads=reads, sessions=frozenset(sessions)
    )


def begin(site: Site) -> None:
    """Keep the plant that a site was made with: the first one that another can be compared with. Raises SiteError."""
    with site.editions.writing():
        if not site.editions.newest():
            _done(site.editions.keep(_files_now(site), _edition(1, (), {}, AS_MADE)))
            site.editions.settle()


def steps(site: Site, source: Path | None, proposal: Proposal, why: str) -> Iterator[str]:
    """Make it hold; yields after each step that a kill may come behind. Raises SiteError."""
    with site.editions.writing():
        number = site.editions.newest()
        if number != site.edition:
            raise SiteError(f"{site.folder}: another plant was applied just now; look at the difference again")
        if source is not None and (number == 0 or site.editions.files(number) != _files_now(site)):
            number += 1
            begun = AS_MADE if number == 1 else "edited in place"
            yield from site.editions.keep(_files_now(site), _edition(number, (), _kept(site), begun))
        said = [
            {k: v for k, v in asdict(c).items() if k in ("kind", "what", "before", "after")} for c in proposal.changes
        ]
        yield from site.editions.keep(proposal.files, _edition(number + 1, said, proposal.retired, why))
        yield from site.editions.settling()
    site.take_over()
    yield "taken over"


def history(editions: Editions) -> list[dict[str, Any]]:
    """Who applied what when, oldest first."""
    return [{k: v for k, v in asdict(one).items() if k != "retired"} for one in editions.all()]


def awaited(folder: Path, number: int, wait_s: float) -> dict[str, bool]:
    """Whether what runs has gone over to plant `number`, by part; waits until it has, for `wait_s` at most."""
    begun = now_s = time.monotonic()
    found = _running(folder, number)
    seen = dict.fromkeys(found, begun)
    while not all(found.values()) and now_s < begun + wait_s:
        time.sleep(POLL_S)
        now, now_s = _running(folder, number), time.monotonic()
        seen |= dict.fromkeys(now, now_s)
        found = {name: now.get(name, False) for name, at in seen.items() if now_s - at < GONE_S}
    return found


def _done(steps: Iterator[str]) -> None:
    for _ in steps:
        pass


def _running(folder: Path, number: int) -> dict[str, bool]:
    found = {}
    if occupied(folder / "speed"):
        found["stream"] = (read_status(folder / "speed") or {}).get("plant", 0) >= number
    told = record.read(folder) if record.alive(folder) else None
    if told is not None:
        found["up"] = told.plant >= number
    return found


def _edition(number: int, changes: Sequence[Mapping[str, Any]], retired: Mapping[str, Any], why: str) -> Edition:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Edition(number=number, at=at, who=getpass.getuser(), why=why, changes=changes, retired=retired)


def _kept(site: Site) -> Mapping[str, Mapping[str, Any]]:
    """The retired tags so far."""
    number = site.editions.newest()
    return site.editions.edition(number).retired if number else {}


def _retired(site: Site, before: Plant, plant: Plant, held: Standing) -> dict[str, Mapping[str, Any]]:
    """With those of `before` that `plant` has under no name; without those that it has again."""
    last = {tag.name: retired_form(tag) for tag in before.tags.values() if tag.expr is None}
    names = (name for tag in plant.tags.values() if tag.expr is None for name in (tag.name, *tag.aliases))
    there = {held.owners.get(name, name) for name in names}
    return {name: said for name, said in {**_kept(site), **last}.items() if held.owners.get(name, name) not in there}


def _files_now(site: Site) -> dict[str, bytes]:
    """What lies in the site; a file that plant.toml names and that has gone is left out."""
    path = site.folder / PLANT
    found = {PLANT: path.read_bytes()}
    with suppress(PlantError):
        found |= named_files(path, site.plant)
    return found


def _newest(site: Site) -> tuple[Plant, Mapping[str, bytes]]:
    """The plant that was applied last. Raises SiteError where none ever was."""
    number = site.editions.newest()
    if not number:
        raise SiteError(
            f"{site.folder}: no plant was ever applied here that {PLANT} could be compared with; write the new one "
            "somewhere else and name it: penstock apply NEW.toml"
        )
    return load_plant(site.editions.home / str(number) / PLANT), site.editions.files(number)


def _networks(old: Mapping[str, bytes], new: Mapping[str, bytes], plant: Plant) -> Iterator[Change]:
    """Those whose bytes differ."""
    networks = {m.network.rpartition(":")[0] for m in plant.models.values() if m.network is not None}
    for name, content in new.items():
        if name in networks and name in old and old[name] != content:
            yield Change(kind="file changed", what=name, effect="of versions trained from now on")


def _options(where: Any) -> Mapping[str, Any]:
    return {} if where is None else where.options
