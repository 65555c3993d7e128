"""What a demo leaves the newcomer with: the page that stays, and three commands to try next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock.courses import COURSES
from penstock.data.simulator_station import NAME as SIMULATED
from penstock.page_process import PageProcess
from penstock.screen import ERR


class Showing:
    """The demo's page: opened once the site has something to show, gone when the block ends."""

    def __init__(self) -> None:
        self._page: PageProcess | None = None

    def open(self, site: Path) -> None:
        """Start it and say where it is. Raises SiteError."""
        self._page = PageProcess(site)
        ERR.print(f"watch it: {self._page.address}", style="bold", markup=False, soft_wrap=True)

    def stay(self) -> None:
        """Until Ctrl-C, where somebody sits at a terminal; a script goes on."""
        if self._page is not None and sys.stdout.isatty():
            ERR.print(f"the page stays at {self._page.address} until Ctrl-C", markup=False, soft_wrap=True)
            self._page.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._page is not None:
            self._page.close()


def next_commands(report: Mapping[str, Any]) -> list[str]:
    """Three commands that can be pasted as they are: look at it, ask it, judge it."""
    site = _short(Path(report["site"]))
    model, course = next(iter(report["models"])), COURSES[SIMULATED if report["simulated"] else report["plant"]]
    return [
        f"{_command()} page --site {site}",
        f"{_command()} query {model} --site {site} --start -24h",
        f"{_command()} compare {model} --site {site} --start {course.seam}",
    ]


def _command() -> str:
    """How this program is called from here: without an activated environment it is not on the PATH."""
    called = Path(sys.argv[0])
    if called.name != "penstock":
        return f"{_short(Path(sys.executable))} -m penstock"
    found = shutil.which("penstock")
    return "penstock" if found is not None and Path(found).samefile(called) else _short(called)


def _short(path: Path) -> str:
    """Relative to here where that is shorter."""
    near = os.path.relpath(path)
    return near if len(near) < len(str(path)) else str(path)
