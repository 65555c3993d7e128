"""Which versions of what computes are installed here: part of where a model comes from."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

NAMES = ("numpy", "keras", "tensorflow", "onnxruntime")


@cache
def library_versions() -> dict[str, str]:
    """By name; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
