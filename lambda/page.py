"""A site's answers to what the pages ask (`serving/questions.py`), and the page command's body.

Only files are read: the page runs beside a stream or alone, and starts no process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock import answers
from penstock.data.block import FILLED, Flag
from penstock.data.history import cells_now
from penstock.data.quality import assess
from penstock.data.rules import Rules
from penstock.data.simulator_station import station_of
from penstock.data.views.speed_view import Spoken
from penstock.data.windows import Reason, WindowSpec
from penstock.errors import ModelError
from penstock.page_rows import Rows
from penstock.serving.buckets import any_in, bucket_ticks, extremes
from penstock.serving.questions import Choice, Entry, Face, Questions, Standing, Stretch, Trace
from penstock.speed.process import occupied
from penstock.speed.status import read_status

if TYPE_CHECKING:
    from penstock.site import Site

MODELS_KEPT = 64
"""Models whose rows are kept between two looks."""
TICKS_AT_ONCE = 1 << 20
"""A long span is read in blocks of about so many ticks: memory stays small, whatever its length."""


def serve(site: Site, *, port: int, ready: Callable[[str], None], with_parent: bool = False) -> None:
    """Show the site on this machine's `port` (0: a free one) until SIGINT or SIGTERM; `ready` is told the address.

    `with_parent`: also until the process that started this one has gone.
    """
    from penstock.serving import pages  # panel takes a second to import

    pages.serve(questions(site), port=port, ready=ready, with_parent=with_parent)


def questions(site: Site) -> Questions:
    """The functions that the pages are given."""
    cards: dict[tuple[str, int], str] = {}
    return Questions(
        face=_face(site),
        trace=partial(_trace, site, {}),
        standing=partial(_standing, site),
        sheet=partial(_sheet, site, cards, {}),
        stretch=partial(_stretch, site),
        span=partial(_span, site),
    )


def _face(site: Site) -> Face:
    plant = site.plant
    choices = [choice for name in site.model_names() for choice in _choices(name, site.spec(name))]
    tags = [(tag.name, tag.unit) for tag in plant.tags.values() if tag.expr is None]
    return Face(
        plant=plant.name, zone=plant.timezone, replay=plant.clock == "replay", period_s=plant.period_ns / 1e9,
        choices=tuple(choices), tags=tuple(tags), simulated=station_of(plant.name) is not None,
        beside=any(model.live.correct or model.live.interval for model in plant.models.values()),
    )  # fmt: skip


def _choices(name: str, spec: WindowSpec) -> list[Choice]:
    single = len(spec.targets) == 1
    return [
        Choice(label=name if single else f"{name}: {target}", model=name, column=k, target=target, unit=unit)
        for k, (target, unit) in enumerate(zip(spec.targets, spec.target_units, strict=True))
    ]


def _newest(site: Site) -> Spoken | None:
    """The newest row of the speed view."""
    view = site.desk().speed()
    if view is None:
        return None
    try:
        return view.newest()
    finally:
        view.close()


def _trace(site: Site, kept: dict[str, Rows], model: str, rows: int) -> Trace:
    desk, spec = site.desk(), site.spec(model)
    mine = kept.pop(model, None)
    if mine is None or mine.spec != spec:
        mine = Rows(desk, model, spec)
    kept[model] = mine  # the one looked at last stands last
    while len(kept) > MODELS_KEPT:
        del kept[next(iter(kept))]
    view = desk.speed()
    try:
        return mine.trace(desk, view, rows)
    finally:
        if view is not None:
            view.close()


def _standing(site: Site) -> Standing:
    folder = site.folder / "speed"
    told: dict[str, Any] = read_status(folder) or {}
    report, newest, running = told.get("report", {}), _newest(site), occupied(folder)
    return Standing(
        running=running,
        heard_ns=told.get("written_ns"),
        tick=newest.tick if newest else None,
        tick_ns=site.readings.grid.time(newest.tick) if newest else None,
        closed=told.get("closed"),
        readings=report.get("readings", 0),
        late=report.get("late", 0),
        refused=report.get("rejected", 0) + report.get("quarantined", 0),
        rate=told.get("rate") if running else None,  # a stream that was killed told it last of itself
        replay=told.get("replay", False),
        ended=not running and report.get("ended", False),
        trouble=told.get("trouble") if running else None,
    )


def _sheet(
    site: Site, cards: dict[tuple[str, int], str], specs: dict[tuple[str, int | None], WindowSpec]
) -> list[Entry]:
    champions, challengers, wanted = site.models.champions(), site.models.challengers(), {}
    for name in site.model_names():
        key = name, champions.get(name)
        if key not in specs:  # one takes 0.2 ms, and there may be hundreds at every tick
            specs[key] = site.spec(name)
        wanted[name] = specs[key]
    said = _rounds(site, {spec.every for spec in wanted.values()})
    places = {every: _places(row) for every, row in said.items()}
    return [
        replace(
            _entry(site, cards, choice, said[spec.every], places[spec.every].get(name), champions.get(name)),
            challenger=challengers.get(name),
        )
        for name, spec in wanted.items()
        for choice in _choices(name, spec)
    ]


def _rounds(site: Site, wanted: set[int]) -> dict[int, Spoken | None]:
    """What was said last by the models that answer every so many ticks: not all of them do at the newest tick."""
    view = site.desk().speed()
    if view is None:
        return dict.fromkeys(wanted)
    try:
        tick = view.last_tick() or 0
        return {every: view.newest(tick - tick % every) for every in wanted}
    finally:
        view.close()


def _places(newest: Spoken | None) -> dict[str, tuple[int, int]]:
    """(member, its first output) of each model in a row of the speed view."""
    members = newest.members if newest else ()
    starts = accumulate((outputs for _, outputs in members), initial=0)
    return {name: (k, at) for k, ((name, _), at) in enumerate(zip(members, starts, strict=False))}


def _entry(
    site: Site, cards: dict[tuple[str, int], str], choice: Choice, newest: Spoken | None,
    place: tuple[int, int] | None, deployed: int | None,
) -> Entry:  # fmt: skip
    value, version, reason, filled = float("nan"), 0, Reason.NO_MODEL, False
    if newest is not None and place is not None:
        k, at = place
        value, version = float(newest.values[at + choice.column]), max(int(newest.versions[k]), 0)
        reason, filled = Reason(int(newest.reasons[k])), bool(newest.filled[k])
    trained = _trained(site, cards, choice.model, version or deployed)
    return Entry(
        choice=choice, version=version, deployed=deployed, trained=trained, prediction=value, reason=reason.name,
        filled=filled,
    )  # fmt: skip


def _trained(site: Site, cards: dict[tuple[str, int], str], model: str, version: int | None) -> str:
    """Last day of a version's training span; a card is read once, as it never changes."""
    if version is None:
        return ""
    if (model, version) not in cards:
        try:
            cards[model, version] = str(site.models.card(model, version)["trained"].get("end", ""))[:10]
        except ModelError:
            cards[model, version] = ""  # the folder was removed; what it said stays on the page
    return cards[model, version]


