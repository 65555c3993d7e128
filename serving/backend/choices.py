"""What `penstock optimize` chose, kept over restarts: `variants.json` in the state folder, an entry per group and solo.

An entry counts on the processor and with the libraries that it was measured with, and nowhere else. Runs inside
Triton, imports nothing of penstock.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import durable

FILE = "variants.json"
LIBRARIES = ("tensorflow", "numba", "onnxruntime")


def chosen(folder: Path, key: str) -> dict[str, Any] | None:
    """What was chosen on this machine; None: nothing was, or elsewhere."""
    found: dict[str, Any] | None = _read(folder).get(key)
    return found if found and found["machine"] == machine() else None


def remember(folder: Path, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Write a choice down: variant, tolerance, members, table and what else is told; what was written."""
    written = {"machine": machine(), **entry}
    durable.write(folder / FILE, json.dumps(_read(folder) | {key: written}).encode())
    return written


def machine() -> str:
    """Processor and libraries that figures are of."""
    said = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    about = sorted({line for line in said if line.startswith(("model name", "flags"))})
    return " ".join([*map(_version, LIBRARIES), f"{zlib.crc32(repr(about).encode()):08x}"])


def _read(folder: Path) -> dict[str, Any]:
    """What is remembered; nothing where the file is none: it is measured again then."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _version(package: str) -> str:
    try:
        return f"{package}-{version(package)}"
    except PackageNotFoundError:
        return f"no-{package}"
