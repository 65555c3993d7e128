"""The engine's modules as this machine keeps them: once for all its sites, with what numba compiles of them.

Triton gets one file that imports them from here. So a new site, or a new start, compiles nothing, and nothing is
written below a served model's folder, where a file that appears makes the next load of an alias reload the engine.
"""

from __future__ import annotations

import hashlib
import os
import py_compile
import tempfile
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from penstock.errors import ServingError
from penstock.serving.provision import cache_folder

PACKAGE = "penstock_engine"
MODULES = (
    *("__init__.py", "model.py", "tick.py", "slots.py", "admission.py", "view.py", "golden.py", "host.py", "group.py"),
    *("forward.py", "tile.py", "kernel.py", "chains.py", "variants.py", "trials.py", "pieces.py", "bank.py"),
    *("streamed.py", "choices.py", "onnx_graph.py", "onnx_sessions.py", "solo_trials.py", "tuner.py", "durable.py"),
    *("solo.py", "isolated.py", "child.py", "guest.py", "link.py", "framing.py"),
)
ENTRY = '''"""What Triton loads. The engine itself lies where all sites of this machine share it."""

import sys

sys.path.insert(0, {home!r})

from {package}.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def engine_code(cache: Path | None = None) -> Path:
    """The folder of the package PACKAGE, for these very modules. Raises ServingError where there can be none.

    `cache` as for `provision`. A version of the engine has a folder of its own, which nobody changes.
    """
    source = files("penstock.serving.backend")
    modules = {name: source.joinpath(name).read_bytes() for name in MODULES}
    digest = hashlib.sha256(b"\0".join(modules.values())).hexdigest()
    home = cache_folder(cache) / "engine" / digest[:16]
    try:
        if not home.exists():
            home.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home.parent, prefix="new-", ignore_cleanup_errors=True) as place:
                _write(Path(place) / "code" / PACKAGE, modules)
                with suppress(OSError):  # another process was faster
                    os.rename(Path(place) / "code", home)
    except OSError as error:
        raise ServingError(f"{home}: cannot be written ({error}); set PENSTOCK_CACHE to a folder that can") from error
    return home


def compiled(home: Path) -> Path:
    """Where numba keeps what it has compiled of the modules in `home`."""
    return home / "kernels"


def entry(home: Path) -> str:
    """The model.py that Triton loads."""
    return ENTRY.format(home=str(home), package=PACKAGE)


def _write(folder: Path, modules: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in modules.items():
        (folder / name).write_bytes(content)
        py_compile.compile(str(folder / name), doraise=True)
