"""`penstock size`: whether a machine holds a plant, resource by resource. Pure: a Wish and a Machine in, Needs out.

What a part of a site costs is a fixed sum and so much per tag and per model, as
`size_constants.py` has them from real runs; the engine's arithmetic and the disk's durable append are the machine's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from penstock import size_constants as known
from penstock.data.archive.repository import open_chunks, segment_ticks
from penstock.data.durations import SECOND_NS, UNITS_NS
from penstock.size_machine import Machine

TIGHT = 0.7
"""Share from which on something is to be changed: a plant's busiest minute is above its mean."""
GIB, MIB, MB = 1 << 30, 1 << 20, 1e6
DAY_S = UNITS_NS["d"] / SECOND_NS
THREADS = 2
"""That the engine computes on, and processes that Dask has, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The plant that is planned."""

    tags: int
    models: int
    tick_ns: int
    rows: int = 60
    """Of a window."""
    inputs: int = 32
    """Of a model, its past target among them."""
    units: int = 64
    layers: int = 1
    keep_ns: int = 30 * UNITS_NS["d"]
    """History on the disk."""
    by_rows: bool = True
    """Whether a tick brings one row per model, as it does for LSTMs of ours without a past target; else windows."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Rows, inputs, units, layers."""
        return self.rows, self.inputs, self.units, self.layers

    @property
    def tick_s(self) -> float:
        """Seconds."""
        return self.tick_ns / SECOND_NS

    @property
    def keep_s(self) -> float:
        """Seconds."""
        return self.keep_ns / SECOND_NS

    @property
    def read(self) -> int:
        """Tags that models read: each model others, as far as there are so many."""
        return min(self.tags, self.models * self.inputs)

    @property
    def frame_bytes(self) -> int:
        """Of one tick in the journal."""
        return int(self.tags * known.JOURNAL_READING)

    def of(self, cost: known.Cost) -> float:
        """What a part costs for this plant."""
        windows = self.models * self.rows * self.inputs / known.WINDOW
        return cost.fixed + cost.tag * self.tags + cost.model * self.models + cost.window * windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One resource."""

    resource: str
    unit: str
    need: float
    have: float | None
    """None: there is no limit; it is told so that people know."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What the need is made of, same unit."""
    what: str = ""

    @property
    def share(self) -> float | None:
        """need / have"""
        return None if self.have is None else self.need / self.have if self.have > 0 else math.inf

    @property
    def state(self) -> str:
        """ "ok", "tight" (above 70 %) or "no"."""
        share = self.share or 0.0
        return "no" if share > 1 else "tight" if share > TIGHT else "ok"


def needs_of(wish: Wish, machine: Machine) -> tuple[Need, ...]:
    """Every resource, in the order in which people look at them."""
    return (
        *_times(wish, machine), _memory(wish, machine), _shared(wish, machine), _disk(wish, machine),
        _append(wish, machine), _training(wish, machine), _start(wish),
    )  # fmt: skip


def _times(wish: Wish, machine: Machine) -> Iterator[Need]:
    """Milliseconds of each tick against the tick itself."""
    tick = 1000 * wish.tick_s
    each, of = (machine.row_us, "row") if wish.by_rows else (machine.window_us, "window")
    kernel = wish.models * each / 1000
    cpu = {name: wish.of(cost) for name, cost in known.CPU_MS.items()}
    threads = min(THREADS, machine.cores)
    engine = {f"LSTMs, {threads} threads": kernel / threads, "around them": cpu["triton"]}
    yield Need(
        resource="Triton's tick", unit="ms", need=sum(engine.values()), have=tick, parts=engine,
        what=f"{each:.3g} us per {of}",
    )  # fmt: skip
    yield Need(resource="stream's tick", unit="ms", need=cpu["stream"], have=tick, what="one process")
    yield Need(resource="Dask's tick", unit="ms", need=cpu["dask"] / threads, have=tick, what=f"{THREADS} workers")
    everything = {"LSTMs": kernel, **cpu, "waiting": sum(known.IDLE_MS_PER_S.values()) * wish.tick_s}
    yield Need(
        resource="processor", unit="ms", need=sum(everything.values()), have=tick * machine.cores, parts=everything,
        what=f"{machine.cores} cores, every tick",
    )  # fmt: skip


