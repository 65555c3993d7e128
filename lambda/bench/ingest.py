"""`penstock bench ingest`: from a broker into the journal, from there into the archive, and out of it for training.

Each beside the plain way to do the same, in the same run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from penstock.bench import archive_ways
from penstock.bench.broker import CONF, broker, mosquitto
from penstock.bench.results import Load, Row, answer

Told = Callable[[str], None]
GOAL_SHARE, GOAL_ARROW, GOAL_WRITE, GOAL_READ = 0.6, 3e6, 6e7, 1.0
TURNS = 2
"""Each way has its turn so often; its best counts."""
COUNTS = "a client that only counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be measured."""

    seconds: float = 10.0
    """Of each turn of each way from the broker."""
    tags: int = 100_000
    """Written to the archive."""
    ticks: int = 1280
    train_tags: int = 512
    """Of the segment that is read."""
    train_ticks: int | None = None
    """Of it; None: all of its day."""


def run(wish: Wish, told: Told = lambda text: None) -> dict[str, Any]:
    """The benchmark's JSON; `told` hears what it does. Raises what broker, journal and archive raise."""
    load = Load()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        rows = [*_mqtt(folder, wish.seconds, told), *_archive(folder, wish, told)]
    return answer("ingest", rows, load.others())


def _mqtt(folder: Path, seconds: float, told: Told) -> list[Row]:
    what = ("mqtt-json-share", "of the client that counts"), ("mqtt-arrow-readings-per-s", "readings/s")
    if (why := _missing()) is not None:
        return [Row(what=name, unit=unit, ours=None, better="higher", why=why) for name, unit in what]
    from penstock.bench.mqtt_ways import READINGS, Kind, counted, ours

    found: dict[Kind, tuple[float, float]] = {}
    kinds: tuple[Kind, ...] = ("json", "arrow")
    for kind in kinds:
        peer = mine = 0.0
        for turn in range(TURNS):
            # A broker of its own each time: one that has known us keeps all that it is sent for our session.
            place = folder / f"{kind}-{turn}"
            told(f"MQTT, {kind}: {COUNTS}, turn {turn + 1} of {TURNS}")
            with broker(place / "counted") as port:
                peer = max(peer, counted(port, kind, seconds) * READINGS[kind])
            told(f"MQTT, {kind}: ours, turn {turn + 1} of {TURNS}")
            with broker(place / "broker") as port:
                mine = max(mine, ours(place, port, kind, seconds))
        found[kind] = mine, peer
    json_ours, json_peer = found["json"]
    return [
        Row(
            what=what[0][0], unit=what[0][1], ours=round(json_ours / json_peer, 3), goal=GOAL_SHARE, better="higher",
            peers={COUNTS: 1.0},
        ),
        Row(
            what="mqtt-json-messages-per-s", unit="messages/s", ours=round(json_ours), better="higher",
            peers={COUNTS: round(json_peer)},
        ),
        Row(
            what=what[1][0], unit=what[1][1], ours=round(found["arrow"][0]), goal=GOAL_ARROW, better="higher",
            peers={COUNTS: round(found["arrow"][1])},
        ),
    ]  # fmt: skip


def _missing() -> str | None:
    """Why nothing can be measured with a broker."""
    if mosquitto() is None:
        return "mosquitto is not installed: apt-get install mosquitto"
    if find_spec("paho") is None:
        return "paho-mqtt is not installed: pip install 'penstock[mqtt]'"
    return None if CONF.exists() else "deploy/mosquitto.conf is not here: run it from a checkout"


def _archive(folder: Path, wish: Wish, told: Told) -> list[Row]:
    (folder / "write").mkdir()
    (folder / "read").mkdir()
    written, write_peers = archive_ways.written(folder / "write", wish.tags, wish.ticks, told)
    read, read_peers = archive_ways.read(folder / "read", wish.train_tags, told, wish.train_ticks)
    return [
        Row(
            what="archive-readings-per-s", unit="readings/s", ours=round(written), peers=write_peers, goal=GOAL_WRITE,
            better="higher",
        ),
        Row(
            what="archive-train-read-gb-per-s", unit="GB/s", ours=read, peers=read_peers, goal=GOAL_READ,
            better="higher",
        ),
    ]  # fmt: skip
