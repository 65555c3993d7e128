"""A piece cut out of what Blosc compressed, so that the rest need not be decompressed.

Blosc compresses in blocks that know nothing of each other, and says in front where each begins: 16 bytes (version,
version of the compressor, flags, size of an item, then bytes, bytes of a block, compressed bytes as uint32), and
the blocks' places as uint32 (c-blosc, README_CHUNK_FORMAT.rst). A frame of some of them is one of Blosc's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEADER = 16
VERSION = 2
STORED = 0x02
"""Flag of a frame whose bytes were copied, as they could not be made smaller."""
Bytes = NDArray[np.uint8]


def part(frame: Bytes, begin: int, end: int) -> tuple[Bytes, int, int]:
    """(frame, first, last): one that holds at least the bytes begin..end-1 of what `frame` holds, and which ones.

    It is `frame` itself where nothing can be left out, or where blocks do not lie in order, as several threads
    leave them. Whoever calls has checked that the bytes are what was written.
    """
    if len(frame) < HEADER:
        return frame, 0, 0
    size, block, _ = frame[4:HEADER].view("<u4").tolist()
    whole = frame, 0, size
    if frame[0] != VERSION or not block or not 0 <= begin < end <= size:
        return whole
    count, last = -(-size // block), -(-end // block)
    first = min(begin // block, max(size // block - 1, 0))  # never a short last block alone: Blosc refuses it
    low, high = first * block, min(last * block, size)
    if last - first == count:
        return whole
    if frame[2] & STORED:
        return _frame(frame, high - low, frame[:0], frame[HEADER + low : HEADER + high]), low, high
    table = frame[HEADER : HEADER + 4 * count].view("<u4").astype(np.int64)
    if bool((np.diff(table) < 0).any()):
        return whole
    body = frame[table[first] : table[last] if last < count else len(frame)]
    places = (table[first:last] - table[first] + HEADER + 4 * (last - first)).astype("<u4")
    return _frame(frame, high - low, places.view(np.uint8), body), low, high


def _frame(frame: Bytes, size: int, places: Bytes, body: Bytes) -> Bytes:
    made = np.concatenate([frame[:HEADER], places, body])
    numbers = made[4:HEADER].view("<u4")
    numbers[0], numbers[2] = size, len(made)
    return made
