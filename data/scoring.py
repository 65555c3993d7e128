"""What the speed layer asks of a scorer and what it is told: values, no transport.

The speed layer is given something that follows `Scoring`; it never learns
whether Triton, a test or a remote service stands behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.data.windows import WindowSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A deployed model as the engine holds it."""

    name: str
    version: int
    slot: int
    """Its place in the engine; changes with every deploy."""
    spec: WindowSpec
    """How its windows are cut."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """Windows for one member."""

    member: Member
    windows: NDArray[np.float32]
    """[n, T, F] in engineering units."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """What one member answered."""

    values: NDArray[np.float32]
    """[n, O] in the targets' units; NaN throughout when nothing answered."""
    version: int
    """The version that spoke; -1 when nothing answered."""


class Scoring(Protocol):
    """What `pipeline.py` hands to the speed layer."""

    def members(self) -> tuple[Member, ...]:
        """The models that answer now; the same tuple until that changes.

        Free of any request right after a `score` that was answered: that has told whether something moved.
        """

    def score(self, asks: Sequence[Ask]) -> Sequence[Said]:
        """One answer per ask, in order, from one request.

        A member that has gone meanwhile is answered with version -1. Raises
        ServingError when no answer came at all.
        """
