"""Messages that were overheard, as tags: names, kinds, ranges, how often. Pure: it connects to nothing.

They are read as a live source will read them, so that what is guessed here is what comes later.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.data.durations import duration_text
from penstock.data.frame import Dense, Readings
from penstock.data.importing.source_tags import SourceTags
from penstock.errors import SourceError
from penstock.guess import usual_spacing
from penstock.guess_columns import guess_columns, tag_names
from penstock.listening import FoundTag
from penstock.speed.formats.arrow import Frames, batches
from penstock.speed.formats.json_text import Messages
from penstock.speed.formats.names import Names
from penstock.speed.link import Link

MOST_TAGS = 100_000
GAPS = 3
"""Usual intervals over which a value is carried forward."""
WIDER = 5.0
"""Widths of what was heard that a range goes beyond it on both sides: a moment says little of a year."""
HEARTBEAT_NS = 3_600_000_000_000
"""Guessed for what is reported when it changes."""
ARROW = b"\xff\xff\xff\xff"
"""How an Arrow IPC stream begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One that was heard."""

    topic: str
    body: bytes
    arrival_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheard:
    """What the messages seem to be."""

    format: Literal["json", "arrow"]
    template: str
    """`tag` of the source: from the topics' levels; empty: the whole topic, or no message needs it."""
    tags: tuple[FoundTag, ...]
    period_ns: int
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Series:
    topics: set[str] = field(default_factory=set)
    times: list[NDArray[np.int64]] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)


