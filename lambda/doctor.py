"""`penstock doctor`: what this machine and this site have, what is wrong, and what to do. Changes nothing.

A check is a function that gives one Finding; a site that is broken is looked at as far as it goes. Opening a Site
would register tags and cut the journal's tail, so its parts are looked at one by one instead.
"""

from __future__ import annotations

import json
import platform
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from penstock.check import check_place
from penstock.data.archive import Archive
from penstock.data.registry import Registry
from penstock.errors import PenstockError
from penstock.serving.provision import cached, on_path
from penstock.serving.triton import Triton
from penstock.settings import migrated
from penstock.site_toml import read_settings
from penstock.speed.process import occupied
from penstock.up import record

State = Literal["ok", "wrong"]

GLIBC = (2, 35)
"""What the Triton that is fetched was built against."""
PYTHONS = ((3, 11), (3, 13))
"""First and last Python with a stub in that Triton."""
MEMORY_GIB, DISK_GIB, SHM_MIB = 4.0, 2.0, 64.0
"""Least: TensorFlow in three processes; Triton, its log and some snapshots; Triton's python backend."""
GIB, MIB = 1 << 30, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    check: str
    state: State
    what: str
    todo: str = ""


def examine(place: Path | None = None) -> list[Finding]:
    """Findings about the machine, and about the site in `place`; None: the machine alone."""
    findings = [check() for check in (_system, _python, _versions, _memory, _disk_here, _shared, _ports, _triton)]
    return findings if place is None else findings + list(_site(place))


def _found(check: str, fine: bool, what: str, todo: str) -> Finding:
    return Finding(check=check, state="ok" if fine else "wrong", what=what, todo="" if fine else todo)


def _system() -> Finding:
    name, release = platform.libc_ver()
    numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
    fine = platform.machine() == "x86_64" and name == "glibc" and numbers >= GLIBC
    what = f"{platform.system()} {platform.machine()}, {name or 'unknown libc'} {release}".strip()
    return _found(
        "system", fine, what, f"needs x86_64 and glibc {GLIBC[0]}.{GLIBC[1]}, or triton.endpoints in site.toml"
    )


def _python() -> Finding:
    low, high = PYTHONS
    fine = low <= sys.version_info[:2] <= high
    todo = f"use Python {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return _found("python", fine, platform.python_version(), todo)


def _versions() -> Finding:
    """Installed packages against what penstock asks for, extras that are installed included."""
    wrong = [text for line in requires("penstock") or [] if (text := _mismatch(Requirement(line)))]
    return _found(
        "packages", not wrong, f"penstock {version('penstock')}" + (f"; {'; '.join(wrong)}" if wrong else ""),
        "pip install -c constraints.txt 'penstock[site]'",
    )  # fmt: skip


def _mismatch(wanted: Requirement) -> str:
    """Why a requirement is not met; empty where it is, or where only another extra wants it."""
    needed = wanted.marker is None or wanted.marker.evaluate({"extra": "site"})
    try:
        have = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is missing" if needed else ""
    if wanted.specifier.contains(have, prereleases=True):
        return ""
    return f"{wanted.name} {have}, wanted {wanted.specifier}"


def _memory() -> Finding:
    free, total = (size / GIB for size in (psutil.virtual_memory().available, psutil.virtual_memory().total))
    return _found(
        "memory", free >= MEMORY_GIB, f"{free:.1f} of {total:.1f} GiB free",
        f"at least {MEMORY_GIB:g} GiB; end other programs, or dask.workers = 1 in site.toml",
    )  # fmt: skip


def _disk_here() -> Finding:
    return _disk("disk", Path.cwd())


def _disk(check: str, place: Path) -> Finding:
    free = shutil.disk_usage(place).free / GIB
    return _found(check, free >= DISK_GIB, f"{free:.1f} GiB free", f"at least {DISK_GIB:g} GiB: make room at {place}")


def _shared() -> Finding:
    place = Path("/dev/shm")
    if not place.is_dir():
        return _found("/dev/shm", False, "is missing", "mount a tmpfs there")
    free = shutil.disk_usage(place).free / MIB
    return _found(
        "/dev/shm", free >= SHM_MIB, f"{free:.0f} MiB free", "Triton needs 64 MiB; in a container: --shm-size=256m"
    )


