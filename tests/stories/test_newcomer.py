"""A newcomer brings the file of a German historian, and nothing else.

1. The file: cp1252, semicolons, decimal commas with points between thousands, names with umlauts and units in
   brackets, one that looks like another, local times over both clock changes, gaps, texts among numbers, a column
   that never moves, a meter, a state, a column of words.
2. `init --from` takes it for what it is and says what it took; no option, no edit.
3. Every command that it or `status` names next works: check, import, train, deploy, stream, query, tags.
4. Each hour of the year is there once; every hour of the replay was predicted, the doubled one twice.
"""

from __future__ import annotations

import json
import math
import random
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

BERLIN = ZoneInfo("Europe/Berlin")
HEAD = [
    "Datum/Uhrzeit", "Vorlauf Kessel 1 [°C]", "Vorlauf Kessel 1 (°C)", "Gasmenge Zähler [m³]", "Brenner Stufe",
    "Zustand", "Wärmeleistung [kW]", "Solldruck [bar]", "Bemerkung",
]  # fmt: skip
BEGIN = datetime(2023, 10, 20, tzinfo=UTC)
HOURS = 24 * 375  # over October 2023, March 2024 and October 2024
REPLAYED = 24 * 12
GAP = range(3000, 3040)
BAD = range(500, HOURS - REPLAYED, 700)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the newcomer works: history and the newest days as two files."""
    place = tmp_path_factory.mktemp("newcomer")
    lines = boiler()
    split = len(lines) - REPLAYED
    for name, part in (("Kessel 2024.csv", lines[:split]), ("rest.csv", lines[split:])):
        (place / name).write_bytes("\r\n".join([";".join(HEAD), *part, ""]).encode("cp1252"))
    return place


def boiler() -> list[str]:
    """The rows of a boiler house, as its historian writes them."""
    random.seed(7)
    lines, meter, heat, flow = [], 1_234_567.0, 800.0, 70.0
    for k in range(HOURS):
        at = (BEGIN + timedelta(hours=k)).astimezone(BERLIN)
        wanted = 900 + 700 * math.cos(k / 1400) + 250 * math.sin(k / 7)
        heat += 0.4 * (wanted - heat) + random.gauss(0, 5)
        flow += 0.5 * (55 + heat / 40 - flow) + random.gauss(0, 0.2)
        meter += max(0.0, heat) / 10
        stage = 0 if wanted < 400 else 1 if wanted < 1100 else 2
        cells = [german(flow), german(flow - 0.4), german(meter, 1), str(stage), "Ein" if stage else "Aus"]
        cells += [german(heat, 1) if k not in BAD else "I/O Timeout", "2,50", "geprüft" if k % 999 == 5 else ""]
        if k not in GAP:
            lines.append(";".join([at.strftime("%d.%m.%Y %H:%M"), *cells]))
    return lines


def german(value: float, digits: int = 2) -> str:
    """1.234,5"""
    return f"{value:,.{digits}f}".replace(",", "_").replace(".", ",").replace("_", ".")


def penstock(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    """A command as it is typed, without `penstock`; it must not fail, nor show a traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "penstock", *shlex.split(words)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{words}\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    assert "Traceback" not in run.stderr, run.stderr
    return run


def answer(folder: Path, words: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(penstock(folder, f"{words} --json").stdout.splitlines()[-1])
    return told


def test_from_a_file_to_live_predictions(folder: Path) -> None:
    begun = penstock(folder, "init haus --from 'Kessel 2024.csv'").stdout
    assert "read as cp1252" in begun
    assert "as in Europe/Berlin" in begun
    following = begun.splitlines()[-1].partition("next: penstock ")[2]
    assert answer(folder, "check haus")["models"] == ["waermeleistung"]

    report = answer(folder, following)
    assert report["rows"] == HOURS - REPLAYED - len(GAP)
    assert report["rejected"] == len(BAD)
    assert report["accepted"] == report["rows"] * 6 - len(BAD)

    assert "penstock train --all" in penstock(folder, "status --site haus").stdout
    assert answer(folder, "train --all --site haus --epochs 2")["failed"] == {}
    assert "penstock deploy waermeleistung" in penstock(folder, "status --site haus").stdout
    assert answer(folder, "deploy waermeleistung --site haus")["live"] == "waermeleistung@1"

    streamed = answer(folder, "stream --site haus --replay rest.csv")
    assert (streamed["readings"], streamed["rejected"], streamed["late"]) == (REPLAYED * 6, 0, 0)
    assert streamed["ended"]
    said = answer(folder, f"query waermeleistung --site haus --start -{REPLAYED}h")
    assert (said["rows"], said["holes"], said["open"]) == (REPLAYED, 0, 0)
    assert said["data"]["reason"] == ["OK"] * REPLAYED
    night = [at for at in said["data"]["time"] if at.startswith("2024-10-27 0")]
    assert len(night) == 10  # UTC knows no doubled hour

    meter = next(row for row in answer(folder, "tags --site haus")["tags"] if row["tag"] == "Gasmenge_Zähler")
    shown = penstock(folder, "tags 'Gas*' --site haus").stdout
    assert f"m3    {meter['value']:.1f}" in shown  # all digits, and not cut
