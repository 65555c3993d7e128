"""What an import may load: the layer rule and the light client."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["tensorflow", "keras", "dask", "distributed", "streamz", "tritonclient", "panel", "hvplot", "numba"]


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import penstock",
        "import pkgutil, importlib, penstock.data as d; "
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(d.__path__, 'penstock.data.')]",
    ],
)
def test_data_layer_is_light(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_the_pool_needs_no_tensorflow_and_no_dask() -> None:
    assert loaded_by("import penstock.serving.pool") <= {"tritonclient"}


def test_the_check_can_fail() -> None:
    assert loaded_by("import dask") == {"dask"}
