"""What periods come to, as messages. An aggregate is a tag like any other: `json_text` and `arrow` read these.

    {"tag": "T1.mean.1min", "value": 21.5, "time": "2026-05-04T10:30:00Z", "quality": "good",
     "end": "2026-05-04T10:31:00Z", "of": "T1", "function": "mean", "period": "1min", "count": 60, "unit": "degC",
     "revision": 0}

A message is a function of the view of aggregates and of plant.toml alone: sent again, it has the same bytes. Of what is
told of one `tag` and `time` the highest revision holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.data.durations import duration_text
from penstock.data.frame import BAD, GOOD
from penstock.data.grid import Grid
from penstock.data.plant import Plant, SinkSpec
from penstock.data.summary import Summary
from penstock.speed.formats.arrow import long_batch, payload
from penstock.speed.formats.predictions import QUALITY, iso
from penstock.speed.sink import Message
from penstock.speed.topics import filled

ROWS = 4096
"""Of a message that many share."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changed:
    """A period of some tags that changed together."""

    length: int
    """Of the period, in ticks."""
    period: int
    """Its number: it begins at tick `period * length`."""
    tags: NDArray[np.int64]
    """[m] places among the sink's tags."""
    revisions: NDArray[np.uint32]
    """[m]"""
    told: Summary
    """[m]"""


@dataclass(frozen=True, slots=True)
class _Row:
    """One value."""

    tag: str
    of: str
    function: str
    value: float
    count: int
    unit: str
    revision: int


class Aggregates:
    """Messages of one sink."""

    def __init__(self, spec: SinkSpec, plant: Plant, grid: Grid) -> None:
        self._spec, self._plant, self._grid = spec, plant.name, grid
        self._units = [plant.tags[name].unit for name in spec.aggregates]
        self._texts = {length // grid.period_ns: duration_text(length) for length in spec.periods_ns}
        self._encode = _arrow if spec.format == "arrow" else _json

    @property
    def lengths(self) -> Sequence[int]:
        """Of the periods that are sent, in ticks, ascending."""
        return list(self._texts)

    def messages(self, changed: Changed) -> list[Message]:
        """Of one period, in the order of the tags."""
        begin_ns = self._grid.time(changed.period * changed.length)
        end_ns = begin_ns + changed.length * self._grid.period_ns
        topics: dict[str, list[_Row]] = {}
        for topic, row in self._rows(changed):
            topics.setdefault(topic, []).append(row)
        span = (begin_ns, end_ns, self._texts[changed.length])
        return [
            Message(topic, self._encode(rows[at : at + ROWS], *span))
            for topic, rows in topics.items()
            for at in range(0, len(rows), ROWS)
        ]

    def _rows(self, changed: Changed) -> Iterator[tuple[str, _Row]]:
        values, counts = _values(changed.told), changed.told.count.tolist()
        for i in np.argsort(changed.tags).tolist():
            at = int(changed.tags[i])
            of, revision = self._spec.aggregates[at], int(changed.revisions[i])
            for function in self._spec.functions:
                parts = {"plant": self._plant, "tag": of, "period": self._texts[changed.length], "function": function}
                unit = "" if function == "count" else self._units[at]
                tag = filled(self._spec.tag, parts, topic=False)
                row = _Row(tag, of, function, float(values[function][i]), counts[i], unit, revision)
                yield filled(self._spec.topic, parts, topic=True), row


def _values(told: Summary) -> Mapping[str, NDArray[np.float64]]:
    some = told.count > 0
    return {
        "count": told.count.astype(np.float64), "mean": told.mean, "min": np.where(some, told.low, np.nan),
        "max": np.where(some, told.high, np.nan), "std": told.std,
    }  # fmt: skip


def _json(rows: list[_Row], begin_ns: int, end_ns: int, period: str) -> bytes:
    begin, end = iso(begin_ns), iso(end_ns)
    found = [
        {
            "tag": row.tag,
            "value": row.value if np.isfinite(row.value) else None,
            "time": begin,
            "quality": QUALITY[_quality(row)],
            "end": end,
            "of": row.of,
            "function": row.function,
            "period": period,
            "count": row.count,
            "unit": row.unit,
            "revision": row.revision,
        }
        for row in rows
    ]
    said = found[0] if len(found) == 1 else found
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _arrow(rows: list[_Row], begin_ns: int, end_ns: int, period: str) -> bytes:
    batch = long_batch(
        np.full(len(rows), begin_ns, np.int64),
        np.arange(len(rows)),
        [row.tag for row in rows],
        np.array([row.value for row in rows], np.float64),
        np.array([_quality(row) for row in rows], np.uint8),
    )
    more = {
        "end": pa.array([end_ns] * len(rows)).cast(batch.schema.field("time").type),
        "of": pa.array([row.of for row in rows]),
        "function": pa.array([row.function for row in rows]),
        "period": pa.array([period] * len(rows)),
        "count": pa.array([row.count for row in rows], pa.uint32()),
        "unit": pa.array([row.unit for row in rows]),
        "revision": pa.array([row.revision for row in rows], pa.uint32()),
    }
    for name, column in more.items():
        batch = batch.append_column(name, column)
    return payload(batch)


def _quality(row: _Row) -> int:
    return GOOD if np.isfinite(row.value) else BAD
