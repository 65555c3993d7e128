"""Every command explains itself, and a mistake ends with a remedy instead of a traceback."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.main import get_command

from penstock.cli import app
from penstock.screen import models_table
from penstock.standing import next_for

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def penstock(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", *words], capture_output=True, text=True, timeout=120, cwd=cwd
    )


def test_the_commands_are_these() -> None:
    wanted = {"init", "check", "import", "train", "deploy", "models", "tags", "stream", "query", "status", "demo"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_and_an_example(name: str) -> None:
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.help
    assert f"Example: penstock {name}" in command.help
    for option in command.params:
        assert option.name == "help" or getattr(option, "help", None), f"{name}: {option.name} has no help"


def test_init_check_models_tags_status_of_a_new_site(tmp_path: Path) -> None:
    made = penstock("init", "turbine", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout.splitlines()[-1])["tags"] == 11
    for words in (
        ["check", "turbine"],
        ["models", "-s", "turbine"],
        ["tags", "-s", "turbine"],
        ["status", "-s", "turbine"],
    ):
        run = penstock(*words, "--json", cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        json.loads(run.stdout.splitlines()[-1])


def test_a_mistake_is_named_with_its_remedy(tmp_path: Path) -> None:
    penstock("init", "turbine", cwd=tmp_path)
    run = penstock("train", "noxx", "-s", "turbine", cwd=tmp_path)
    assert run.returncode == 1
    assert "Did you mean 'nox'?" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_folder_that_is_no_site_says_what_to_do(tmp_path: Path) -> None:
    run = penstock("models", "-s", str(tmp_path))
    assert run.returncode == 1
    assert "penstock init" in run.stderr


PLANT = """
[plant]
name = "works"
period = "1min"
timezone = "Europe/Berlin"
[tags]
"O2 [mg/l]" = { unit = "mg/l" }
Flow = {}
[model.o2]
target = "O2 [mg/l]"
inputs = ["Flow"]
window = "3min"
"""
CSV = "Zeit (lokal);O2 [mg/l];Flow\n01.03.2025 10:00;1,5;7\n01.03.2025 10:01;2,5;8\n"
HOW = ("--time-column", "Zeit (lokal)", "--time-format", "%d.%m.%Y %H:%M", "--decimal", ",")


@pytest.fixture
def works(tmp_path: Path) -> Path:
    """A folder with a site, and a file as a German historian writes it."""
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "h.csv").write_text(CSV)
    assert penstock("init", "site", "--plant", "plant.toml", cwd=tmp_path).returncode == 0
    return tmp_path


def test_semicolons_decimal_commas_and_units_in_brackets(works: Path) -> None:
    run = penstock("import", "h.csv", "-s", "site", *HOW, "--json", cwd=works)
    assert (run.returncode, json.loads(run.stdout)["accepted"]) == (0, 4), run.stderr
    shown = penstock("tags", "O2 [mg/l]", "-s", "site", cwd=works).stdout.splitlines()
    assert len(shown) == 2
    assert "O2 [mg/l]  mg/l  2.5    2025-03-01T10:01:00+01:00" in shown[1]


def test_what_was_never_trained_is_not_to_be_deployed() -> None:
    assert next_for(["a", "b"], ["b"]) == "penstock train a; penstock deploy b"
    assert next_for(["b"], ["b"]) == "penstock deploy b"
    assert next_for([], ["b"]) == ""


def test_an_import_that_takes_nothing_is_no_success(works: Path) -> None:
    run = penstock("import", "h.csv", "-s", "site", "--time-column", "Zeit (lokal)", cwd=works)
    assert run.returncode == 1
    assert "rejects" in run.stderr
    run = penstock("import", "h.csv", "-s", "site", "--time-column", "Zeit", cwd=works)
    assert "did you mean 'Zeit (lokal)'?" in run.stderr


def test_a_replay_of_nothing_starts_nothing(works: Path) -> None:
    run = penstock("stream", "-s", "site", "--replay", "no.csv", cwd=works)
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1)
    assert "no.csv: no such file" in run.stderr
    assert not (works / "site" / "triton" / "triton.log").exists()


def test_models_shows_the_figures_of_every_target() -> None:
    metrics = {"n": 12, "mae": 1.25, "rmse": 2.5, "persistence_rmse": 5.0}
    card = {
        "name": "both",
        "version": 3,
        "trained": {"end": "2013-10-26T00:00:00Z"},
        "metrics": {"NOX": metrics, "TEY": {"n": 7, "mae": 0.5, "rmse": 0.75}},
    }
    console = Console(width=120, file=io.StringIO())
    console.print(models_table([card], {"both": 3}))
    rows = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert rows[1].split() == ["both@3", "live", "NOX", "2013-10-26", "12", "1.25", "2.5", "5", "0.50"]
    assert rows[2].split() == ["both@3", "live", "TEY", "2013-10-26", "7", "0.5", "0.75"]
