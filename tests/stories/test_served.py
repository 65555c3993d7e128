"""What Triton says of trained models.

1. A client that knows nothing but the address builds nox's window from what the server tells, and gets mg/m3.
2. Every model says of its golden windows, and of windows it has never seen, what `keras.Model.predict` says.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TICKS, Demo
from demo_runs import first_tick, source_values

from penstock.data.views.speed_view import SpeedView
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.site import Site

NAMES = ["AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP", "CO", "NOX"]


@pytest.fixture(scope="module")
def served(demo: Demo) -> Iterator[tuple[Site, str]]:
    """The demo's site with its champions on a Triton of its own, and that server's address."""
    with Site.open(demo.site) as site:
        (endpoint,) = site.parts.endpoints()
        with Deployer(endpoint) as deployer:
            deployer.ensure([site.artifact(name) for name in site.models.champions()])
        yield site, endpoint


def test_a_stock_client_gets_what_the_speed_layer_said(served: tuple[Site, str], tmp_path: Path) -> None:
    site, endpoint = served
    readings = tmp_path / "readings.csv"
    with readings.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows([[repr(float(v)) for v in row] for row in source_values(2014)[:TICKS]])
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


@pytest.mark.parametrize("name", ["nox", "tey", "nox_ahead"])
def test_triton_says_what_keras_says(served: tuple[Site, str], name: str) -> None:
    from penstock.batch import network

    site, endpoint = served
    artifact = site.artifact(name)
    golden = artifact.golden
    noise = np.random.default_rng(7).normal(1.0, 0.05, golden.windows.shape).astype(np.float32)
    windows = np.concatenate([golden.windows, golden.windows * noise])
    keras = np.asarray(network.from_bytes(artifact.keras).predict(windows, verbose=0))
    with Pool(endpoint, deadline_s=10.0) as pool:
        triton = pool.predict(name, windows)
    assert triton.version == artifact.version
    assert (np.abs(triton.values - keras) <= 1e-5 * golden.scale).all()
    assert (np.abs(triton.values[: len(golden.windows)] - golden.predictions) <= 1e-5 * golden.scale).all()
