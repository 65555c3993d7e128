"""Compiled code of one Triton folder for another: a server that lives for a minute must not compile for ten seconds.

Numba names the folder of what it has compiled by the path of the source, and judges what lies there by the source's
content. So a copy under the other path's name is found; where a numba names it otherwise it compiles again.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from penstock.serving.repository import ENGINE

KERNELS = "kernels"


def carry_over(source: Path, target: Path) -> None:
    """Copy what the server on `source` has compiled to where one on `target` will look; nothing where there is none.

    Both are a site's ``triton`` folder or one like it. Raises OSError.
    """
    compiled = _kept(source.absolute())
    if compiled.is_dir():
        shutil.copytree(compiled, _kept(target.absolute()))


def _kept(folder: Path) -> Path:
    engine = folder / "models" / ENGINE / "1"
    return folder / KERNELS / f"{engine.name}_{hashlib.sha1(str(engine).encode()).hexdigest()}"
