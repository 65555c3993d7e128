"""Messages as readings: what is in them, what is refused, and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import json_model
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.frame import BAD, GOOD, UNCERTAIN, Dense, Frame
from penstock.data.importing.source_tags import SourceTags
from penstock.data.plant import Plant, Tag
from penstock.data.registry import Registry
from penstock.errors import PlantError, SourceError
from penstock.speed.formats import arrow
from penstock.speed.formats.json_text import Messages, TopicTag
from penstock.speed.formats.names import Names
from penstock.speed.link import REST, UNMAPPED, Link

ARRIVAL = 1_777_888_800_000_000_000
TAGS = {
    "A": Tag(name="A"),
    "B": Tag(name="B", aliases=("old B",)),
    "F": Tag(name="F", scale=1.8, offset=32.0),
    "N": Tag(name="N", dtype="float64"),
    "D": Tag(name="D", expr="A + B"),
}


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return named(tmp_path, TAGS)


def named(folder: Path, tags: dict[str, Tag], **columns: str | None) -> Names:
    registry = Registry.open(folder / "tags.sqlite")
    registry.register([tag for tag in tags.values() if tag.expr is None])
    return Names(SourceTags(Plant(name="p", period_ns=10**9, tags=tags, models={}), registry, columns), Link())


def read(names: Names, *messages: object, tag: str = "A", zone: str = "UTC") -> tuple[list[tuple[object, ...]], int]:
    """[(tag id, time, value, quality)] and how many were rejected."""
    reader = Messages(names, ZoneInfo(zone))
    for message in messages:
        reader.add(message if isinstance(message, bytes) else json.dumps(message).encode(), tag, ARRIVAL)
    frame, rejected = reader.take()
    columns = (frame.tags.tolist(), frame.times.tolist(), frame.values.tolist(), frame.quality.tolist())
    return list(zip(*columns, strict=True)), rejected


AT = int(datetime(2026, 5, 4, 10, tzinfo=UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (21.5, [(0, ARRIVAL, 21.5, GOOD)]),
        (True, [(0, ARRIVAL, 1.0, GOOD)]),
        ("21.5", [(0, ARRIVAL, 21.5, GOOD)]),
        ({"value": 1, "time": "2026-05-04T10:00:00Z"}, [(0, AT, 1.0, GOOD)]),
        ({"value": 1, "ts": "2026-05-04T12:00:00+02:00", "quality": "Bad"}, [(0, AT, 1.0, BAD)]),
        ({"tag": "old B", "value": 1, "timestamp": AT / 1e9}, [(1, AT, 1.0, GOOD)]),
        ({"tag": "B", "value": 1, "timestamp": AT // 10**6, "status": 64}, [(1, AT, 1.0, UNCERTAIN)]),
        ({"tag": "B", "value": 1, "time": AT // 10**3, "quality": True}, [(1, AT, 1.0, GOOD)]),
        ({"tag": "B", "value": 1, "time": AT}, [(1, AT, 1.0, GOOD)]),
        ({"values": {"A": 1, "B": 2}, "time": AT}, [(0, AT, 1.0, GOOD), (1, AT, 2.0, GOOD)]),
        ({"A": 1, "B": 2, "time": AT, "quality": 64}, [(0, AT, 1.0, UNCERTAIN), (1, AT, 2.0, UNCERTAIN)]),
        ([{"A": 1, "time": AT}, {"tag": "B", "value": 2}], [(0, AT, 1.0, GOOD), (1, ARRIVAL, 2.0, GOOD)]),
        ({"tag": "F", "value": 100}, [(2, ARRIVAL, 212.0, GOOD)]),
        ({"value": 1, "time": "2026-05-04T10:00:00.123456789Z"}, [(0, AT + 123_456_789, 1.0, GOOD)]),
        ({"value": 1, "time": "2026-05-04T10:00:00.1234567+00:00"}, [(0, AT + 123_456_700, 1.0, GOOD)]),
    ],
)
def test_what_is_understood(names: Names, message: object, wanted: list[object]) -> None:
    assert read(names, message) == (wanted, 0)


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(st.tuples(json_model.MESSAGES, json_model.NAMES, st.booleans()), max_size=6))
def test_many_messages_are_what_a_slow_and_obvious_reader_makes_of_them(
    messages: list[tuple[bytes, str, bool]], two_names: tuple[Names, Names]
) -> None:
    fast, slow = two_names
    reader, model = Messages(fast), json_model.Said()
    for names in two_names:
        names.link = Link()
    for message, tag, retained in messages:
        reader.add(message, tag, None if retained else ARRIVAL)
        model.add(message, tag, None if retained else ARRIVAL)
    frame, rejected = reader.take()
    wanted, unknown = slow.long(
        np.array([row[1] for row in model.rows], np.int64),
        np.arange(len(model.rows)),
        [row[0] for row in model.rows],
        np.array([row[2] for row in model.rows], np.float64),
        np.array([row[3] for row in model.rows], np.uint8),
    )
    for column in ("times", "tags", "values", "quality"):
        assert getattr(frame, column).tobytes() == getattr(wanted, column).tobytes(), column
    assert rejected == len(model.refused) + unknown
    assert fast.link.garbage == len(model.refused)
    assert fast.link.trouble == (model.refused[-1] if model.refused else None)
    assert fast.link.unmapped == slow.link.unmapped


@pytest.fixture(scope="module")
def two_names(tmp_path_factory: pytest.TempPathFactory) -> tuple[Names, Names]:
    folder = tmp_path_factory.mktemp("names")
    for name in ("fast", "slow"):
        (folder / name).mkdir()
    return named(folder / "fast", TAGS, noise=None), named(folder / "slow", TAGS, noise=None)


def test_a_time_without_an_offset_is_in_the_plants_zone(names: Names) -> None:
    found, _ = read(names, {"value": 1, "time": "2026-05-04T13:00:00"}, zone="Europe/Istanbul")
    assert found[0][1] == AT


def test_null_is_a_reading_that_says_it_has_no_value(names: Names) -> None:
    found, rejected = read(names, {"tag": "A", "value": None})
    assert rejected == 0
    assert np.isnan(found[0][2])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\xff\xfe", "no JSON"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ({"value": "off"}, "A: 'off' is no number"),
        ({"value": [1]}, "is no number"),
        ({"value": 10**400}, "too large"),
        ({"tag": 3, "value": 1}, "send a name"),
        ({"value": 1, "time": "noon"}, "send ISO 8601"),
        ({"value": 1, "time": True}, "send ISO 8601"),
        ({"value": 1, "time": 1e300}, "beyond the years"),
        (b'{"value": 1, "time": NaN}', "beyond the years"),
        (b'{"value": 1, "time": -Infinity}', "beyond the years"),
        ({"value": 1, "time": "0001-01-01"}, "beyond the years"),
        ({"value": 1, "quality": "so so"}, "send good, uncertain, bad"),
        ({"value": 1, "quality": {}}, "send good, uncertain, bad"),
        ({"time": AT}, "no value"),
        ({}, "no value"),
    ],
)
def test_what_is_refused_and_why_and_what_stands_beside_it_is_taken(names: Names, message: object, why: str) -> None:
    found, rejected = read(names, message, 7.0)
    assert found == [(0, ARRIVAL, 7.0, GOOD)]
    assert rejected == 1
    assert names.link.garbage == 1
    assert why in str(names.link.trouble)


def test_a_bad_reading_of_a_message_costs_only_itself(names: Names) -> None:
    found, rejected = read(names, {"A": "off", "B": 2})
    assert (found, rejected) == ([(1, ARRIVAL, 2.0, GOOD)], 1)


def test_a_retained_message_needs_a_time(names: Names) -> None:
    reader = Messages(names)
    reader.add(b'{"value": 1}', "A", None)
    reader.add(b"2", "A", None)
    reader.add(b'{"value": 3, "time": 1777888800}', "A", None)
    frame, rejected = reader.take()
    assert frame.values.tolist() == [3.0]
    assert rejected == 2


def test_names_that_are_no_tags_are_counted_and_left_out_ones_are_not(tmp_path: Path) -> None:
    names = named(tmp_path, TAGS, plc7="A", noise=None)
    found, rejected = read(names, {"plc7": 1, "noise": 2, "temp": 3, "D": 4}, {"temp": 5})
    assert [row[0] for row in found] == [0]
    assert rejected == 3
    assert names.link.unmapped == {"temp": 2, "D": 1}  # a derived tag is none that can be measured


def test_a_source_that_makes_up_names_does_not_fill_the_memory(names: Names) -> None:
    for i in range(UNMAPPED + 5):
        names.link.note_unmapped(f"n{i}", 1)
    assert len(names.link.unmapped) == UNMAPPED + 1
    assert names.link.unmapped[REST] == 5


def test_numbers_that_float32_cannot_hold(names: Names) -> None:
    found, rejected = read(names, {"tag": "A", "value": 1e300}, {"tag": "N", "value": 1e300})
    assert rejected == 1
    assert [row[0] for row in found] == [3]


@pytest.mark.parametrize(
    ("template", "wanted"), [("", "plant/U1/temp"), ("{2}/{3}", "U1/temp"), ("{-1}", "temp"), ("x{9}", "x")]
)
def test_the_tag_of_a_topic(template: str, wanted: str) -> None:
    topics = TopicTag(template, "sources.plc.tag")
    assert [topics.of("plant/U1/temp"), topics.of("plant/U1/temp")] == [wanted, wanted]


@pytest.mark.parametrize("template", ["{0}", "{x}", "{", "{1"])
def test_braces_that_hold_no_level(template: str) -> None:
    with pytest.raises(PlantError, match=r"sources\.plc\.tag"):
        TopicTag(template, "sources.plc.tag")


# Arrow


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_arrow_brings_the_same_bits_long_and_dense(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = named(tmp_path_factory.mktemp("site"), {k: TAGS[k] for k in "AB"})
    k = data.draw(st.integers(0, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    values = rng.normal(size=(k, 3)).astype(data.draw(st.sampled_from(["float32", "float64"])))
    values[rng.random((k, 3)) < 0.3] = np.nan
    quality = rng.choice(np.array([GOOD, UNCERTAIN, BAD], np.uint8), (k, 3))
    times = ARRIVAL + np.arange(k) * 10**9
    order = ["B", "X", "A"]
    whole = Dense(times=times, tags=np.arange(3, dtype=np.int32), values=values, quality=quality)

    schema = arrow.dense_schema(order, quality=True, dtype=pa.from_numpy_dtype(values.dtype))
    dense, rejected = sent(names, arrow.dense_batch(schema, times, values, quality))
    assert isinstance(dense, Dense)
    assert dense.tags.tolist() == [1, 0]
    assert dense.values.tobytes() == np.ascontiguousarray(values[:, [0, 2]]).tobytes()
    assert dense.quality.tobytes() == np.ascontiguousarray(quality[:, [0, 2]]).tobytes()
    unknown = int(whole.present()[:, 1].sum())
    assert rejected == unknown

    frame = whole.long()
    long, rejected = sent(names, arrow.long_batch(frame.times, frame.tags, order, frame.values, frame.quality))
    known = frame.only(frame.tags != 1)
    assert isinstance(long, Frame)
    assert long.times.tobytes() == known.times.tobytes()
    assert long.tags.tolist() == np.array([1, -1, 0])[known.tags].tolist()
    assert long.values.tobytes() == known.values.tobytes()
    assert long.quality.tobytes() == known.quality.tobytes()
    assert rejected == unknown


def sent(names: Names, batch: pa.RecordBatch) -> tuple[Frame | Dense, int]:
    """Through a message."""
    found = [arrow.Frames(names).read(b) for b in arrow.batches(arrow.payload(batch))]
    assert len(found) == 1
    return found[0]


def test_plain_columns_of_other_libraries_are_understood(names: Names) -> None:
    batch = pa.record_batch(
        {"time": pa.array([ARRIVAL, ARRIVAL + 1]), "tag": ["A", "F"], "value": pa.array([1, None], pa.int32())}
    )
    frame, rejected = sent(names, batch)
    assert frame.tags.tolist() == [0, 2]
    assert frame.values[0] == 1.0
    assert np.isnan(frame.values[1])
    assert rejected == 0
    seconds = pa.record_batch({"time": pa.array([7], pa.timestamp("s")), "tag": ["A"], "value": [1.0]})
    assert sent(names, seconds)[0].times.tolist() == [7 * 10**9]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"tag": ["A"], "value": [1.0]}, "no column 'time'"),
        ({"time": [1], "value": [1.0]}, "no column 'tag'"),
        ({"time": ["x"], "tag": ["A"], "value": [1.0]}, "send a timestamp"),
        ({"time": [None], "tag": ["A"], "value": [1.0]}, "'time' has nulls|send a timestamp"),
        ({"time": [1], "tag": [None], "value": [1.0]}, "'tag'"),
        ({"time": [1], "tag": [1], "value": [1.0]}, "send text"),
        ({"time": [1], "tag": ["A"], "value": ["x"]}, "send float32"),
        ({"time": [1], "tag": ["A"], "value": [1.0], "quality": ["x"]}, "send uint8"),
        ({"time": [1], "tag": ["A"], "value": [1.0], "quality": [900]}, "beyond 255"),
        ({"time": [1], "value": pa.array([[1.0]], pa.list_(pa.float32(), 1))}, "metadata 'tags'"),
    ],
)
def test_batches_that_are_none_of_ours(names: Names, columns: dict[str, object], why: str) -> None:
    with pytest.raises(SourceError, match=why):
        sent(names, pa.record_batch(columns))


@pytest.mark.parametrize("tags", [b"{", b'"A"', b'["A", 3]', b'["A", "A"]', b'["A"]'])
def test_dense_names_that_do_not_fit(names: Names, tags: bytes) -> None:
    schema = arrow.dense_schema(["A", "B"]).with_metadata({b"tags": tags})
    with pytest.raises(SourceError, match="metadata"):
        sent(names, arrow.dense_batch(schema, np.array([1]), np.zeros((1, 2), np.float32)))


def test_a_message_that_is_no_arrow() -> None:
    for rubbish in (b"", b"{}", b"\x00" * 100, arrow.payload(pa.record_batch({"a": [1]}))[:40]):
        with pytest.raises(SourceError, match="no Arrow IPC stream"):
            arrow.batches(rubbish)
