"""What was said at a tick, as messages. A prediction is a tag like any other: `json_text` and `arrow` read these.

    {"tag": "nox.NOX", "value": 61.5, "time": "2026-05-04T10:30:00Z", "quality": "good",
     "said": "2026-05-04T10:00:00Z", "model": "nox", "version": 3, "target": "NOX", "unit": "mg/m3", "reason": "OK"}

A message is a function of the row of the speed view and of plant.toml alone: sent again, it has the same bytes. One
message per tick and topic: a list (Arrow: a batch) where several predictions share one. Of `corrected`, `low`, `high`
and `chance` those stand in it that were said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from penstock.data.challengers import is_challenger
from penstock.data.frame import BAD, GOOD, UNCERTAIN
from penstock.data.grid import Grid
from penstock.data.plant import SinkSpec
from penstock.data.views.speed_view import Spoken
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.speed.formats.arrow import long_batch, payload
from penstock.speed.sink import Message
from penstock.speed.topics import filled

SpecOf = Callable[[str, int], WindowSpec | None]
"""How a version of a model cuts its windows; None where its card is gone."""
QUALITY = {GOOD: "good", UNCERTAIN: "uncertain", BAD: "bad"}
BESIDE = ("corrected", "low", "high", "chance")
"""What may stand beside the value."""
FRACTIONS = ((10**9, 0), (10**6, 3), (10**3, 6), (1, 9))


@dataclass(frozen=True, slots=True)
class _Place:
    """Of one output of one version."""

    topic: str
    tag: str
    target: str
    unit: str
    ahead_ns: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A prediction, or why there is none."""

    place: _Place
    model: str
    version: int
    value: np.float32
    reason: Reason
    quality: int
    beside: tuple[np.float32, ...] = ()
    """Of BESIDE, NaN where not said; none: nothing of the kind was said at this tick."""


class Predictions:
    """Messages of one sink."""

    def __init__(self, spec: SinkSpec, plant: str, grid: Grid, spec_of: SpecOf, refuse: Callable[[str], None]) -> None:
        """`refuse` is told why a prediction cannot be sent at all: of a model whose card is gone."""
        self._spec, self._plant, self._grid = spec, plant, grid
        self._spec_of, self._refuse = spec_of, refuse
        self._places: dict[tuple[str, int], tuple[_Place, ...]] = {}
        self._encode = _arrow if spec.format == "arrow" else _json

    def messages(self, spoken: Spoken) -> list[Message]:
        """Of one tick, in the order of the members; none where no model of the sink's answered."""
        said_ns = self._grid.time(spoken.tick)
        topics: dict[str, list[_Row]] = {}
        for row in self._rows(spoken):
            topics.setdefault(row.place.topic, []).append(row)
        return [Message(topic, self._encode(rows, said_ns)) for topic, rows in topics.items()]

    def _rows(self, spoken: Spoken) -> Iterator[_Row]:
        at = 0
        for i, (model, outputs) in enumerate(spoken.members):
            first, at = at, at + outputs
            if is_challenger(model) or not self._spec.sends(model):
                continue
            version, reason = int(spoken.versions[i]), Reason(int(spoken.reasons[i]))
            places = self._placed(model, version)
            if len(places) != outputs:
                self._refuse(f"{model}@{version}: its card is gone, or another's: its predictions cannot be sent")
                continue
            quality = BAD if reason is not Reason.OK else UNCERTAIN if spoken.filled[i] else GOOD
            for k, place in enumerate(places, first):
                yield _Row(place, model, version, spoken.values[k], reason, quality, _beside(spoken, k))

    def _placed(self, model: str, version: int) -> tuple[_Place, ...]:
        found = self._places.get((model, version))
        if found is None:
            spec = self._spec_of(model, version)
            if spec is None:  # not remembered: the card may be put back
                return ()
            found = tuple(self._place(model, spec, at) for at in range(len(spec.targets)))
            self._places[model, version] = found
        return found

    def _place(self, model: str, spec: WindowSpec, at: int) -> _Place:
        parts = {"plant": self._plant, "model": model, "target": spec.targets[at]}
        return _Place(
            topic=filled(self._spec.topic, parts, topic=True),
            tag=filled(self._spec.tag, parts, topic=False),
            target=spec.targets[at],
            unit=spec.target_units[at],
            ahead_ns=spec.horizon * spec.period_ns,
        )


def _beside(spoken: Spoken, at: int) -> tuple[np.float32, ...]:
    said = spoken.adjusted
    if said is None:
        return ()
    return spoken.values[at] + said.corrections[at], said.lows[at], said.highs[at], said.chances[at]


def _json(rows: list[_Row], said_ns: int) -> bytes:
    found = [
        {
            "tag": row.place.tag,
            "value": _number(row.value) if np.isfinite(row.value) else None,
            "time": iso(said_ns + row.place.ahead_ns),
            "quality": QUALITY[row.quality],
            "said": iso(said_ns),
            "model": row.model,
            "version": row.version,
            "target": row.place.target,
            "unit": row.place.unit,
            "reason": row.reason.name,
        }
        | {name: _number(v) for name, v in zip(BESIDE, row.beside, strict=False) if np.isfinite(v)}
        for row in rows
    ]
    said = found[0] if len(found) == 1 else found
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _number(value: np.float32) -> float:
    """The shortest text that is this float32, not the float64 beside it."""
    return float(str(value))


def _arrow(rows: list[_Row], said_ns: int) -> bytes:
    batch = long_batch(
        np.array([said_ns + row.place.ahead_ns for row in rows], np.int64),
        np.arange(len(rows)),
        [row.place.tag for row in rows],
        np.array([row.value for row in rows], np.float32),
        np.array([row.quality for row in rows], np.uint8),
    )
    more = {
        "said": pa.array([said_ns] * len(rows)).cast(batch.schema.field("time").type),
        "model": pa.array([row.model for row in rows]),
        "version": pa.array([row.version for row in rows], pa.int32()),
        "target": pa.array([row.place.target for row in rows]),
        "unit": pa.array([row.place.unit for row in rows]),
        "reason": pa.array([row.reason.name for row in rows]),
    }
    if all(row.beside for row in rows):
        columns = zip(BESIDE, zip(*(row.beside for row in rows), strict=True), strict=True)
        more |= {name: pa.array(np.array(column, np.float32)) for name, column in columns}
    for name, column in more.items():
        batch = batch.append_column(name, column)
    return payload(batch)


def iso(ns: int) -> str:
    """ISO 8601 in UTC, with as many digits of a second as it has."""
    digits = next(d for size, d in FRACTIONS if ns % size == 0)
    text = str(np.datetime64(ns, "ns"))  # nine digits
    return f"{text[: len(text) - 10 + (digits + 1 if digits else 0)]}Z"
