"""The hydraulic rig at many times its speed into a site, through whatever kind of source."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plain_archive
import pyarrow as pa
import pytest
from demo_runs import MARK, answer, penstock

from penstock.data.archive import Archive
from penstock.data.plants.hydraulic_rig import SENSORS, START_NS, hydraulic_rig
from penstock.data.plants.spans import parse_span
from penstock.errors import SourceError
from penstock.speed.source import PART
from penstock.speed.status import read_status

DEADLINE_S = 120.0


def rows(seconds: int) -> np.ndarray:
    """[seconds, 17] float32, from the publisher's file."""
    try:
        table = hydraulic_rig(parse_span(f"0s..{seconds}s", "hydraulic-rig"))
    except SourceError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return np.stack([table[name].cast(pa.float64()).to_numpy() for name in SENSORS], axis=1).astype(np.float32)


def stream(site: Path, mark: str = "rig") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", "stream", "-s", str(site), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, MARK: mark},
    )  # fmt: skip


def accepted(site: Path) -> int:
    """Readings of the archive's newest commit, from the source, those that came twice too."""
    totals = Archive.open(site / "archive").head().totals
    return sum(total.accepted for name, total in totals.items() if name.partition(PART)[0] == "rig")


def wait(said: Callable[[], object], why: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not said():
        assert time.monotonic() < until, why
        time.sleep(0.1)


def is_up(site: Path, pid: int) -> bool:
    told = read_status(site / "speed")
    return told is not None and told["pid"] == pid and told["sources"]["rig"]["up"]


def row(site: Path) -> dict[str, str]:
    """What `penstock status` says of the source."""
    found = [r for r in answer(penstock("status", "-s", str(site), "--json"))["parts"] if r["part"] == "source rig"]
    assert len(found) == 1
    return found[0]  # type: ignore[no-any-return]


def check_equal(site: Path, wanted: np.ndarray) -> None:
    """The archive holds these rows and nothing else, byte for byte."""
    have = plain_archive.stored(site, len(SENSORS))
    first = START_NS // 10**9
    assert sorted(have) == list(range(first, first + len(wanted)))
    for tick, (value, quality, offset) in have.items():
        assert value == wanted[tick - first].tobytes(), tick
        assert quality == np.full(len(SENSORS), plain_archive.PRESENT, np.uint16).tobytes(), tick
        assert offset == np.zeros(len(SENSORS), np.uint32).tobytes(), tick
