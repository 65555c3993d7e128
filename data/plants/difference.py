"""What is different between two plants, and what each difference means: plan first, act later. Pure.

    old plant, new plant, what the site holds ──► [Change, ...]      none: they are the same

Knows nothing of files, registries or processes. A change that cannot be done on a site that has run says why; then
none of them is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from penstock.data.durations import duration_text
from penstock.data.plant import AggregateSpec, Plant, SinkSpec, SourceSpec
from penstock.data.plants.change import NOTHING, Change, Standing, differing, listed
from penstock.data.plants.model_changes import model_changes
from penstock.data.plants.tag_changes import Same, tag_changes

SOURCE = tuple(f.name for f in fields(SourceSpec) if f.name not in ("name", "kind"))
SINK = tuple(f.name for f in fields(SinkSpec) if f.name not in ("name", "kind"))
AGGREGATES = tuple(f.name for f in fields(AggregateSpec))


def difference(old: Plant, new: Plant, standing: Standing = NOTHING) -> tuple[Change, ...]:
    """Every change from `old` to `new` on a site that holds `standing`."""
    same = Same.of(old, new, standing.owners)
    return tuple(
        change
        for part in (
            _plant(old, new, standing),
            tag_changes(old, new, same, standing),
            model_changes(old, new, same, standing),
            _aggregates(old, new, same),
            _sources(old, new, same),
            _sinks(old, new, same),
        )
        for change in part
    )


def _plant(old: Plant, new: Plant, standing: Standing) -> Iterator[Change]:
    if old.name != new.name:
        called = f"source {listed(sorted(standing.sessions))}'s session at its broker is called after the plant, and"
        why = f"{called} what waits there would be lost; set client_id in its options in site.toml first, to" + (
            f" penstock-{old.name}-NAME"
        )
        yield Change(
            kind="plant name", what="", before=old.name, after=new.name, refused=why if standing.sessions else None,
            effect="of pages and sinks' topics from now on",
        )  # fmt: skip
    if old.period_ns != new.period_ns:
        yield Change(
            kind="plant period", what="", before=duration_text(old.period_ns), after=duration_text(new.period_ns),
            refused="a site keeps its period: make a new site with it, and import there what this one exports",
            effect="all that is stored lies on it",
        )  # fmt: skip
    if old.timezone != new.timezone:
        yield Change(
            kind="plant timezone", what="", before=old.timezone, after=new.timezone,
            effect="of pages, typed dates, retrain times and imports from now on; what is stored is in UTC",
        )  # fmt: skip
    if old.clock != new.clock:
        yield Change(kind="plant clock", what="", before=old.clock, after=new.clock, effect="of what pages say")


def _aggregates(old: Plant, new: Plant, same: Same) -> Iterator[Change]:
    before = replace(old.aggregates, tags=tuple(map(same.name, old.aggregates.tags)))
    if (found := differing(before, new.aggregates, AGGREGATES)) is not None:
        effect = "are kept no more" if not new.aggregates.periods_ns else "are made anew from the archive"
        yield Change(kind="aggregates changed", what="", before=found[0], after=found[1], effect=effect)


def _sources(old: Plant, new: Plant, same: Same) -> Iterator[Change]:
    for name, spec in new.sources.items():
        if name not in old.sources:
            yield Change(
                kind="source added", what=name, after=spec.kind, effect="is read once site.toml says where it is"
            )
            continue
        was = old.sources[name]
        columns = {key: None if tag is None else same.name(tag) for key, tag in was.columns.items()}
        if was.kind != spec.kind:
            yield Change(
                kind="source kind", what=name, before=was.kind, after=spec.kind,
                refused="the journal counts what it has of a source under its name: give the other one a new name",
                effect="it would go on at a place that is another source's",
            )  # fmt: skip
        elif (found := differing(replace(was, columns=columns), spec, SOURCE)) is not None:
            yield Change(kind="source changed", what=name, before=found[0], after=found[1], effect=_heard(was, spec))
    for name, spec in old.sources.items():
        if name not in new.sources:
            effect = "is read no more; take it out of site.toml too"
            yield Change(kind="source removed", what=name, before=spec.kind, effect=effect)


def _heard(was: SourceSpec, spec: SourceSpec) -> str:
    effect = "of what comes from now on; it goes on where it was"
    if spec.kind == "mqtt" and (gone := [topic for topic in was.topics if topic not in spec.topics]):
        effect += f"; its session at the broker still has {listed(gone)}: what comes there is read on as before"
    return effect


def _sinks(old: Plant, new: Plant, same: Same) -> Iterator[Change]:
    for name, spec in new.sinks.items():
        if name not in old.sinks:
            effect = "is sent what is said from now on, once site.toml says where it is"
            yield Change(kind="sink added", what=name, after=spec.topic, effect=effect)
            continue
        was = replace(old.sinks[name], aggregates=tuple(map(same.name, old.sinks[name].aggregates)))
        if (found := differing(was, spec, SINK)) is not None:
            effect = "of what is sent from now on; it goes on where it was"
            yield Change(kind="sink changed", what=name, before=found[0], after=found[1], effect=effect)
    for name, spec in old.sinks.items():
        if name not in new.sinks:
            effect = "is sent nothing any more; take it out of site.toml too"
            yield Change(kind="sink removed", what=name, before=spec.topic, effect=effect)