class _Any(SourceTags):
    """Every name is a tag."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.scale, self.offset = np.ones(1), np.zeros(1)
        self.double = np.ones(MOST_TAGS, bool)

    def find(self, name: str) -> int:
        """Its place, in the order in which they came."""
        if name not in self.names and len(self.names) >= MOST_TAGS:
            raise SourceError(f"more than {MOST_TAGS:,} names were heard; listen to fewer topics")
        return self.names.setdefault(name, len(self.names))


def overheard(messages: Sequence[Message]) -> Overheard:
    """The tags of messages, in the order in which they came; notes say what should be looked at."""
    arrow = sum(m.body.startswith(ARROW) for m in messages) * 2 > len(messages)
    link = Link()
    series = _series(messages, "arrow" if arrow else "json", link)
    topics = [name for name in series if name in {m.topic for m in messages}]
    template, named = _named(series, topics)
    intervals = {name: _interval(np.concatenate(s.times)) for name, s in series.items()}
    steady = Counter(ns for name, ns in intervals.items() if ns and not _on_change(series[name]))
    fallback = [ns for ns in intervals.values() if ns]
    period = max(sorted(steady), key=steady.__getitem__) if steady else min(fallback, default=1_000_000_000)
    tags = _tags(series, named, intervals, period)
    return Overheard(
        format="arrow" if arrow else "json", template=template, tags=tags, period_ns=period,
        notes=tuple(_notes(series, link, tags)),
    )  # fmt: skip


def _named(names: Iterable[str], topics: Sequence[str]) -> tuple[str, dict[str, str]]:
    """(template, what a source with it calls each of `names`): those of topics are shortened, where all stay apart."""
    template = template_of(topics)
    named = {name: filled(template, name) if template and name in topics else name for name in names}
    if len(set(named.values())) < len(named):
        return "", {name: name for name in named}
    return template, named


def template_of(topics: Sequence[str]) -> str:
    """Levels in which topics differ, such as "{2}_{3}"; empty where they would not tell all of them apart."""
    levels = [topic.split("/") for topic in topics]
    if not levels or len({len(each) for each in levels}) > 1:
        return ""
    differ = [i for i, each in enumerate(zip(*levels, strict=True)) if len(set(each)) > 1] or [len(levels[0]) - 1]
    return "_".join(f"{{{i + 1}}}" for i in differ)


def filled(template: str, topic: str) -> str:
    """The name that a source makes of a topic."""
    levels = topic.split("/")
    return re.sub(r"\{(\d+)\}", lambda match: levels[int(match[1]) - 1], template)


def _series(messages: Sequence[Message], form: str, link: Link) -> dict[str, _Series]:
    """By name: readings that are numbers. The name of a message that names none is its topic."""
    found: dict[str, _Series] = {}
    by_topic: dict[str, list[Message]] = {}
    for message in messages:
        by_topic.setdefault(message.topic, []).append(message)
    for topic, heard in by_topic.items():
        tags = _Any()
        for readings in _readings(heard, form, Names(tags, link), link):
            frame = readings.long() if isinstance(readings, Dense) else readings
            names, good = list(tags.names), np.isfinite(frame.values)
            for at in np.unique(frame.tags[good]):
                one = found.setdefault(names[at], _Series())
                mine = good & (frame.tags == at)
                one.topics.add(topic)
                one.times.append(frame.times[mine])
                one.values.append(frame.values[mine].astype(np.float64))
    return found


def _readings(heard: Sequence[Message], form: str, names: Names, link: Link) -> list[Readings]:
    if form == "json":
        texts = Messages(names)
        for message in heard:
            texts.add(message.body, message.topic, message.arrival_ns)
        return [texts.take()[0]]
    found: list[Readings] = []
    frames = Frames(names)
    for message in heard:
        try:
            found += [frames.read(batch)[0] for batch in batches(message.body)]
        except SourceError as error:
            link.refuse(str(error))
    return found


def _interval(times: NDArray[np.int64]) -> int | None:
    """The usual spacing, ns; None where there are not two times."""
    times = np.unique(times)
    return usual_spacing(times) if len(times) > 1 else None


def _on_change(one: _Series) -> bool:
    """It came once, or never with the same value again and after very different whiles."""
    times, values = np.concatenate(one.times), np.concatenate(one.values)
    order = np.argsort(times, kind="stable")
    steps = np.diff(times[order])
    if not len(steps):
        return True
    return bool((np.diff(values[order]) != 0).all() and steps.max() > 3 * max(1.0, float(np.median(steps))))


def _tags(
    series: Mapping[str, _Series], named: Mapping[str, str], intervals: Mapping[str, int | None], period: int
) -> tuple[FoundTag, ...]:
    values = {named[name]: np.concatenate(one.values) for name, one in series.items()}
    columns = {column.source: column for column in guess_columns(values, period)[0]}
    units = tag_names(columns)
    found = []
    for name, one in series.items():
        source = named[name]
        column, heard = columns[source], values[source]
        kind = "state" if set(np.unique(heard)) == {0.0, 1.0} else column.kind
        cells = {"unit": units[source][1], "kind": "" if kind == "value" else kind}
        cells |= {"dtype": "float64"} if column.double else {}
        cells |= _limits(heard) if kind == "value" else {}
        if _on_change(one):
            cells |= {"reports": "on change", "heartbeat": duration_text(HEARTBEAT_NS)}
        else:
            cells["max_gap"] = duration_text(GAPS * max(intervals[name] or period, period))
        found.append(FoundTag(source=source, name=source, named=True, cells=cells))
    return tuple(found)


def _limits(values: NDArray[np.float64]) -> dict[str, str]:
    """A range: far wider than what was heard, in round numbers; none where nothing moves."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return {}
    beyond = max(WIDER * (high - low), abs(low), abs(high))
    unit = 10.0 ** np.floor(np.log10(beyond))
    bottom, top = np.floor((low - beyond) / unit) * unit, np.ceil((high + beyond) / unit) * unit
    return {"low": f"{bottom:.6g}", "high": f"{top:.6g}"}


def _notes(series: Mapping[str, _Series], link: Link, tags: Sequence[FoundTag]) -> list[str]:
    notes = ["ranges are far wider than what was heard; correct them in tags.csv where you know better"]
    shared = [name for name, one in series.items() if len(one.topics) > 1]
    if shared:
        notes.append(f"come on several topics, and would be one tag: {', '.join(shared[:5])}; listen to one of them")
    changing = [tag.name for tag in tags if "reports" in tag.cells]
    if changing:
        notes.append(f"heard once, or when they change: {', '.join(changing[:5])}; their heartbeat is a guess")
    if link.garbage:
        notes.append(f"{link.garbage} messages or readings are no numbers; the last: {link.trouble}")
    return notes
