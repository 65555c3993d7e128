"""Neither data nor network: `penstock demo` says SIMULATED and works.

1. The code stands in a folder of its own, with no data beside it, and every way out leads nowhere.
2. `penstock demo` looks for the gas turbine, says what it lacks, and runs the simulated station.
3. Nothing is lost, the models beat persistence, and report and site say what they are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from demo_runs import MARK

from penstock.serving.provision import provision

ROOT = Path(__file__).parents[2]
TICKS = 600


def alone(folder: Path) -> dict[str, str]:
    """The package copied into `folder`; the environment of a process that knows only it, and no network.

    Triton's own files are fetched before, so that nothing but the data is lacking.
    """
    shutil.copytree(ROOT / "lambda", folder / "penstock")
    for name in ("data", "batch", "speed", "serving"):
        shutil.copytree(ROOT / name, folder / "penstock" / name)
    provision()
    nowhere = "http://127.0.0.1:9"
    kept = {name: value for name, value in os.environ.items() if name != "PENSTOCK_DATASETS"}
    kept |= {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(folder), MARK: "simulated"}
    return kept | {"https_proxy": nowhere, "http_proxy": nowhere, "no_proxy": "localhost,127.0.0.1"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Report and standard error of the demo."""
    folder = tmp_path_factory.mktemp("alone")
    words = ["demo", "--site", "site", "--headless", "--ticks", str(TICKS), "--epochs", "3", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        cwd=folder, env=alone(folder), capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told, run.stderr


def test_it_says_what_it_lacks_and_that_it_is_simulated(demo: tuple[dict[str, Any], str]) -> None:
    report, errors = demo
    assert "gas-turbine data: not in" in errors
    assert "SIMULATED instead of gas-turbine" in errors
    assert report["simulated"] is True
    assert report["plant"] == "simulated"
    assert Path(report["site"]).name == "site-simulated"


def test_nothing_is_lost(demo: tuple[dict[str, Any], str]) -> None:
    report, _ = demo
    assert report["readings_sent"] == report["readings_archived"] == (60 * 1440 + TICKS) * 80
    assert report["readings_lost"] == report["failed_requests"] == 0
    assert report["ticks"] == TICKS


def test_its_models_learn(demo: tuple[dict[str, Any], str]) -> None:
    report, _ = demo
    assert set(report["models"]) == {"power.U001", "power.U002", "nox.U001", "nox.U002"}
    for name, row in report["models"].items():
        assert row["rmse"] < row["persistence_rmse"], name
