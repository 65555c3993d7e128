"""The archive rebuilt and read without a line of penstock: numpy for the source, zarr for the arrays.

Cells are hours; a reading on the hour has offset 0. Quality: low byte the
source's status (0 is good), 0x100 where there is a reading, 0x200 where it was late.
"""

from __future__ import annotations

from pathlib import Path

import icechunk
import numpy as np
import zarr
from demo_runs import TAGS, first_tick, source_values

PRESENT, LATE = 0x0100, 0x0200


def stored(site: Path, tags: int = TAGS) -> dict[int, tuple[bytes, bytes, bytes]]:
    """{tick: (value, quality, offset) bytes of its `tags` tags} of every tick that holds a reading."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(site / "archive")))
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    length = int(root.attrs["segment_ticks"])  # type: ignore[arg-type]
    rows: dict[int, tuple[bytes, bytes, bytes]] = {}
    for path, _ in root.members(max_depth=None):
        if not path.endswith("/quality"):
            continue
        segment = path.rpartition("/")[0]
        begin = int(segment.rpartition(".")[2]) * length
        value, quality, offset = (np.asarray(root[f"{segment}/{name}"][...]) for name in ("value", "quality", "offset"))
        for row in np.flatnonzero((quality & PRESENT).any(axis=1)):
            rows[begin + int(row)] = tuple(a[row, :tags].tobytes() for a in (value, quality, offset))  # type: ignore[assignment]
    return rows


def rebuilt(spans: list[tuple[int, int, int]], late: range = range(0)) -> dict[int, tuple[bytes, bytes, bytes]]:
    """The same from the source: `spans` are (year, first row, last row), `late` are ticks that came late."""
    rows: dict[int, tuple[bytes, bytes, bytes]] = {}
    for year, first, last in spans:
        values = source_values(year)
        for row in range(first, min(last, len(values))):
            tick = first_tick(year) + row
            quality = PRESENT | (LATE if tick in late else 0)
            rows[tick] = (
                values[row].tobytes(),
                np.full(TAGS, quality, np.uint16).tobytes(),
                np.zeros(TAGS, np.uint32).tobytes(),
            )
    return rows


def check_equal(site: Path, spans: list[tuple[int, int, int]], late: range = range(0)) -> None:
    """Byte for byte."""
    have, want = stored(site), rebuilt(spans, late)
    assert sorted(have) == sorted(want)
    different = [tick for tick in want if have[tick] != want[tick]]
    assert not different, f"{len(different)} ticks differ, the first {different[0]}"
