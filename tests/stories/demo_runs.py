"""Running `penstock` as a user does, and the source files read with numpy alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from penstock.data.plants.datasets import gas_turbine_folder
from penstock.errors import SourceError

MARK = "PENSTOCK_STORY"
"""An environment variable that every process of a story inherits: how leftovers are found."""
TAGS = 11


def gas_turbine() -> Path | None:
    """The folder of the publisher's files, None where they cannot be had."""
    try:
        return gas_turbine_folder()
    except SourceError:
        return None


def penstock(*words: str, mark: str = "story", deadline_s: float = 400.0) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        capture_output=True,
        text=True,
        timeout=deadline_s,
        env={**os.environ, MARK: mark},
        check=False,
    )


def answer(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object of a command that ended well."""
    assert run.returncode == 0, run.stderr[-4000:]
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


def demo_words(site: Path, ticks: int, epochs: int, rate: float | None = None) -> list[str]:
    words = ["demo", "--plant", "gas-turbine", "--site", str(site), "--headless", "--json"]
    words += ["--ticks", str(ticks), "--epochs", str(epochs)]
    return words + ([] if rate is None else ["--rate", str(rate)])


def source_values(year: int) -> np.ndarray:
    """[rows, 11] float32, straight from the publisher's file."""
    folder = gas_turbine()
    assert folder is not None
    return np.loadtxt(folder / f"gt_{year}.csv", delimiter=",", skiprows=1, dtype=np.float64).astype(np.float32)


def first_tick(year: int) -> int:
    """Hours since 1970 of a year's first hour."""
    return int(np.datetime64(f"{year}-01-01T00", "h").astype(np.int64))
