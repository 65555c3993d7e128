"""What becomes of tags from one plant to the next: which are the same, by the registry's own rules.

    a new tag's name and aliases ──► owners ──┬── none      added: a new id
                                              ├── one       the same tag: kept, renamed, or come back
                                              └── several   refused: histories are never joined

A tag that no new one claims is retired: its history stays, its id is never given again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from penstock.data.expressions import names
from penstock.data.plant import Plant, Tag
from penstock.data.plants.change import Change, Standing, differing, listed
from penstock.data.window_form import placed

TEXT = ("unit", "description")
RULES = (
    "kind", "range", "rate", "flat_after_ns", "max_gap_ns", "substitute", "truth_delay_ns", "join", "join_delay_ns",
    "heartbeat_ns",
)  # fmt: skip
SCALE = ("scale", "offset")
OWN_NAME = "give it a name of its own, and retire the old tag"
FIXED = {
    "dtype": f"a stored tag keeps its dtype; {OWN_NAME}",
    "ahead_ns": f"what is stored was ordered by it; {OWN_NAME}",
}
"""Why a key of a stored tag never changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """Which stored tags of two plants are one."""

    before: Mapping[str, str]
    """Old name by new name, of those that both plants have."""
    back: Mapping[str, str]
    """Name in the registry by new name, of retired ones that come back."""
    refused: Mapping[str, str]
    """Reason by new name, of those that could be two."""
    now: Mapping[str, str] = field(default_factory=dict)
    """New name by old name, where they differ."""

    @classmethod
    def of(cls, old: Plant, new: Plant, owners: Mapping[str, str]) -> Same:
        """By names and aliases. `owners`: the registry's, which knows retired tags too."""
        stored = {name: tag for name, tag in old.tags.items() if tag.expr is None}
        owner = {alias: tag.name for tag in stored.values() for alias in tag.aliases} | {n: n for n in stored}
        owner.update(owners)
        before: dict[str, str] = {}
        back: dict[str, str] = {}
        refused: dict[str, str] = {}
        claimed: dict[str, str] = {}
        for tag in new.tags.values():
            found = {owner[n] for n in (tag.name, *tag.aliases) if n in owner} if tag.expr is None else set()
            if len(found) > 1:
                refused[tag.name] = f"its name and aliases mean {listed(sorted(found))}, which have a history each"
            elif found and claimed.setdefault(one := found.pop(), tag.name) != tag.name:
                refused[tag.name] = f"{tag.name!r} is a former name of {claimed[one]!r}; choose another name"
            elif tag.name in claimed.values():
                (before if one in stored else back)[tag.name] = one
        now = {was: name for name, was in before.items() if was != name}
        return cls(before=before, back=back, refused=refused, now=now)

    def name(self, old: str) -> str:
        """What an old plant's tag is called now."""
        return self.now.get(old, old)

    def text(self, old: str | None) -> str | None:
        """An old plant's expression in a form that `form` of a new one equals if it means the same."""
        return old if old is None else placed(old, {name: self.name(name) for name in names(old)})


def form(text: str | None) -> str | None:
    """A new plant's expression in that form."""
    return text if text is None else placed(text, {name: name for name in names(text)})


def tag_changes(old: Plant, new: Plant, same: Same, standing: Standing) -> Iterator[Change]:
    """Every change of a tag, in the order of the new file; what is retired last."""
    kept = set(same.before.values())
    for tag in new.tags.values():
        if tag.expr is not None:
            yield from _derived(old.tags.get(tag.name), tag, same)
        elif tag.name in same.refused:
            yield _ambiguous(tag, same.refused[tag.name])
        elif tag.name in same.before:
            yield from _kept(old.tags[same.before[tag.name]], tag, same, new)
        elif tag.name in same.back:
            yield _back(tag, same.back[tag.name])
        else:
            yield _added(old.tags.get(tag.name), tag)
    for tag in old.tags.values():
        if tag.name not in kept and (tag.expr is None or tag.name not in new.tags):
            yield from _retired(tag, new, standing)


def _added(before: Tag | None, tag: Tag) -> Change:
    refused = None if before is None else f"a computed tag does not become a stored one; {OWN_NAME}"
    return Change(
        kind="tag added", what=tag.name, after=tag.unit, refused=refused,
        effect="gets the next id; is stored from its first reading on",
    )  # fmt: skip