def _ports() -> Finding:
    """Triton, Dask and pages take whatever port is free on 127.0.0.1."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            probe.listen(1)
            port = probe.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=2.0):
                return _found("ports", True, f"free ones on 127.0.0.1, such as {port}", "")
    except OSError as error:
        return _found("ports", False, f"none on 127.0.0.1: {error}", "let local connections through")


def _triton() -> Finding:
    try:
        installed = on_path() or cached()
    except PenstockError as error:
        return _found("tritonserver", False, str(error), "see there")
    if installed is None:  # no fault: the first deploy fetches it
        return Finding(check="tritonserver", state="ok", what="not here yet; the first deploy fetches it (55 MB)")
    fine = installed.server.exists()
    return _found("tritonserver", fine, str(installed.server), "remove that cache; the next deploy fetches it again")


def _site(place: Path) -> Iterator[Finding]:
    """What can be said of a site without changing it; later lines need earlier ones."""
    if not place.is_dir():
        yield _found("site", False, f"{place}: no such folder", f"penstock init {place}")
        return
    checks: tuple[tuple[str, Callable[[Path], str], str], ...] = (
        ("site.json", _format, "restore it from a copy, or: penstock init ANOTHER"),
        ("site.toml", _settings, "correct site.toml"),
        ("plant.toml", _plant, f"penstock check {place} tells each place"),
        ("tags", _tags, "restore tags.sqlite from a copy"),
        ("archive", _archive, "restore archive/ from a copy; the journal brings in what came later"),
        ("journal", _journal, "restore journal/ from a copy"),
        ("models", _models, "restore models/registry.sqlite from a copy"),
        ("locks", _locks, ""),
    )
    for name, check, todo in checks:
        try:
            yield Finding(check=name, state="ok", what=check(place))
        except (PenstockError, OSError, sqlite3.Error, ValueError) as error:
            yield _found(name, False, " ".join(str(error).split()) or type(error).__name__, todo)
    yield _disk("site's disk", place)


def _format(place: Path) -> str:
    state = json.loads((place / "site.json").read_text("utf-8"))
    if not isinstance(state, dict):
        raise ValueError(f"{place / 'site.json'}: holds no object")
    migrated(state, place)  # it raises for a format that this penstock does not know
    return f"format {state['format']}, {state.get('shards')} shards, made {state.get('created')}"


def _settings(place: Path) -> str:
    settings = read_settings(place / "site.toml")
    for address in settings.triton.endpoints:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=2.0).close()
        except OSError as error:
            raise OSError(f"triton.endpoints: nothing answers at {address} ({error})") from error
    return "Triton and Dask by address" if settings.triton.endpoints else "Triton of its own"


def _plant(place: Path) -> str:
    plant = check_place(place / "plant.toml")
    return f"{plant.name}: {len(plant.tags)} tags, {len(plant.models)} models, {plant.timezone}"


def _tags(place: Path) -> str:
    _exists(place / "tags.sqlite")
    _whole(place / "tags.sqlite")
    return f"{len(Registry.open(place / 'tags.sqlite'))} registered"


def _archive(place: Path) -> str:
    head = Archive.open(place / "archive").head()
    return f"snapshot {head.snapshot}, ticks {head.span[0]}..{head.span[1]}, journal position {head.position}"


def _journal(place: Path) -> str:
    """Looked at from outside: opening it would cut a torn tail, which is the next command's to do."""
    folder = place / "journal"
    _exists(folder / "tail")
    _whole(folder / "ledger.sqlite")
    segments = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size >= MIB]
    return f"{len(segments)} segments, {sum(p.stat().st_size for p in segments) / MIB:.0f} MiB"


def _models(place: Path) -> str:
    _whole(place / "models" / "registry.sqlite")
    names = [path for path in (place / "models").glob("*/*/card.json") if path.is_file()]
    return f"{len(names)} versions"


def _locks(place: Path) -> str:
    running = Triton.running(place / "triton")
    held = ["a stream"] if occupied(place / "speed") else []
    held += ["penstock up"] if record.alive(place) else []
    held += [f"Triton at {running.endpoint}"] if running is not None else []
    return f"held by {' and '.join(held)}" if held else "none is held"


def _exists(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")


def _whole(path: Path) -> None:
    """SQLite's own check, read only; a file that is not there yet is whole. Raises sqlite3.Error."""
    if not path.exists():
        return
    connection = sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True, timeout=5.0)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        connection.close()
    if found != "ok":
        raise sqlite3.DatabaseError(f"{path} is damaged: {found}")