def _memory(wish: Wish, machine: Machine) -> Need:
    """GiB of all processes of a site that is up and, now and then, trains."""
    parts = {name: wish.of(cost) * MB / GIB for name, cost in known.MEMORY_MB.items()}
    parts["weights"] = wish.models * _weights(wish) * 4 * known.WEIGHT_COPIES / GIB
    if wish.by_rows:
        parts["states"] = wish.models * known.state_bytes(wish.rows, wish.units, wish.layers) / GIB
    look_back = known.LOOK_BACK_S / wish.tick_s + wish.rows
    parts["rings"] = wish.read * look_back * known.RING_CELL / GIB
    parts["training"] = THREADS * known.TRAINING_MB * MB / GIB
    return Need(
        resource="memory", unit="GiB", need=sum(parts.values()), have=machine.memory / GIB, parts=parts,
        what="the site up, two workers training",
    )  # fmt: skip


def _shared(wish: Wish, machine: Machine) -> Need:
    windows = wish.models * wish.rows * wish.inputs * 4
    parts = {"Triton's python backend": known.SHM_MIB, "windows of two ticks": 2 * windows / MIB}
    return Need(resource="/dev/shm", unit="MiB", need=sum(parts.values()), have=machine.shm / MIB, parts=parts)


def _disk(wish: Wish, machine: Machine) -> Need:
    """GiB after `keep`: what is kept, and what a day of commits leaves until it is collected."""
    ticks = wish.keep_s / wish.tick_s
    parts = {
        "archive": wish.tags * ticks * known.ARCHIVE_READING / GIB,
        "commits of a day": min(DAY_S, wish.keep_s) / _commit_s(wish) * commit_bytes(wish) / GIB,
        "predictions": ticks * (known.SPOKEN_TICK + known.SPOKEN_MODEL * wish.models) / GIB,
        "journal": known.SEGMENT * (2 + 2 * _commit_s(wish) / wish.tick_s * wish.frame_bytes // known.SEGMENT) / GIB,
        "models": wish.models * _model_bytes(wish) / GIB,
    }
    what = f"{86_400 / wish.tick_s * wish.tags:,.0f} readings a day"
    return Need(resource="disk", unit="GiB", need=sum(parts.values()), have=machine.disk / GIB, parts=parts, what=what)


def commit_bytes(wish: Wish) -> float:
    """Of one commit of the archive: the open chunk that it writes anew, half full on average, and the tables."""
    long, _ = open_chunks(segment_ticks(wish.tick_ns), wish.tags)
    new = _commit_s(wish) / wish.tick_s
    return known.COMMIT + wish.tags * max(long / 2, new) * known.ARCHIVE_READING


def _commit_s(wish: Wish) -> float:
    """A commit is made every ten seconds, when something has come."""
    return max(known.COMMIT_EVERY_S, wish.tick_s)


def _model_bytes(wish: Wish) -> float:
    """Of one version of one model on the disk."""
    window = known.MODEL_WINDOW * wish.rows * wish.inputs
    return known.MODEL_FILES + window + known.MODEL_WEIGHT * _weights(wish)


def _append(wish: Wish, machine: Machine) -> Need:
    written = wish.frame_bytes + commit_bytes(wish) * wish.tick_s / _commit_s(wish)
    parts = {"journal": machine.sync_ms, "predictions": machine.sync_ms}
    return Need(
        resource="durable writes", unit="ms", need=sum(parts.values()), have=1000 * wish.tick_s, parts=parts,
        what=f"{machine.sync_ms:.3g} ms each; {written / wish.tick_s / MIB:.2g} MiB/s written",
    )  # fmt: skip


def _training(wish: Wish, machine: Machine) -> Need:
    """Hours to train every model once, on workers that each take a core."""
    work = known.training_s(wish.shape) * wish.models / min(THREADS, machine.cores)
    parts = {"models": work / 3600, "first job of a worker": known.TRAINING_FIRST_S / 3600}
    what = f"all models once, {known.TRAINING_WINDOWS:,} windows, {known.TRAINING_EPOCHS} epochs"
    return Need(resource="training", unit="h", need=sum(parts.values()), have=None, parts=parts, what=what)


def _start(wish: Wish) -> Need:
    return Need(
        resource="start", unit="s", need=known.START_S + known.START_MODEL_S * wish.models, have=None,
        what="all parts up, on a busy machine",
    )  # fmt: skip


def _weights(wish: Wish) -> int:
    """Numbers of one model."""
    below = (wish.inputs, *(wish.units,) * (wish.layers - 1))
    return sum(4 * wish.units * (b + wish.units + 1) for b in below) + wish.units + 2 * wish.inputs
