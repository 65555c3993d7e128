"""CSV files as blocks of text columns with line numbers; a malformed row costs nobody but itself.

pyarrow parses block by block. A stray quote would make it swallow the lines up
to the next quote, so a block that has quotes is parsed line by line instead:
ten times slower, and the same wherever the blocks are cut.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from penstock.data.importing.rejects import Rejects
from penstock.data.importing.text_encoding import UTF8, UTF16, Recoded, decoded, encoding_of, known_encoding
from penstock.errors import SourceError

DELIMITERS = ",;\t|"
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_LONGEST_LINE = 1 << 28
_LOOK_BYTES = 4 << 20
"""Looked at for the encoding."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Rows as they were read: nothing is converted yet."""

    columns: list[Any]
    """Arrow arrays, one per column of the source: text from CSV, any type from tables."""
    lines: NDArray[np.int64]
    """[n] line or row number, ascending; the first is 1."""
    malformed: Rejects
    """Rows that are none."""
    end: int
    """Number of the last line or row that was read."""
    done: int
    """Of `total`: bytes of a text, rows of a table."""
    total: int | None
    """None where it is not known."""


class CsvFile:
    """A CSV file: its header's names, and its rows in blocks."""

    def __init__(self, path: Path, *, delimiter: str | None, block_bytes: int, encoding: str | None = None) -> None:
        """Reads the header. `encoding` None: told from the beginning. Raises SourceError when there is no header."""
        self.path = path
        self.block_bytes = block_bytes
        self.guessed = encoding is None
        try:
            self.encoding = _beginning(path) if encoding is None else known_encoding(encoding)
            with self._stream() as stream:
                first = next(iter(self._blocks(stream)), b"")
                unknown = path.suffix.lower() in COMPRESSED or self.encoding == UTF16
                self.size = None if unknown else path.stat().st_size
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error
        before, line = _first_line(first.removeprefix(_BOM))
        if not line.strip():
            raise SourceError(f"{path}: is empty; the first line must name the columns, time and tags")
        self.header_line = before + 1
        text = decoded(line, guessed=self.guessed).rstrip("\r")
        self.delimiter = delimiter or max(DELIMITERS, key=text.count)
        self.names = tuple(name.strip() for name in next(csv.reader([text], delimiter=self.delimiter)))
        if len(self.names) < 2:
            raise SourceError(
                f"{path}: one column only, {text[:80]!r}; the first line must name the columns, and delimiter="
                " tells what parts them"
            )

    def rows(self, after: int) -> Iterator[Rows]:
        """The rows in order; blocks that end at line `after` or before are passed over."""
        line = 0
        consumed = 0
        try:
            with self._stream() as stream:
                for block in self._blocks(stream):
                    count, consumed = block.count(b"\n"), consumed + len(block)
                    if line + count > max(after, self.header_line):
                        yield self._parsed(block, line, count, min(consumed, self.size or consumed))
                    line += count
        except (OSError, pa.ArrowException) as error:
            raise SourceError(
                f"{self.path}: cannot be read behind line {line} ({error}); what came before is imported"
            ) from error

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        """The file's bytes as UTF-8."""
        with pa.input_stream(str(self.path), compression="detect") as raw:
            yield raw if self.encoding == UTF8 else Recoded(raw, self.encoding)

    def _blocks(self, stream: Any) -> Iterator[bytes]:
        """Whole lines, about `block_bytes` at a time; the last line gets a newline if it has none."""
        parts: list[bytes] = []
        held = 0
        while data := stream.read(self.block_bytes):
            cut = data.rfind(b"\n") + 1
            if cut:
                yield b"".join([*parts, data[:cut]])
                parts, held = [], 0
            parts.append(data[cut:])
            held += len(data) - cut
            if held > _LONGEST_LINE:
                raise SourceError(f"{self.path}: a line of more than {_LONGEST_LINE >> 20} MiB; is it a CSV file?")
        if rest := b"".join(parts):
            yield rest + b"\n"

    def _parsed(self, block: bytes, line: int, count: int, done: int) -> Rows:
        """Columns of the lines line+1 .. line+count, the header left out."""
        skip = max(0, self.header_line - line)
        if skip:
            block = block.split(b"\n", skip)[-1]
        first, n = line + skip, count - skip
        columns, bad = (None if b'"' in block or not n else self._fast(block, n)) or self._slow(block)
        right = np.ones(n, bool)
        right[[number - 1 for number, _, _ in bad]] = False
        lines = first + 1 + np.flatnonzero(right)
        malformed = Rejects.joined(
            Rejects.of(np.array([first + number], np.int64), "", reason, [text]) for number, reason, text in bad
        )
        filled = _filled(columns, len(lines))
        if not filled.all():
            columns = [column.filter(pa.array(filled)) for column in columns]
        return Rows(
            columns=columns, lines=lines[filled], malformed=malformed, end=line + count, done=done, total=self.size
        )

    def _fast(self, block: bytes, n: int) -> tuple[list[Any], list[tuple[int, str, str]]] | None:
        """pyarrow's parse; None when it saw other lines than we (a carriage return inside one)."""
        bad: list[tuple[int, str, str]] = []

        def note(row: Any) -> str:
            bad.append((row.number, self._count_reason(row.actual_columns), row.text))
            return "skip"

        keys = [str(i) for i in range(len(self.names))]
        table = (
            pacsv.read_csv(
                pa.BufferReader(block),
                read_options=pacsv.ReadOptions(use_threads=False, column_names=keys, block_size=len(block) + 1),
                parse_options=pacsv.ParseOptions(
                    delimiter=self.delimiter,
                    quote_char=False,
                    ignore_empty_lines=False,
                    invalid_row_handler=note,
                ),
                convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(keys, pa.binary())),
            )
            if n
            else pa.table({key: pa.array([], pa.binary()) for key in keys})
        )
        if table.num_rows + len(bad) != n:
            return None
        return [self._decoded(column.combine_chunks()) for column in table.columns], bad

    def _slow(self, block: bytes) -> tuple[list[Any], list[tuple[int, str, str]]]:
        """Line by line; a quote that is not closed on its line rejects that line alone."""
        rows: list[list[str]] = []
        bad: list[tuple[int, str, str]] = []
        for number, raw in enumerate(block.split(b"\n")[:-1], 1):
            text = decoded(raw, guessed=self.guessed).rstrip("\r")
            try:
                cells = next(csv.reader([text], delimiter=self.delimiter, strict=True), [])
            except csv.Error as error:
                bad.append((number, f"broken quotes ({error})", text))
                continue
            if cells and len(cells) != len(self.names):
                bad.append((number, self._count_reason(len(cells)), text))
            else:
                rows.append(cells or [""] * len(self.names))
        return [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [
            pa.array([], pa.string()) for _ in self.names
        ], bad

    def _decoded(self, column: Any) -> Any:
        """Bytes -> text; of bytes that are no text only their cell is bad."""
        try:
            return column.cast(pa.string())
        except pa.ArrowInvalid:
            return pa.array([decoded(raw, guessed=self.guessed) for raw in column.to_pylist()], pa.string())

    def _count_reason(self, actual: int) -> str:
        return f"{actual} columns, the header has {len(self.names)}"


def _beginning(path: Path) -> str:
    """The encoding that the first bytes tell."""
    with pa.input_stream(str(path), compression="detect") as raw:
        return encoding_of(raw.read(_LOOK_BYTES))


def first_lines(path: Path, most: int) -> list[str]:
    """The first lines of a text, at most `most` of them. Raises SourceError when it cannot be read."""
    try:
        encoding = _beginning(path)
        with pa.input_stream(str(path), compression="detect") as raw:
            head = bytes(raw.read(1 << 20))
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read ({error}); give the path of a CSV file") from error
    return head.decode(encoding, "replace").removeprefix("\ufeff").splitlines()[:most]


def _first_line(block: bytes) -> tuple[int, bytes]:
    """(empty lines before it, the first line that is not empty)."""
    for number, line in enumerate(block.split(b"\n", 1000)[:1000]):
        if line.strip():
            return number, line
    return 0, b""


def _filled(columns: list[Any], n: int) -> NDArray[np.bool_]:
    """[n] false for lines with nothing in them."""
    blank = np.ones(n, bool)
    for column in columns:
        if not blank.any():
            break
        blank &= pc.equal(pc.utf8_trim_whitespace(column), "").to_numpy(zero_copy_only=False)
    return ~blank
