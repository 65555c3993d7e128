"""What stands beside a tick's predictions in the speed view: corrections, intervals, chances; the state behind them.

Tables of their own in the view's file, written in the transaction of the ticks themselves. A site whose models ask for
none of it has them empty, a penstock that does not know them passes them over, and a view made by one such has them
made when it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

SCHEMA = """
CREATE TABLE IF NOT EXISTS adjusted (
    tick INTEGER NOT NULL, fleet TEXT NOT NULL, corrections BLOB NOT NULL, lows BLOB NOT NULL, highs BLOB NOT NULL,
    chances BLOB NOT NULL, PRIMARY KEY (tick, fleet)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS adjusting (fleet TEXT PRIMARY KEY, tick INTEGER NOT NULL, state BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adjusted:
    """Beside the o values of a tick ([o]), or n ticks of one model ([n, o]); NaN where not asked for, or not known."""

    corrections: NDArray[np.float32]
    """To be added to the value: what was said is value, corrected is their sum in float32."""
    lows: NDArray[np.float32]
    highs: NDArray[np.float32]
    chances: NDArray[np.float32]
    """That the target will lie above its limit, 0 to 1."""

    @classmethod
    def nothing(cls, *shape: int) -> Adjusted:
        """NaN throughout."""
        return cls(**{name: np.full(shape, np.nan, np.float32) for name in COLUMNS})

    @classmethod
    def of_blobs(cls, blobs: Sequence[bytes]) -> Adjusted:
        """[o] the inverse of `blobs`."""
        return cls(**{name: np.frombuffer(blob, "<f4") for name, blob in zip(COLUMNS, blobs, strict=True)})

    def rows(self, cut: slice) -> Adjusted:
        """Some of the rows."""
        return Adjusted(**{name: getattr(self, name)[cut] for name in COLUMNS})

    def then(self, other: Adjusted) -> Adjusted:
        """These rows, then those of `other`."""
        return Adjusted(**{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS})

    def blobs(self) -> list[bytes]:
        """One per column of the table."""
        return [getattr(self, name).astype("<f4").tobytes() for name in COLUMNS]


COLUMNS = tuple(field.name for field in fields(Adjusted))


def gathered(found: Sequence[tuple[int, Sequence[bytes], tuple[int, int]]], n: int, width: int) -> Adjusted:
    """[n, width] of blobs by row: (row, its blobs, (first, one past the last) of the model's outputs in them)."""
    told = Adjusted.nothing(n, width)
    for row, blobs, (start, stop) in found:
        for name, blob in zip(COLUMNS, blobs, strict=True):
            getattr(told, name)[row, : stop - start] = np.frombuffer(blob, "<f4", stop - start, 4 * start)
    return told
