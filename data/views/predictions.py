"""What one layer has of one model: the columns that the batch view stores and the merge joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Predictions of one model, n rows by rising tick, gaps allowed."""

    ticks: NDArray[np.int64]
    """[n] ticks at which the predictions are made."""
    values: NDArray[np.float32]
    """[n, O] in the targets' units; NaN where withheld."""
    versions: NDArray[np.int64]
    """[n] model version; 0 where nothing answered."""
    reasons: NDArray[np.uint8]
    """[n] `windows.Reason`"""
    filled: NDArray[np.bool_]
    """[n] the window holds a carried or substituted input."""
    sample: NDArray[np.bool_]
    """[n] the tick lies in the training span of the version that spoke."""

    @classmethod
    def nothing(cls, outputs: int) -> Self:
        """No rows of `outputs` targets."""
        return cls(
            ticks=np.zeros(0, np.int64),
            values=np.zeros((0, outputs), np.float32),
            versions=np.zeros(0, np.int64),
            reasons=np.zeros(0, np.uint8),
            filled=np.zeros(0, np.bool_),
            sample=np.zeros(0, np.bool_),
        )

    @classmethod
    def of(cls, parts: Sequence[Predictions]) -> Self:
        """The rows of one or more parts, one behind the other."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays by field name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def rows(self, cut: slice) -> Predictions:
        """Some of the rows."""
        return Predictions(**{name: array[cut] for name, array in self.columns().items()})

    def between(self, first: int, last: int) -> Predictions:
        """The rows with first <= tick < last."""
        return self.rows(slice(*np.searchsorted(self.ticks, [first, last])))

    def then(self, other: Predictions) -> Predictions:
        """These rows, then those of `other`."""
        mine, theirs = self.columns(), other.columns()
        return Predictions(**{name: np.concatenate([mine[name], theirs[name]]) for name in COLUMNS})


COLUMNS = tuple(field.name for field in fields(Predictions))
"""Names of the columns, `ticks` first."""
