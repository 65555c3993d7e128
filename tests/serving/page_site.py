"""A site of two models for the pages: archived readings, and a voice that says what a stream would say.

The files are written by the parts that write them on a real site; no Triton is
needed to look at them.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

from penstock.data.models import Draft, Golden
from penstock.data.views.speed_view import SpeedView, Spoken
from penstock.data.windows import WindowSpec
from penstock.site import Site
from penstock.speed.process import alone
from penstock.speed.status import Report, Status, write_status

BEGIN = pd.Timestamp("2025-03-01", tz="UTC")
TICKS = 12_000
SAID_FROM = 9_000
PLANT = """
[plant]
name = "pump"
period = "1s"
timezone = "Europe/Berlin"
[tags]
speed = { unit = "rpm", range = [0, 3000], max_gap = "5s" }
flow = { unit = "m3/h", range = [0, 400], max_gap = "5s" }
[defaults.model]
window = "10s"
[model.flow]
target = "flow"
inputs = ["speed"]
[model.speed]
target = "speed"
inputs = ["flow"]
"""


def readings() -> pd.DataFrame:
    """Waves; one spike at tick 777, one bad reading at tick 9100."""
    k = np.arange(TICKS)
    flow = 150 + 40 * np.sin(k / 50)
    flow[777], flow[SAID_FROM + 100] = 399.0, 5000.0
    times = BEGIN + pd.to_timedelta(k, unit="s")
    return pd.DataFrame({"time": times, "speed": 1500 + 300 * np.sin(k / 90), "flow": flow})


def make(folder: Path, plant: str = PLANT) -> Path:
    """The site, with its readings archived and version 1 of both models recorded as live."""
    (folder / "pump.toml").write_text(plant)
    with Site.create(folder / "pump", folder / "pump.toml") as site:
        site.load(readings(), time_column="time")
        for name in ("flow", "speed"):
            spec = WindowSpec.of(site.plant.model(name), site.plant)
            trained = {"start": "2025-03-01", "end": "2025-03-02", "snapshot": "S", "first": 0, "last": 1}
            card = {"spec": spec.to_json(), "units": list(spec.target_units), "trained": trained}
            golden = Golden(windows=np.zeros((1, 10, 1), np.float32), predictions=np.zeros((1, 1), np.float32),
                            scale=np.ones(1, np.float32))  # fmt: skip
            serving = {"head": np.zeros(1, np.float32)}
            site.models.save(Draft(name=name, kind="lstm", card=card, keras=b"", golden=golden, serving=serving))
            site.models.record(name, 1, "deploy", "test")
    return folder / "pump"


class Voice:
    """Says a tick every quarter of a second, as a running stream would, until it is hushed."""

    def __init__(self, site: Path) -> None:
        self._site, self._hushed, self._ended = site, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def hush(self) -> None:
        """Say nothing more, but stay: a stream that hangs."""
        self._hushed.set()

    def end(self) -> None:
        """Go."""
        self._ended.set()
        self._thread.join(20)

    def _run(self) -> None:
        first = int(BEGIN.timestamp()) + SAID_FROM
        view = SpeedView.open(self._site / "views" / "speed.sqlite")
        view.write([spoken(tick) for tick in range(first, first + 120)])
        with alone(self._site / "speed"):
            tick = first + 120
            while not self._ended.wait(0.25):
                if not self._hushed.is_set():
                    view.write([spoken(tick)])
                    write_status(self._site / "speed", _status(tick))
                    tick += 1
        view.close()


def spoken(tick: int) -> Spoken:
    """Each model is off by three; every tenth window was filled."""
    k = tick - int(BEGIN.timestamp())
    values = np.array([153 + 40 * np.sin(k / 50), 1503 + 300 * np.sin(k / 90)], np.float32)
    return Spoken(
        tick=tick, members=(("flow", 1), ("speed", 1)), values=values, versions=np.ones(2, np.int32),
        reasons=np.zeros(2, np.uint8), filled=np.array([k % 10 == 0, False]), hashes=np.zeros(2, np.uint64), position=0,
    )  # fmt: skip


def _status(tick: int) -> Status:
    report = Report(
        readings=2 * tick, rejected=4, quarantined=1, late=7, ticks=1, predictions=2, failed_requests=0,
        first_prediction_ns=None, worker_restarts=0, rereadings=0, ended=False,
    )  # fmt: skip
    return Status(
        pid=1, written_ns=time.time_ns(), tail=1, archived=1, closed=tick + 1, next_tick=tick + 1,
        members={"flow": 1, "speed": 1}, backlog=0, rate=4.0, replay=False, trouble=None, sources={}, report=report,
    )  # fmt: skip
