"""What was removed by `prune`, told to whoever asks for it: an error, or a mark beside what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from penstock.answers import Desk
    from penstock.errors import PenstockError
    from penstock.site import Site


def refuse_pruned(site: Site, stop_ns: int, error: type[PenstockError]) -> None:
    """Raises `error` where all readings before `stop_ns` were removed."""
    pruned = site.readings.head().pruned
    if pruned is not None and stop_ns <= site.readings.grid.time(pruned):
        raise error(f"{site.folder}: readings were pruned before {_when(site, pruned)}; ask for later ones")


def marks(desk: Desk) -> dict[str, str]:
    """Attributes of an answer: `pruned`, `pruned_said`: readings, and what was said, before were removed (UTC)."""
    found = {"pruned": desk.archive.head().pruned, "pruned_said": _forgotten(desk)}
    return {key: str(np.datetime64(desk.grid.time(t), "ns")) for key, t in found.items() if t is not None}


def pruned_at(site: Site, tick: int) -> bool:
    """Whether readings of that tick were removed."""
    pruned = site.readings.head().pruned
    return pruned is not None and tick < pruned


def _forgotten(desk: Desk) -> int | None:
    view = desk.speed()
    if view is None:
        return None
    try:
        return view.forgotten()
    finally:
        view.close()


def _when(site: Site, tick: int) -> Any:
    return pd.Timestamp(site.readings.grid.time(tick), tz="UTC").tz_convert(site.plant.timezone)
