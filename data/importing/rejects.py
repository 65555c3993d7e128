"""Rows and cells that could not be imported, each with line and reason, and the file that keeps them.

Bad input never loses good input: a reject is told and counted, the rest goes in.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 200
"""Characters of a reject's text that are kept."""
HEADER = ("line", "column", "reason", "text")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rejects:
    """What was left out; all have the same length n."""

    lines: NDArray[np.int64]
    """[n] line in the file, the first is 1; row of a table, the first is 1."""
    columns: Sequence[str]
    """[n] column of a cell; "" where the whole row was left out."""
    reasons: Sequence[str]
    text: Sequence[str]
    """[n] what stood there."""

    def __len__(self) -> int:
        return len(self.lines)

    @classmethod
    def of(cls, lines: NDArray[np.int64], column: str, reason: str, text: Sequence[Any]) -> Rejects:
        """Rejects of one column for one reason."""
        n = len(lines)
        shown = ["" if t is None else str(t)[:LONGEST] for t in text]
        return cls(lines=lines, columns=[column] * n, reasons=[reason] * n, text=shown)

    @classmethod
    def joined(cls, parts: Iterable[Rejects]) -> Rejects:
        """All of them, by line."""
        kept = [part for part in parts if len(part)]
        lines = np.concatenate([part.lines for part in kept]) if kept else np.zeros(0, np.int64)
        order = np.argsort(lines, kind="stable").tolist()
        columns = [c for part in kept for c in part.columns]
        reasons = [r for part in kept for r in part.reasons]
        text = [t for part in kept for t in part.text]
        return cls(
            lines=lines[order],
            columns=[columns[i] for i in order],
            reasons=[reasons[i] for i in order],
            text=[text[i] for i in order],
        )

    def after(self, line: int) -> Rejects:
        """Those behind a line."""
        at = np.flatnonzero(self.lines > line).tolist()
        return Rejects(
            lines=self.lines[at],
            columns=[self.columns[i] for i in at],
            reasons=[self.reasons[i] for i in at],
            text=[self.text[i] for i in at],
        )


class RejectsFile:
    """The rejects of one source as CSV, appended to in the order of lines; made at the first reject."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, after: int) -> None:
        """Forget rejects behind line `after`: those an import wrote that died before its readings were durable."""
        if not self.path.exists():
            return
        body = self.path.read_bytes()
        end = 0
        for raw in io.BytesIO(body):  # one record a line: line ends inside are escaped; a torn one has none
            line = raw.split(b",", 1)[0]
            if not raw.endswith(b"\n") or (line.isdigit() and int(line) > after):
                break
            end += len(raw)
        if end < len(body):
            os.truncate(self.path, end)

    def append(self, rejects: Rejects) -> None:
        """Add rejects, durably."""
        if not len(rejects):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self.path.exists() or not self.path.stat().st_size:
            writer.writerow(HEADER)
        texts = (map(_one_line, column) for column in (rejects.columns, rejects.reasons, rejects.text))
        writer.writerows(zip(rejects.lines.tolist(), *texts, strict=True))
        with self.path.open("ab") as file:
            file.write(text.getvalue().encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n").replace("\0", "\\0")
