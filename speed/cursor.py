"""How far a sink has been fed, durable: what was acknowledged is not sent again after a restart but for the newest.

A file per sink below ``speed/sinks``. It may lie behind what was acknowledged, never ahead of it.
"""

from __future__ import annotations

import json
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
        self._kept = self.tick = self._read()
        """The newest tick that is acknowledged; None: the sink is new."""

    def move(self, tick: int) -> None:
        """All up to `tick` is acknowledged."""
        self.tick = tick

    def keep(self) -> None:
        """Make it durable. Raises SiteError."""
        if self.tick == self._kept:
            return
        aside = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_durably(aside, json.dumps({"tick": self.tick}).encode())
            aside.replace(self._file)
            sync_folder(self._file.parent)
        except OSError as error:
            raise SiteError(f"{self._file}: cannot be written: {error}; check disk and rights") from error
        self._kept = self.tick

    def _read(self) -> int | None:
        try:
            return int(json.loads(self._file.read_bytes())["tick"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            todo = "restore it, or remove it to send only what is said from now on"
            raise SiteError(f"{self._file}: cannot be read ({error}); {todo}") from error