def _ambiguous(tag: Tag, why: str) -> Change:
    remedy = "an alias is one tag's: name one former tag, or none"
    return Change(
        kind="tag renamed", what=tag.name, before=", ".join(tag.aliases), after=tag.name, refused=f"{why}; {remedy}",
        effect="histories are never joined",
    )  # fmt: skip


def _back(tag: Tag, was: str) -> Change:
    return Change(
        kind="tag back", what=tag.name, before=f"retired {was}", after=tag.name,
        effect="has its old id and history again; if it is another sensor, choose a name that was never used",
    )  # fmt: skip


def _derived(before: Tag | None, tag: Tag, same: Same) -> Iterator[Change]:
    if before is None:
        yield Change(kind="tag added", what=tag.name, after=tag.expr or "", effect="is computed, never stored")
        return
    if before.expr is None:  # told once, here: the stored one is no retired tag of another name
        yield Change(
            kind="tag computed", what=tag.name, before="stored", after=tag.expr or "",
            refused=f"a stored tag does not become a computed one; {OWN_NAME}", effect="its history would be hidden",
        )  # fmt: skip
        return
    if same.text(before.expr) != form(tag.expr):
        yield Change(
            kind="tag expression", what=tag.name, before=before.expr, after=tag.expr or "",
            effect="live versions compute it by their own card until a new one is deployed",
        )  # fmt: skip
    if (found := differing(before, tag, (*TEXT, "range"))) is not None:
        yield _of(tag, "tag text", found, "as people read it; its range counts for versions trained from now on")


def _kept(before: Tag, tag: Tag, same: Same, new: Plant) -> Iterator[Change]:
    if before.name != tag.name:
        yield Change(
            kind="tag renamed", what=tag.name, before=before.name, after=tag.name,
            effect=f"keeps id and history; sources, files and models trained before may go on saying {before.name}",
        )  # fmt: skip
    elif found := _aliases(before, tag):
        yield _of(tag, "tag aliases", found, "sources and files may use the former names that stand there, no others")
    for key, why in FIXED.items():
        if (found := differing(before, tag, (key,))) is not None:
            yield _of(tag, "tag fixed", found, "it would not be one series any more", refused=why)
    if (found := differing(before, tag, TEXT)) is not None:
        yield _of(tag, "tag text", found, "as people read it; stored numbers stay as they are")
    if (found := differing(before, tag, SCALE)) is not None:
        yield _of(tag, "tag scale", found, "of readings from now on; what is stored is in engineering units already")
    if (found := _rules(before, tag, same)) is not None:
        also = ", and its aggregates are made anew" if tag.name in new.aggregates.tags else ""
        yield _of(tag, "tag rules", found, f"of versions trained from now on, pages and truths{also}; live versions"
                  " go by their own card; readings stay as they were stored")  # fmt: skip


def _aliases(before: Tag, tag: Tag) -> tuple[str, str] | None:
    return differing(before, tag, ("aliases",)) if set(before.aliases) != set(tag.aliases) else None


def _rules(before: Tag, tag: Tag, same: Same) -> tuple[str, str] | None:
    keys = [*RULES] + (["valid"] if same.text(before.valid) != form(tag.valid) else [])
    return differing(before, tag, keys)


def _of(tag: Tag, kind: str, found: tuple[str, str], effect: str, refused: str | None = None) -> Change:
    return Change(kind=kind, what=tag.name, before=found[0], after=found[1], effect=effect, refused=refused)


def _retired(tag: Tag, new: Plant, standing: Standing) -> Iterator[Change]:
    if tag.expr is not None:
        yield Change(kind="tag retired", what=tag.name, before=tag.expr, effect="is computed no more")
        return
    if tag.name in new.tags:  # computed from now on, or one of two that could be it: told there
        return
    readers = [f"{name}@{standing.live[name]}" for name, read in standing.reads.items() if tag.name in read]
    refused = None
    if readers:
        names_only = " ".join(reader.partition("@")[0] for reader in readers[:4])
        refused = f"{listed(readers)} reads it: deploy a version without it first, or: penstock undeploy {names_only}"
    yield Change(
        kind="tag retired", what=tag.name, before=tag.unit, refused=refused,
        effect="takes no readings any more; its history stays readable (--retired), its id is never given again",
    )  # fmt: skip
