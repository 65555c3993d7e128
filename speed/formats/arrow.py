"""Arrow record batches as readings, and the other way: the format for volume.

Long: columns ``time`` (timestamp, or int64 ns UTC), ``tag`` (text, best as a dictionary), ``value`` (float32 or
float64; null is NaN) and, where wanted, ``quality`` (uint8, OPC-like: 0 good, 64 uncertain, 128 bad). Dense: ``time``,
``value`` as a fixed-size list with a place per tag, ``quality`` likewise, and the tags' names in the schema's metadata
under ``tags``, a JSON list. No Python object per reading: names are looked up once per dictionary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.data.frame import Float, Readings
from penstock.errors import SourceError
from penstock.speed.formats.names import Names

TAGS = b"tags"
"""Key of the schema's metadata that holds the names of dense frames."""
NS = pa.timestamp("ns", "UTC")
KEPT = 64
"""Dictionaries whose names are remembered."""


class Frames:
    """Reads one source's batches."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[bytes, list[str]] = {}
        self._told: tuple[bytes, list[str]] = (b"", [])
        """The newest dense schema's names: to compare them is less than to look them up."""
        self._newest: tuple[pa.Array, list[str]] | None = None
        """The dictionary of the newest long batch: a stream sends it once, and it stays where it lies."""

    def names(self, schema: pa.Schema) -> list[str] | None:
        """The tags' names of a stream of dense batches; None where they stand in the batches. Raises SourceError."""
        told = (schema.metadata or {}).get(TAGS)
        if told is None:
            return None
        if told == self._told[0]:
            return self._told[1]
        found = self._known.get(told)
        names = found if found is not None else self._remember(told, _json_names(told))
        self._told = told, names
        return names

    def read(self, batch: pa.RecordBatch, names: list[str] | None = None) -> tuple[Readings, int]:
        """(readings, how many were rejected). Raises SourceError for a batch that is none of ours.

        `names`: what `names` says of its schema, where the caller knows it: a million names take their time.
        """
        missing = [name for name in ("time", "value") if name not in batch.schema.names]
        if missing:
            raise SourceError(f"Arrow: no column {missing[0]!r} among {', '.join(batch.schema.names) or 'none'}")
        times = _times(batch.column("time"))
        if pa.types.is_fixed_size_list(batch.schema.field("value").type):
            return self._dense(batch, times, self.names(batch.schema) if names is None else names)
        if "tag" not in batch.schema.names:
            raise SourceError("Arrow: no column 'tag', and 'value' is no fixed-size list; send one or the other")
        return self._long(batch, times)

    def _long(self, batch: pa.RecordBatch, times: NDArray[np.int64]) -> tuple[Readings, int]:
        column = batch.column("tag")
        if not pa.types.is_dictionary(column.type):
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise SourceError(f"Arrow: column 'tag' is {column.type}; send text, best dictionary-encoded")
            column = column.dictionary_encode()
        if column.null_count:
            raise SourceError("Arrow: column 'tag' has nulls; every reading needs its tag's name")
        at = _plain(column.indices)
        quality = _quality(batch, len(times))
        return self._names.long(times, at, self._texts(column.dictionary), _numbers(batch.column("value")), quality)

    def _dense(self, batch: pa.RecordBatch, times: NDArray[np.int64], names: list[str] | None) -> tuple[Readings, int]:
        if names is None:
            raise SourceError("Arrow: a dense batch whose schema has no metadata 'tags' (a JSON list of names)")
        column = batch.column("value")
        if column.type.list_size != len(names):
            raise SourceError(f"Arrow: rows of {column.type.list_size} values, but {len(names)} tags in the metadata")
        shape = (len(times), len(names))
        values = _numbers(column.flatten()).reshape(shape)
        quality = _dense_quality(batch, shape)
        return self._names.dense(times, names, values, quality)

    def _texts(self, dictionary: pa.Array) -> list[str]:
        """The names of a dictionary; the same bytes are turned into Python text once."""
        newest = self._newest
        if newest is not None and (_same(newest[0], dictionary) or newest[0].equals(dictionary)):
            return newest[1]
        key = b"".join(bytes(b) for b in dictionary.buffers() if b is not None)
        found = self._known.get(key)
        names = found if found is not None else self._remember(key, dictionary.to_pylist())
        self._newest = dictionary, names
        return names

    def _remember(self, key: bytes, names: list[str]) -> list[str]:
        while len(self._known) >= KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[key] = names
        return names


def _same(a: pa.Array, b: pa.Array) -> bool:
    """Whether two arrays are one, byte for byte in the same place; both are alive, so no place is used twice."""
    places = [[(each.address, each.size) if each else None for each in array.buffers()] for array in (a, b)]
    return len(a) == len(b) and a.offset == b.offset and places[0] == places[1]


