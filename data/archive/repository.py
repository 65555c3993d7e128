"""The edge to icechunk and Zarr: a repository in a local folder, and how its arrays lie.

    <period_ns>/<dtype>/open.<segment>/{value, quality, offset}     wide chunks, few ticks: being written
    <period_ns>/<dtype>/closed.<segment>/{value, quality, offset}   long chunks, few tags, tag after tag: being read

Axes are [tick in segment, tag among the tags of its dtype]. A segment has a fixed number of ticks and
its arrays have them all from the start: ticks not yet written are chunks that do not exist. Foreign
errors end here. This file knows nothing of readings, journals and merging.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import icechunk
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec
from zarr.core.sync import sync

from penstock.data.grid import Grid
from penstock.errors import ArchiveError

CHECKSUM = Crc32cCodec()
ARRAYS = {"value": np.nan, "quality": 0, "offset": 0}
"""The arrays of a segment and what an empty cell holds."""
DTYPES = ("float32", "float64")
BRANCH = "main"
SEGMENT_NS = (366 * 86_400_000_000_000, 31 * 86_400_000_000_000, 86_400_000_000_000, 3_600_000_000_000)
"""A year, a month, a day, an hour: the longest that stays within SEGMENT_TICKS."""
SEGMENT_TICKS = 600_000
OPEN_CELLS = 1 << 19
"""Cells of a chunk of an open segment."""
OPEN_TICKS = (60, 512)
OPEN_TAGS = (64, 8192)
CLOSED_TICKS = 8192
CLOSED_TAGS = (8, 64)
CLOSED_BLOCK = 1 << 15
"""Times the bytes of an item: what Blosc compresses by itself, four tags of a closed chunk. It need not decode more."""
SPLIT_CHUNKS = 64
"""Chunks along time per manifest: a commit rewrites one manifest, not all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentName:
    """Where a segment's arrays lie."""

    dtype: str
    index: int
    """Ticks index * segment_ticks .. (index + 1) * segment_ticks - 1."""
    closed: bool

    def path(self, period_ns: int) -> str:
        """Path of the group in the repository."""
        return f"{period_ns}/{self.dtype}/{'closed' if self.closed else 'open'}.{self.index}"