def _span(site: Site) -> tuple[int, int]:
    head, grid = site.readings.head(), site.readings.grid
    first, last = head.span[0], head.newest
    return (0, 0) if first >= last else (grid.time(first), grid.time(max(last, site.desk().newest())))


def _stretch(site: Site, tag: str, start_ns: int, end_ns: int, buckets: int) -> Stretch:
    desk = site.desk()
    low, high = (desk.grid.tick_of(t) for t in _span(site))
    first, last = max(desk.grid.tick_of(start_ns), low), min(desk.grid.tick_of(end_ns) + 1, high)
    size = bucket_ticks(max(last - first, 1), buckets)
    block = max(TICKS_AT_ONCE // size, 1) * size
    parts = [_block(site, desk, tag, at, min(at + block, last), size) for at in range(first, last, block)]
    origin, period = desk.grid.origin_ns, desk.grid.period_ns
    ticks, values, faults = (
        np.concatenate([part[k] for part in parts]) if parts else np.zeros(0, np.int64) for k in range(3)
    )
    return Stretch(
        times=origin + ticks * period,
        values=values.astype(np.float32),
        faults=origin + faults * period,
        ticks_per_bucket=size,
    )


def _block(site: Site, desk: answers.Desk, tag: str, first: int, last: int, size: int) -> tuple[Any, Any, Any]:
    """(ticks, values, ticks of buckets with bad readings) of ticks first..last-1."""
    rules = Rules.of([site.plant.tags[tag]], desk.grid.period_ns).as_read()
    ids = np.array([desk.ids[tag]], np.int32)
    cells = cells_now(desk.archive, desk.journal, desk.layout, desk.grid, ids, first - rules.reach, last)
    judged = assess(cells, rules).rows(first, last)
    flags = judged.flags[:, 0]
    good = (flags & (Flag.BAD | FILLED)) == 0
    positions, values = extremes(np.where(good, judged.values[:, 0], np.float32(np.nan)), size)
    wrong = any_in(~good & ((flags & Flag.MISSING) == 0), size)
    return first + positions, values, first + wrong
