"""How much of the disk a site takes, part by part, how fast that grows, and when the disk is full.

A stream writes down once an hour what is used, in `usage.json`, thinned out to one sample a day; growth is the slope
between them. A site that has no day of samples yet is asked of its readings: what they take, over the time that they
span, which is right for a plant that comes in as it runs, and not for a history imported at once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.data.durable import write_durably

USAGE = "usage.json"
DAY_NS = 86_400_000_000_000
SAMPLES = 90
"""One a day; older ones go."""
OVER_DAYS = 30.0
"""Growth is that of so many days."""
SOON_DAYS = 14.0
"""A disk that is full before is `wrong`."""
LEAST_FREE = 1 << 30
"""Bytes: less is `wrong` however slow it grows; journal, archive and SQLite need room to turn round."""
PARTS = ("archive", "journal", "views", "models", "logs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a site took at a moment."""

    at_ns: int
    """Wall clock, UTC."""
    used: Mapping[str, int]
    """Bytes by part; `other` is the rest of the folder."""

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return sum(self.used.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What comes of it."""

    per_day: float | None
    """Bytes; None: nothing is known."""
    over_days: float
    """Of how many days that is."""
    measured: bool
    """From samples; False: from what the readings take over the time they span."""
    free: int
    """Bytes of the file system."""
    full_in_days: float | None
    """None: never, or nothing is known."""

    @property
    def wrong(self) -> bool:
        """Whether somebody has to do something now."""
        return self.free < LEAST_FREE or (self.full_in_days is not None and self.full_in_days < SOON_DAYS)


def usage(folder: Path, now_ns: int) -> Sample:
    """What the site in `folder` takes now; files that go meanwhile are passed over."""
    used = dict.fromkeys((*PARTS, "other"), 0)
    with os.scandir(folder) as entries:
        for entry in entries:
            used[entry.name if entry.name in PARTS else "other"] += _bytes_of(entry)
    return Sample(at_ns=now_ns, used=used)


def growth(samples: Sequence[Sample], over_days: float = OVER_DAYS) -> tuple[float, float] | None:
    """(bytes a day, over how many days) between the first sample of the newest `over_days` days and the newest one.

    None where they are less than a day apart. Samples are in order of time.
    """
    if not samples:
        return None
    newest = samples[-1]
    first = next(s for s in samples if newest.at_ns - s.at_ns <= over_days * DAY_NS)
    days = (newest.at_ns - first.at_ns) / DAY_NS
    return None if days < 1.0 else ((newest.total - first.total) / days, days)


def forecast(samples: Sequence[Sample], *, span_days: float, kept_days: float | None, free: int) -> Forecast:
    """`span_days`: what the readings span; `kept_days`: after which old ones go (None: never)."""
    found, measured = growth(samples), True
    if found is None and samples and span_days >= 1.0:
        stored = sum(samples[-1].used.get(part, 0) for part in ("archive", "views"))
        full = kept_days is not None and span_days >= kept_days
        found, measured = (0.0 if full else stored / span_days, span_days), False
    if found is None:
        return Forecast(per_day=None, over_days=0.0, measured=False, free=free, full_in_days=None)
    per_day, days = found
    left = free / per_day if per_day > 0 else None
    return Forecast(per_day=per_day, over_days=days, measured=measured, free=free, full_in_days=left)


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """The first of each day, and the newest; at most SAMPLES."""
    first_of: dict[int, Sample] = {}
    for sample in samples:
        first_of.setdefault(sample.at_ns // DAY_NS, sample)
    kept = list(first_of.values())
    return (kept if not samples or samples[-1] is kept[-1] else [*kept, samples[-1]])[-SAMPLES:]


def read_usage(folder: Path) -> list[Sample]:
    """What was written down; none where there is nothing to read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((folder / USAGE).read_bytes())
        return [Sample(at_ns=int(s["at_ns"]), used={k: int(v) for k, v in s["used"].items()}) for s in said]
    return []


def note_usage(folder: Path, now_ns: int) -> Sample:
    """Write down what is used now. Raises OSError."""
    sample = usage(folder, now_ns)
    before = [s for s in read_usage(folder) if s.at_ns < now_ns]
    kept = [{"at_ns": s.at_ns, "used": dict(s.used)} for s in thinned([*before, sample])]
    aside = folder / f"{USAGE}.new"
    write_durably(aside, json.dumps(kept).encode())
    aside.replace(folder / USAGE)
    return sample


def free_bytes(folder: Path) -> int:
    """What the file system of `folder` still has for us."""
    return shutil.disk_usage(folder).free


def size_text(size: float) -> str:
    """ "1.2 GB", as people read it."""
    for unit, limit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size:.0f} B"


def _bytes_of(entry: os.DirEntry[str]) -> int:
    """Blocks of the disk, of a file or of all below a folder."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_blocks * 512
        with os.scandir(entry.path) as entries:
            return sum(_bytes_of(each) for each in entries)
    except OSError:
        return 0
