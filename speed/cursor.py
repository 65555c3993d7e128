"""How far a sink has been fed, durable: what was acknowledged is not sent again after a restart but for the newest.

A file per sink below ``speed/sinks``. It may lie behind what was acknowledged, never ahead of it. What feeds the sink
may note more beside the tick.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from penstock.data.durable import sync_folder, write_durably
from penstock.errors import SiteError

BEFORE = -(2**63)
"""Before any tick."""


class Cursor:
    """Of one sink."""

    def __init__(self, folder: Path, name: str) -> None:
        """Raises SiteError where the file cannot be read."""
        self._file = folder / f"{name}.json"
        self._kept = self._now = self._read()

    @property
    def tick(self) -> int | None:
        """The newest tick that is acknowledged; None: the sink is new."""
        tick = self._now.get("tick")
        return None if tick is None else int(tick)

    @property
    def more(self) -> Mapping[str, int | str]:
        """What was noted beside it."""
        return {name: value for name, value in self._now.items() if name != "tick"}

    def move(self, tick: int, **more: int | str) -> None:
        """All up to `tick` is acknowledged; `more` is noted beside it."""
        self._now = {"tick": tick, **more}

    def keep(self) -> None:
        """Make it durable. Raises SiteError."""
        if self._now == self._kept:
            return
        aside = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_durably(aside, json.dumps(self._now).encode())
            aside.replace(self._file)
            sync_folder(self._file.parent)
        except OSError as error:
            raise SiteError(f"{self._file}: cannot be written: {error}; check disk and rights") from error
        self._kept = self._now

    def _read(self) -> Mapping[str, int | str]:
        try:
            found = json.loads(self._file.read_bytes())
            return {**found, "tick": int(found["tick"])}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            todo = "restore it, or remove it to send only what is said from now on"
            raise SiteError(f"{self._file}: cannot be read ({error}); {todo}") from error
