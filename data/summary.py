"""What the readings of a period come to: count, least, largest, sum and sum of squares, per tag; they join with `+`.

    minutes   [ a ][ b ][ c ] ... [ z ]          a + b + ... + z  is bit for bit what all their readings give,
    hour      [          a + ... + z  ]          in any order and grouping: see `exact_sums` for the bound

Mean and std are computed from these when somebody asks, so that hours are made of minutes, and a late reading
changes its own period alone. Good and uncertain readings count; bad ones, such as are no finite number and such as
lie outside the tag's range do not. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.exact_sums import added, joined, product, spread
from penstock.data.frame import BAD, Float
from penstock.data.grid import PRESENT, STATUS, Cells

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summary:
    """Of the readings of one or several periods; all arrays have the same shape, [m] or [periods, m]."""

    count: NDArray[np.uint32]
    low: Float64
    """inf where there is no reading; `high` -inf."""
    high: Float64
    total: Float64
    """The sum, rounded to float64; with `total_rest` it is exact."""
    total_rest: Float64
    squares: Float64
    squares_rest: Float64

    @classmethod
    def empty(cls, *shape: int) -> Summary:
        """Of no readings: what changes nothing when it is added."""
        zeros = {name: np.zeros(shape) for name in ("total", "total_rest", "squares", "squares_rest")}
        return cls(
            count=np.zeros(shape, np.uint32), low=np.full(shape, np.inf), high=np.full(shape, -np.inf), **zeros
        )  # fmt: skip

    @classmethod
    def of(cls, cells: Cells, low: Float64, high: Float64) -> Summary:
        """[m] of a block of cells; `low`, `high` [m]: a tag's range, inclusive, as its dtype has it."""
        with np.errstate(invalid="ignore"):
            fit = (cells.values >= low) & (cells.values <= high)
        fit &= ((cells.quality & PRESENT) != 0) & ((cells.quality & STATUS) < BAD) & np.isfinite(cells.values)
        found = cls.empty(cells.values.shape[1])
        if not fit.any():
            return found
        for values, used in zip(cells.values, fit, strict=True):
            found = found._with(np.where(used, values, 0), used)
        return found

    def _with(self, row: Float, used: NDArray[np.bool_]) -> Summary:
        """One row more; 0 where it is not used."""
        values = row.astype(np.float64) + 0.0  # -0 is 0
        if row.dtype == np.float32:  # the square of 24 bits fits
            squares, squares_rest = added(self.squares, self.squares_rest, values * values)
        else:
            squares, squares_rest = joined(self.squares, self.squares_rest, *product(values, values))
        total, total_rest = added(self.total, self.total_rest, values)
        return Summary(
            count=self.count + used,
            low=np.where(used & (values < self.low), values, self.low),
            high=np.where(used & (values > self.high), values, self.high),
            total=total, total_rest=total_rest, squares=squares, squares_rest=squares_rest,
        )  # fmt: skip

    def __add__(self, other: Summary) -> Summary:
        """Of the readings of both, which have none in common."""
        total, total_rest = joined(self.total, self.total_rest, other.total, other.total_rest)
        squares, squares_rest = joined(self.squares, self.squares_rest, other.squares, other.squares_rest)
        return Summary(
            count=self.count + other.count,
            low=np.minimum(self.low, other.low), high=np.maximum(self.high, other.high),
            total=total, total_rest=total_rest, squares=squares, squares_rest=squares_rest,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, at: slice | int) -> Summary:
        """Some of the periods: views."""
        return Summary(**{name: array[at] for name, array in self.columns().items()})

    def only(self, at: NDArray[np.int64]) -> Summary:
        """Some of the tags, of a summary [m]."""
        return Summary(**{name: array[at] for name, array in self.columns().items()})

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The arrays by name, as they are stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def joined(self, n: int) -> Summary:
        """Each n periods as one; [periods, m], periods a multiple of n."""
        parts: Iterator[Summary] = (self[i::n] for i in range(n))
        return reduce(Summary.__add__, parts)

    @property
    def mean(self) -> Float64:
        """NaN where there is no reading."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.count)

    @property
    def std(self) -> Float64:
        """Of the population (ddof 0); NaN where there is no reading."""
        count = self.count.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = spread(count, self.total, self.total_rest, self.squares, self.squares_rest)
            return np.asarray(np.sqrt(np.maximum(apart, 0.0)) / count)
