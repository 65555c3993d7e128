"""The examples in deploy/ for schedulers of other people's: their commands are commands, their times are times."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import yaml
from typer.main import get_command

from penstock.cli import app
from penstock.data.plants.cron_text import parse_cron

DEPLOY = Path(__file__).parents[2] / "deploy"


def understood(words: list[str]) -> bool:
    """Whether the command line takes these words; nothing is run."""
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    return command.make_context(words[0], words[1:]).params["every"] is True


def test_cron() -> None:
    (line,) = (row for row in (DEPLOY / "retrain.cron").read_text().splitlines() if row[:1].isdigit())
    words = line.split()
    assert parse_cron(" ".join(words[:5])).weekdays == (0,)
    assert words[6].endswith("/penstock")
    assert understood(words[7:])


def test_systemd() -> None:
    unit, timer = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    for parser in (unit, timer):
        parser.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "penstock-retrain.service")
    timer.read(DEPLOY / "penstock-retrain.timer")
    assert understood(shlex.split(unit["Service"]["ExecStart"])[1:])
    assert unit["Service"]["SuccessExitStatus"] == "3 4"
    assert timer["Timer"]["Persistent"] == "true"


def test_kubernetes() -> None:
    job = yaml.safe_load((DEPLOY / "retrain-cronjob.yaml").read_text())
    assert (job["kind"], job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    assert parse_cron(job["spec"]["schedule"])
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "penstock"
    assert understood(container["command"][1:])
