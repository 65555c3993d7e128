"""What a running service tells of itself: one small JSON file, and the report at its end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock.errors import SiteError
from penstock.speed.beside import BesideTold
from penstock.speed.delays import Delays, Told
from penstock.speed.link import LinkTold
from penstock.speed.outlet import OutletTold

FILE = "status.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run of the service did."""

    readings: int
    """Accepted into the journal."""
    rejected: int
    quarantined: int
    late: int
    """Readings that came behind the watermark during this run, whoever archived them."""
    ticks: int
    """Ticks said."""
    predictions: int
    """Predictions said; withheld ones are not among them."""
    failed_requests: int
    """Scoring requests that got no answer; their ticks were asked again."""
    first_prediction_ns: int | None
    """Wall-clock time of the first prediction; None where there was none."""
    worker_restarts: int
    """Workers that came beyond those at the start."""
    rereadings: int
    """Times the log was read again from the last tick said: failures and new models' tags."""
    ended: bool
    """Every source ended and all of it was said and archived; false after a stop."""
    tick_ms: Told = field(default_factory=lambda: Delays().told())
    """From a tick's request to its answer: `count`, `p50` and `p99`; ticks that went out together waited together."""
    resubmitted: int = 0
    """Steps submitted to a worker again, since no answer came in time."""
    repairs: int = 0
    """Times that a part of the graph had died and was made anew; each is a rereading too."""
    revised: int = 0
    """Readings that came ahead of the watermark, but too late for some window that was cut; see `Tag.ahead_ns`."""
    said_ms: Told = field(default_factory=lambda: Delays().told())
    """From a tick's close, durable in the journal, to its row in the speed view; ticks closed in this run."""
    passed_ticks: int = 0
    """Ticks said that some model was not asked for, since scoring was behind."""
    passed: int = 0
    """Predictions withheld for that: reason OVERLOAD."""
    superseded: bool = False
    """It stopped because another plant was applied, and is to begin again with that."""


class SourceTold(LinkTold):
    """A live source: its link, and how far its readings are. Ages of link and data are apart: a quiet plant is none."""

    newest_ns: int | None
    """Newest event time."""
    idle: bool
    """Silent for so long that it holds the others no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A moment of a running service. Times are ns UTC."""

    pid: int
    written_ns: int
    tail: int
    """One past the newest journal sequence."""
    archived: int
    """The archive holds all sequences below."""
    closed: int | None
    """Ticks below are closed, and what is joined onto them has come."""
    next_tick: int | None
    """The next tick to be said."""
    members: Mapping[str, int]
    """Version per model, as last said."""
    backlog: int
    """Values that wait for the scorer."""
    rate: float | None
    """Event seconds per wall second, smoothed over some seconds; None until it is known."""
    replay: bool
    """Whether all that comes is recorded, from files and not from a plant."""
    trouble: str | None
    """Why nothing is said at the moment; None when all is well."""
    sources: Mapping[str, SourceTold]
    """The live sources, by name."""
    sinks: Mapping[str, OutletTold] = field(default_factory=dict)
    """By name."""
    said: int | None = None
    """Sequence that closed the newest tick said."""
    said_ns: int | None = None
    """When a tick was said last, in this run."""
    held: bool = False
    """Whether sources are not read, since too many ticks wait to be said."""
    overdue_s: float = 0.0
    """How long the oldest closed tick waits to be said."""
    journal_bytes: int = 0
    """That the journal keeps."""
    archived_ns: int | None = None
    """When the archive was last brought up to the journal, in this run."""
    repaired: str | None = None
    """What had died, the last time that something did."""
    repaired_ns: int | None = None
    beside: Mapping[str, Mapping[str, BesideTold]] = field(default_factory=dict)
    """By model and target: corrections and intervals, and how well they hold."""
    plant: int = 0
    """Number of the plant that it runs on; 0: none was ever applied."""
    report: Report
    """The run so far."""


def write_status(folder: Path, status: Status) -> None:
    """Replace the file in one go; not made durable: it says nothing that the log does not. Raises SiteError."""
    aside = folder / f".{FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(asdict(status)))
        aside.replace(folder / FILE)
    except OSError as error:
        raise SiteError(f"{folder / FILE}: cannot be written: {error}; check disk and rights") from error


def read_status(folder: Path) -> dict[str, Any] | None:
    """The newest status as a dict with the keys of `Status`; None where no service ever ran. Raises SiteError."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SiteError(f"{folder / FILE}: cannot be read: {error}; the running service writes it anew") from error
    return found