def segment_ticks(period_ns: int) -> int:
    """Ticks of a segment: a year of them for periods from a minute up, less for shorter ones."""
    fitting = (ns // period_ns for ns in SEGMENT_NS)
    return max(next((n for n in fitting if n <= SEGMENT_TICKS), SEGMENT_TICKS), 1)


def open_chunks(ticks: int, tags: int) -> tuple[int, int]:
    """Chunk shape of an open segment of `ticks` by `tags`."""
    wide = min(max(1 << (max(tags, 1) - 1).bit_length(), OPEN_TAGS[0]), OPEN_TAGS[1])
    long = min(max(OPEN_CELLS // wide, OPEN_TICKS[0]), OPEN_TICKS[1])
    return min(long, ticks), wide


def closed_chunks(ticks: int, tags: int) -> tuple[int, int]:
    """Chunk shape of a closed segment of `ticks` by `tags`."""
    wide = min(max(1 << (max(tags, 1) - 1).bit_length(), CLOSED_TAGS[0]), CLOSED_TAGS[1])
    return min(CLOSED_TICKS, ticks), wide


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn what icechunk, Zarr and the disk say into ArchiveError."""
    try:
        yield
    except icechunk.IcechunkError as error:
        text = str(error).strip().splitlines()
        hint = "; free the disk and repeat" if "No space left" in str(error) else ""
        raise ArchiveError(f"{folder}: {text[0].strip(' x') if text else 'icechunk failed'}{hint}") from error
    except (ValueError, KeyError) as error:  # Zarr's own errors, and its checksum codec's, are these
        raise ArchiveError(f"{folder}: damaged ({error}); restore it from a copy") from error
    except (OSError, RuntimeError) as error:
        raise ArchiveError(f"{folder}: cannot be read or written ({error}); look after the disk") from error


def bounded() -> icechunk.RepositoryConfig:
    """What any repository of a site is opened with: it remembers less of the commits that it has seen.

    Each commit has a snapshot and manifests of its own, and icechunk would keep 25 and 15 times as many of them: a
    stream, which commits every few seconds, would grow for days.
    """
    config = icechunk.RepositoryConfig.default()
    config.caching = icechunk.CachingConfig(num_snapshot_nodes=20_000, num_chunk_refs=1_000_000)
    return config


def repository(folder: Path, *, create: bool) -> icechunk.Repository:
    """The icechunk repository in `folder`; with `create` a new one where there is none.

    Raises ArchiveError when there is none.
    """
    # Its one warning is that two committers at once lose commits; the committer's lock sees to that.
    icechunk.set_logs_filter("error")
    with translated(folder):
        storage = icechunk.local_filesystem_storage(str(folder))
        if not create and not icechunk.Repository.exists(storage):
            raise ArchiveError(f"{folder}: holds no archive; create the site first")
        along_time = ((icechunk.ManifestSplitDimCondition.DimensionName("time"), SPLIT_CHUNKS),)
        split = ((icechunk.ManifestSplitCondition.AnyArray(), along_time),)
        config = bounded()
        config.manifest = icechunk.ManifestConfig(splitting=icechunk.ManifestSplittingConfig(split))
        opener = icechunk.Repository.open_or_create if create else icechunk.Repository.open
        return opener(storage, config=config)


def make_segment(root: zarr.Group, grid: Grid, name: SegmentName, tags: int, ticks: int) -> None:
    """Create the (empty) arrays of a segment.

    lz4, because it decodes several times faster than zstd; a closed segment is as small with it as with zstd, since a
    tag's cells lie together there (docs/benchmarks.md, "What a closed segment's form decides"). Segments that older
    versions closed are zstd, a tick's cells together: each array says itself how it lies.
    """
    chunks = closed_chunks(ticks, tags) if name.closed else open_chunks(ticks, tags)
    level, block = (5, CLOSED_BLOCK) if name.closed else (1, 0)
    packed = BloscCodec(cname="lz4", clevel=level, shuffle="shuffle", blocksize=block)
    for array, fill in ARRAYS.items():
        root.create_array(
            f"{name.path(grid.period_ns)}/{array}",
            shape=(ticks, tags),
            chunks=chunks,
            dtype={"value": name.dtype, "quality": "uint16", "offset": "uint32"}[array],
            fill_value=fill,
            filters=[TransposeCodec(order=(1, 0))] if name.closed else None,
            compressors=[packed, CHECKSUM],
            dimension_names=["time", "tag"],
        )


def opened(store: Any, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """The root group of a session's store. The format is said: Zarr would look for an older one as well."""
    return zarr.open_group(store, mode=mode, zarr_format=3)


def segments(root: zarr.Group, grid: Grid) -> dict[tuple[str, int], SegmentName]:
    """The segments that a snapshot holds, by dtype and index."""
    found: dict[tuple[str, int], SegmentName] = {}
    for dtype, keys in zip(DTYPES, sync(_listed(root.store, grid)), strict=True):
        for key in keys:
            state, _, index = key.partition(".")
            if state in ("open", "closed"):
                found[dtype, int(index)] = SegmentName(dtype=dtype, index=int(index), closed=state == "closed")
    return found


async def _listed(store: Any, grid: Grid) -> list[list[str]]:
    """Names below the groups of DTYPES."""
    return [[key async for key in store.list_dir(f"{grid.period_ns}/{dtype}")] for dtype in DTYPES]


def sync_filesystem(folder: Path) -> None:
    """Make everything written under `folder` durable: neither Zarr nor icechunk calls fsync."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise ArchiveError(f"{folder}: the disk refused to sync: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)
