"""A client that knows nothing but the address builds nox's window from what the server tells, and gets mg/m3."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import TICKS, Demo
from demo_runs import first_tick, source_values

from penstock.data.views.speed_view import SpeedView
from penstock.serving.deploy import Deployer
from penstock.site import Site

NAMES = ["AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP", "CO", "NOX"]


def test_a_stock_client_gets_what_the_speed_layer_said(demo: Demo, tmp_path: Path) -> None:
    readings = tmp_path / "readings.csv"
    with readings.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows([[repr(float(v)) for v in row] for row in source_values(2014)[:TICKS]])
    with Site.open(demo.site) as site:
        (endpoint,) = site.parts.endpoints()
        with Deployer(endpoint) as deployer:
            deployer.ensure([site.artifact(name) for name in site.models.champions()])
        script = Path(__file__).with_name("stock_client.py")
        run = subprocess.run(
            [sys.executable, str(script), endpoint, "nox", str(readings)], capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        told = json.loads(run.stdout)
        view = SpeedView.open(site.folder / "views" / "speed.sqlite")
        newest = first_tick(2014) + TICKS - 1
        said = view.read("nox", newest, newest + 1)
        view.close()
        assert {"nox", "tey", "nox_ahead"} <= set(told["models"])
        assert told["unit"] == "mg/m3"
        assert told["version"] == 1
        assert np.isclose(told["value"], said.values[0, 0], rtol=0, atol=1e-4)