def payload(batch: pa.RecordBatch) -> bytes:
    """One message: an Arrow IPC stream of one batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def batches(message: bytes | memoryview) -> list[pa.RecordBatch]:
    """The batches of a message. Raises SourceError where it is no Arrow IPC stream."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(message)) as reader:
            return list(reader)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"no Arrow IPC stream: {_first_line(error)}") from None


def long_batch(
    times: NDArray[np.int64], at: NDArray[np.integer], names: Sequence[str], values: Float,
    quality: NDArray[np.uint8] | None = None,
) -> pa.RecordBatch:  # fmt: skip
    """Readings [n] of tags `names` [at], at `times` (ns UTC)."""
    tag = pa.DictionaryArray.from_arrays(pa.array(at.astype(np.int32)), pa.array(list(names), pa.string()))
    columns = {"time": pa.array(times).cast(NS), "tag": tag, "value": pa.array(values)}
    if quality is not None:
        columns["quality"] = pa.array(quality)
    return pa.RecordBatch.from_pydict(columns)


def dense_schema(names: Sequence[str], *, quality: bool = False, dtype: pa.DataType | None = None) -> pa.Schema:
    """Of rows that hold a value of each of `names`; `quality`: with a status each; `dtype`: of values, else float32."""
    fields = [pa.field("time", NS), pa.field("value", pa.list_(dtype or pa.float32(), len(names)))]
    if quality:
        fields.append(pa.field("quality", pa.list_(pa.uint8(), len(names))))
    return pa.schema(fields, metadata={TAGS: json.dumps(list(names)).encode()})


def dense_batch(
    schema: pa.Schema, times: NDArray[np.int64], values: Float, quality: NDArray[np.uint8] | None = None
) -> pa.RecordBatch:
    """Rows [k, m] under a schema of `dense_schema`."""
    columns = [pa.array(times).cast(NS), _rows_of(values, schema.field("value").type)]
    if quality is not None:
        columns.append(_rows_of(quality, schema.field("quality").type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _rows_of(block: NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(block).reshape(-1), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _times(column: pa.Array) -> NDArray[np.int64]:
    if column.null_count:
        raise SourceError("Arrow: column 'time' has nulls; every reading needs its time")
    if pa.types.is_timestamp(column.type):
        column = (column if column.type.unit == "ns" else pc.cast(column, NS)).view(pa.int64())
    if column.type != pa.int64():
        raise SourceError(f"Arrow: column 'time' is {column.type}; send a timestamp, or int64 ns UTC")
    return np.asarray(_plain(column), np.int64)


def _numbers(column: pa.Array) -> Float:
    """float32 or float64 [n]; null is NaN."""
    if column.type == pa.float32():
        return np.asarray(_plain(column), np.float32)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
        raise SourceError(f"Arrow: column 'value' is {column.type}; send float32 or float64")
    return np.asarray(_plain(column if column.type == pa.float64() else column.cast(pa.float64())), np.float64)


def _quality(batch: pa.RecordBatch, n: int) -> NDArray[np.uint8]:
    if "quality" not in batch.schema.names:
        return np.zeros(n, np.uint8)
    return _status(batch.column("quality"))


def _dense_quality(batch: pa.RecordBatch, shape: tuple[int, int]) -> NDArray[np.uint8]:
    if "quality" not in batch.schema.names:
        return np.zeros(shape, np.uint8)
    flat = _status(batch.column("quality").flatten())
    if flat.size != shape[0] * shape[1]:
        raise SourceError(f"Arrow: {flat.size} statuses for {shape[0] * shape[1]} values; send one each")
    return flat.reshape(shape)


def _status(column: pa.Array) -> NDArray[np.uint8]:
    if not pa.types.is_integer(column.type):
        raise SourceError(f"Arrow: column 'quality' is {column.type}; send uint8: 0 good, 64 uncertain, 128 bad")
    try:
        column = column.fill_null(0) if column.null_count else column
        return np.asarray(_plain(column if column.type == pa.uint8() else column.cast(pa.uint8())), np.uint8)
    except pa.ArrowInvalid:
        raise SourceError("Arrow: column 'quality' goes beyond 255; 0 is good, 64 uncertain, 128 bad") from None


def _plain(column: pa.Array) -> NDArray[Any]:
    """Numbers, where they lie in the message; nulls are NaN.

    By hand where nothing is null: `to_numpy` takes three times as long, and imports pandas when it is first called.
    """
    if column.null_count or not len(column):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    dtype = np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def _json_names(told: bytes) -> list[str]:
    try:
        names = json.loads(told)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise SourceError("Arrow: metadata 'tags' is no JSON list of names, each once")
    return names


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
