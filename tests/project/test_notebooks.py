"""The notebooks do what they say: executed in order in one folder, as a data scientist would, by a real kernel.

1. No output is kept in the repository: what a notebook shows comes from the run.
2. Each runs to its end on the real Triton and real workers; nothing is warned of, every plot is drawn.
3. A kernel and all that it started end with it.
4. Without the recorded data the first one says SIMULATED, and runs.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLOTS = {"01_plant_and_archive": 3, "02_train_compare_deploy_query": 1, "03_watch_a_live_stream": 2}
PLOT = "application/vnd.holoviews_exec.v0+json"
CELL_S = 240
"""Deadline of one cell: workers and Triton start in some of them."""
END_S = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them run: the later ones go on with the site of the first."""
    return tmp_path_factory.mktemp("notebooks")


def test_these_are_all() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(PLOTS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_stored(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], f"{path.name}: an output is stored; clear all of them"
            assert cell.execution_count is None, f"{path.name}: was saved after a run; clear all outputs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_to_its_end(path: Path, folder: Path) -> None:
    shown = outputs(executed(path, folder))
    assert [each["text"] for each in shown if each.get("name") == "stderr"] == []
    drawn = [each for each in shown if PLOT in each.get("data", {})]
    assert len([each for each in drawn if each["output_type"] == "execute_result"]) >= PLOTS[path.stem]
    assert left_behind(folder) == []


def test_without_the_data_it_says_simulated(tmp_path: Path) -> None:
    """The code stands in a folder with no data beside it, and every way out leads nowhere."""
    shutil.copytree(ROOT / "lambda", tmp_path / "penstock")
    for name in ("data", "batch", "speed", "serving"):
        shutil.copytree(ROOT / name, tmp_path / "penstock" / name)
    nowhere = "http://127.0.0.1:9"
    kept = {name: value for name, value in os.environ.items() if name != "PENSTOCK_DATASETS"}
    kept |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    shown = outputs(executed(NOTEBOOKS[0], tmp_path, kept | {"https_proxy": nowhere, "http_proxy": nowhere}))
    assert "SIMULATED plant instead" in "".join(each.get("text", "") for each in shown)


def executed(path: Path, folder: Path, env: Mapping[str, str] = os.environ) -> Any:
    """The notebook with what its cells put out; a cell that raises ends the test with its traceback."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=dict(env))
    return notebook


def outputs(notebook: Any) -> list[Any]:
    """Of all cells."""
    return [each for cell in notebook.cells if cell.cell_type == "code" for each in cell.outputs]


def left_behind(folder: Path) -> list[str]:
    """Processes that still work in `folder` a while after the kernel's end."""
    until = time.monotonic() + END_S
    while (found := [" ".join(words) for words in working_in(folder)]) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def working_in(folder: Path) -> list[list[str]]:
    """Command lines of processes whose working folder or words lie in `folder`."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        about = process.info
        words = about["cmdline"] or []
        inside = str(about["cwd"] or "").startswith(str(folder)) or any(str(folder) in word for word in words)
        if inside and about["status"] != psutil.STATUS_ZOMBIE:
            found.append(words)
    return found
