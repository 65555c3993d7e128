"""A live version asked about history, in large requests, from whatever process computes it: a Dask worker, for one.

So what is recomputed has the arithmetic of what is said live. Whoever asks has another way where nobody answers here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.models import Artifact
from penstock.data.scoring import Ask
from penstock.errors import ServingError
from penstock.serving.pool import Pool
from penstock.serving.score import Score

Float32 = NDArray[np.float32]
Answered = Callable[[Float32], Float32 | None]
DEADLINE_S = 20.0
"""Of one request: nobody waits for a tick here, and the engine may have others before it."""
_here = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """Where live versions are asked; a value, so that it can travel to a worker."""

    endpoints: tuple[str, ...]

    @contextmanager
    def __call__(self, artifact: Artifact) -> Iterator[Answered]:
        """The function from [n, T, F] to [n, O] of this version; None where it is not live, or nobody answers."""
        score = _score(self.endpoints)

        def ask(windows: Float32) -> Float32 | None:
            try:
                known = (m for m in score.members() if (m.name, m.version) == (artifact.name, artifact.version))
                member = next(known, None)
                if member is None:
                    return None
                (said,) = score.score([Ask(member=member, windows=windows)])
            except ServingError:
                return None
            return said.values if said.version == artifact.version else None

        yield ask


def _score(endpoints: tuple[str, ...]) -> Score:
    """One per thread, kept: a block more costs no connection and no list of members."""
    kept: tuple[tuple[str, ...], Pool, Score] | None = getattr(_here, "kept", None)
    if kept is not None and kept[0] == endpoints:
        return kept[2]
    if kept is not None:
        kept[1].close()
    pool = Pool(endpoints, deadline_s=DEADLINE_S)
    _here.kept = (endpoints, pool, Score(pool))
    return _here.kept[2]  # type: ignore[no-any-return]
