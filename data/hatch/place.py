"""Where a site's hatch is, and who needs it: a worker that sees the site's files reads them itself.

Whether it sees them is not asked by path: another machine may have a copy of the site at the same one. The process that
keeps a hatch puts a file with a random name into the site, which only its own user may read; who finds it is in this
very site, and as somebody who may read all of it. Knows nothing of sockets.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock.errors import SiteError

FOLDER = "records"
"""Under the site: the marks."""
_MARK = re.compile(r"mark-(\d+)-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hatch:
    """A value, so that it can travel to a worker."""

    address: str
    """host:port, as the workers reach it."""
    mark: str
    """Name of the file by which the site is known; another one for each time that a hatch is opened."""


def outside(archive: Path, hatch: Hatch | None) -> Hatch | None:
    """The hatch, where this process must go to it; None where it reads the files of the archive's site itself.

    Raises SiteError where it cannot read them and there is no hatch.
    """
    site = archive.parent
    if hatch is not None and not os.access(site / FOLDER / hatch.mark, os.R_OK | os.W_OK):
        return hatch
    if os.access(archive, os.R_OK | os.X_OK):
        return None
    raise SiteError(
        f"{site}: a Dask worker, user {_user()} on {socket.gethostname()}, cannot read the site; run the workers as "
        "its owner where it can be seen, or give Dask TLS, and the workers fetch what they need: dask.scheduler = "
        '"tls://..." with ca_file, cert_file and key_file in site.toml'
    )


@contextmanager
def marked(site: Path) -> Iterator[str]:
    """A mark in the site while the block runs: its name. Raises SiteError when it cannot be written."""
    folder = site / FOLDER
    path = folder / f"mark-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        folder.mkdir(exist_ok=True)
        _forget(folder)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise SiteError(f"{folder}: cannot be written: {error}; check disk and rights") from error
    try:
        yield path.name
    finally:
        with suppress(OSError):
            path.unlink()


def _forget(folder: Path) -> None:
    """Marks of processes that were killed."""
    for path in folder.iterdir():
        match = _MARK.fullmatch(path.name)
        if match and not psutil.pid_exists(int(match[1])):
            path.unlink(missing_ok=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        return str(os.getuid())
