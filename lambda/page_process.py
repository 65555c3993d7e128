"""`penstock page` as a process beside this one: its address once it answers, and its end.

It ends with whoever started it, kill -9 included: it watches its parent. What
it complains of goes to the site's ``logs/page.log``.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.errors import SiteError

START_S = 60.0
"""Panel's import takes two seconds, on a busy machine ten."""
STOP_S = 10.0


class PageProcess:
    """One page server; `with` ends it."""

    def __init__(self, site: Path, *, port: int = 0) -> None:
        """Start it and wait for its address. Raises SiteError when there is none within START_S."""
        self._log = site / "logs" / "page.log"
        self._log.parent.mkdir(exist_ok=True)
        words = [sys.executable, "-m", "penstock", "page", "--site", str(site), "--port", str(port), "--with-parent"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self.address = self._first_line().removeprefix("page: ").strip()
            """Where the browser finds it."""
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def wait(self) -> None:
        """Until it ends; Ctrl-C, which a terminal sends to both, is one way to end it."""
        try:
            self._process.wait()
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """End it, in order if it can."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        until, said = time.monotonic() + START_S, b""
        while not said.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise SiteError(f"the page did not start within {START_S:g} s; see {self._log}")
            part = self._process.stdout.read1()  # type: ignore[attr-defined]  # a buffered reader
            if not part:
                raise SiteError(f"the page did not start; the end of {self._log} says: {_tail(self._log)}")
            said += part
        return said.decode()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"
