"""penstock: LSTM models on plant history, hosted on Triton, predicting live.

This module runs before every other one of the package, so it imports nothing
heavy; `penstock.open` loads the rest on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.version import VERSION as __version__

if TYPE_CHECKING:
    from penstock.site import Site, open

__all__ = ["Site", "__version__", "open"]


def __getattr__(name: str) -> Any:
    if name in {"Site", "open"}:
        from penstock import site

        return getattr(site, name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")
