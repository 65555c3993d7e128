"""Tags from a file: CSV or Parquet, a row per tag, up to millions of them.

Columns are those of plant.toml's tag tables, except that a range is the two
columns `low` and `high`, and several `aliases` are separated by ";". A whole
column is converted at once: what repeats (units, durations) is parsed once.
"""

from __future__ import annotations

import dataclasses
import gc
from collections import deque
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock.data.durations import DURATION, RATE, parse_duration, parse_rate
from penstock.data.plant import Tag
from penstock.data.plants.tables import Mistakes, near_name, shown
from penstock.data.plants.tag_table import DTYPES, JOINS, KINDS, REPORTS

FILE_COLUMNS = (
    "name",
    "unit",
    "description",
    "kind",
    "dtype",
    "low",
    "high",
    "rate",
    "flat_after",
    "max_gap",
    "substitute",
    "truth_delay",
    "ahead",
    "join",
    "join_delay",
    "reports",
    "heartbeat",
    "scale",
    "offset",
    "expr",
    "valid",
    "aliases",
)


def read_tag_file(path: Path, mistakes: Mistakes) -> list[Tag]:
    """The tags of a file in row order; names may still repeat. What cannot be read is noted in `mistakes`."""
    table = _table(path, mistakes)
    if table is None:
        return []
    names = [str(c) for c in table.column_names]
    for column in names:
        if column not in FILE_COLUMNS or names.count(column) > 1:
            what = "an unknown column" if column not in FILE_COLUMNS else "a column that is there twice"
            mistakes.add(f"column {column}", what, ", ".join(FILE_COLUMNS), near_name(column, FILE_COLUMNS))
    if "name" not in names:
        mistakes.add("column name", "nothing", "a column with each tag's name")
        return []
    kept = [i for i, c in enumerate(names) if c in FILE_COLUMNS and names.index(c) == i]
    return _tags(_Columns(table.select(kept), mistakes))


def _table(path: Path, mistakes: Mistakes) -> Any:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path)
        header = pacsv.open_csv(path).schema.names
        texts = pacsv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True)
        return pacsv.read_csv(path, convert_options=texts)
    except FileNotFoundError:
        mistakes.add("tags.file", f'"{path.name}"', "a file beside plant.toml: this one is missing")
    except (pa.ArrowException, OSError) as error:
        allowed = f"a .csv or .parquet file that can be read ({str(error).splitlines()[0][:160]})"
        mistakes.add("tags.file", f'"{path.name}"', allowed)
    return None


class _Columns:
    """The file's columns, converted one by one; wrong cells are noted with their line."""

    def __init__(self, table: Any, mistakes: Mistakes) -> None:
        self.table = table
        self.mistakes = mistakes
        self.rows = int(table.num_rows)

    def _wrong(self, column: str, row: int, value: object, allowed: str, near: str | None = None) -> None:
        self.mistakes.add(f"line {row + 2}, column {column}", shown(value), allowed, near)

    def parsed(self, column: str, parse: Callable[[str], Any], allowed: str, default: Any) -> list[Any]:
        """Each distinct text parsed once; `default` where the cell is empty or wrong."""
        if column not in self.table.column_names:
            return [default] * self.rows
        coded = pc.dictionary_encode(pc.cast(self.table[column], pa.string())).combine_chunks()
        texts, codes = coded.dictionary.to_pylist(), coded.indices
        at: NDArray[np.int64] = pc.fill_null(codes, len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)
        values: list[Any] = []
        for code, text in enumerate(texts):
            try:
                values.append(parse(text) if text.strip() else default)
            except ValueError:
                values.append(default)
                for row in np.flatnonzero(at == code)[:20]:
                    self._wrong(column, int(row), text, allowed)
        values.append(default)
        return [values[i] for i in at.tolist()]

    def texts(self, column: str, one_of: tuple[str, ...] = (), default: str = "") -> list[str]:
        """Texts, one of `one_of` where that is given."""

        def known(text: str) -> str:
            if one_of and text not in one_of:
                raise ValueError(text)
            return text

        allowed = "one of " + ", ".join(f'"{o}"' for o in one_of)
        return self.parsed(column, known, allowed, default)

    def numbers(self, column: str, default: float | None) -> list[float | None]:
        """Finite numbers."""
        return self.parsed(column, _finite, "a number", default)

    def ranges(self) -> list[tuple[float, float] | None]:
        """(low, high), where both are given."""
        found: list[tuple[float, float] | None] = []
        for row, (low, high) in enumerate(zip(self.numbers("low", None), self.numbers("high", None), strict=True)):
            if low is None and high is None:
                found.append(None)
            elif low is not None and high is not None and low < high:
                found.append((low, high))
            else:
                self._wrong("low", row, f"{low}..{high}", "low below high, both or neither")
                found.append(None)
        return found

    def names(self) -> list[str]:
        """Tag names, none of them empty."""
        names: list[str] = pc.fill_null(pc.cast(self.table["name"], pa.string()), "").to_pylist()
        if "" in names:
            self._wrong("name", names.index(""), "", "a tag name that is not empty")
        return names


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError(text)
    return value


def _rate(text: str) -> float:
    value = parse_rate(text) if "/" in text else _finite(text)
    if value <= 0:
        raise ValueError(text)
    return value


def _nonzero(text: str) -> float:
    if _finite(text) == 0:
        raise ValueError(text)
    return float(text)


def _aliases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _tags(columns: _Columns) -> list[Tag]:
    heartbeats = columns.parsed("heartbeat", parse_duration, DURATION, None)
    for row, reports in enumerate(columns.texts("reports", REPORTS)):
        if reports == "on change" and heartbeats[row] is None:
            columns._wrong("heartbeat", row, "", f'{DURATION}, as it reports = "on change"')
    fields: dict[str, list[Any]] = {
        "name": columns.names(),
        "unit": columns.texts("unit"),
        "description": columns.texts("description"),
        "kind": columns.texts("kind", KINDS, "value"),
        "dtype": columns.texts("dtype", DTYPES, "float32"),
        "range": columns.ranges(),
        "rate": columns.parsed("rate", _rate, RATE, None),
        "flat_after_ns": columns.parsed("flat_after", parse_duration, DURATION, None),
        "max_gap_ns": columns.parsed("max_gap", parse_duration, DURATION, 0),
        "substitute": columns.numbers("substitute", None),
        "truth_delay_ns": columns.parsed("truth_delay", parse_duration, DURATION, 0),
        "ahead_ns": columns.parsed("ahead", parse_duration, DURATION, 0),
        "join": columns.texts("join", JOINS, "last"),
        "join_delay_ns": columns.parsed("join_delay", parse_duration, DURATION, 0),
        "heartbeat_ns": heartbeats,
        "scale": columns.parsed("scale", _nonzero, "a number that is not 0", 1.0),
        "offset": columns.numbers("offset", 0.0),
        "expr": [text or None for text in columns.texts("expr")],
        "valid": [text or None for text in columns.texts("valid")],
        "aliases": columns.parsed("aliases", _aliases, 'names separated by ";"', ()),
    }
    return _built(fields)


def _built(fields: dict[str, list[Any]]) -> list[Tag]:
    """Tag objects from columns, field by field through the slots: `Tag(...)` a million times takes 3 s more.

    Without the collector, which would walk the growing million again and again.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        tags = [Tag.__new__(Tag) for _ in fields["name"]]
        for field in dataclasses.fields(Tag):
            column = fields.get(field.name) or repeat(field.default)
            deque(map(getattr(Tag, field.name).__set__, tags, column), maxlen=0)
        return tags
    finally:
        if collecting:
            gc.enable()
