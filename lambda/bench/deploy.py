"""`penstock bench deploy`: how long until a new version, or a former one, answers, and what others' ticks notice."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from penstock.batch.specimens import Size, drafts
from penstock.bench.one_per_model import one_per_model
from penstock.bench.results import Load, Row, answer
from penstock.bench.served_fleet import Fleet, Tell, served
from penstock.data.models import Artifact
from penstock.errors import ServingError
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool

DEPLOYS = 40
ROLLBACKS = 10
"""Of them, whose versions before are deployed again."""
QUIET_S = 15.0
"""Ticks before the deploys, which theirs are compared with."""


def run(members: int, tell: Tell) -> dict[str, Any]:
    """Measure deploys of one of `members` under full tick load; in the form that all benchmarks have."""
    load = Load()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        served(Path(folder), Size(), members, tell) as fleet,
    ):
        tell("ticks alone")
        before = _Ticks(fleet)
        with before:
            time.sleep(QUIET_S)
        tell("building new versions")
        versions = _versions(fleet)
        during = _Ticks(fleet)
        with during, Deployer(fleet.triton.endpoint) as deployer:
            seconds = []
            for k, artifact in enumerate(versions):
                tell(f"deploy {k + 1} of {DEPLOYS}")
                seconds.append(deployer.deploy(artifact).seconds)
        tell("roll-backs")
        back = _Ticks(fleet)
        with back, Deployer(fleet.triton.endpoint) as deployer:
            rolled = [_rolled_back(fleet, deployer, artifact) for artifact in versions[:ROLLBACKS]]
        with one_per_model(fleet, 2) as alone:
            peers = {"Triton's own load of a TensorFlow python model": round(alone.start_s, 3)}
    ratio = float(np.quantile(during.ms, 0.99) / np.quantile(before.ms, 0.99))
    rows = [
        Row(what="deploy-live-s", unit="s", ours=round(float(np.median(seconds)), 3), peers=peers, goal=0.2),
        Row(what="deploy-live-max-s", unit="s", ours=round(max(seconds), 3)),
        Row(what="deploy-failed", unit="ticks", ours=float(before.failed + during.failed), goal=0.0),
        Row(what="rollback-s", unit="s", ours=round(max(rolled), 3), goal=1.0),
        Row(what="rollback-failed", unit="ticks", ours=float(back.failed), goal=0.0),
        Row(what="deploy-p99-ratio", unit="times", ours=round(ratio, 2), goal=3.0),
        Row(what="tick-p99-alone-ms", unit="ms", ours=round(float(np.quantile(before.ms, 0.99)), 2)),
    ]
    return answer("deploy", rows, load.others())


def _rolled_back(fleet: Fleet, deployer: Deployer, artifact: Artifact) -> float:
    """Seconds from the wish to the former version's answer: read and checked from the store, then deployed."""
    begun = time.monotonic()
    before = fleet.store.load(artifact.name, artifact.version - 1)
    return time.monotonic() - begun + deployer.deploy(before).seconds


def _versions(fleet: Fleet) -> list[Artifact]:
    """Version 2 of some members, with other weights."""
    made = drafts(fleet.size, DEPLOYS, first=10_000)
    names = [fleet.members[k % len(fleet.members)].name for k in range(DEPLOYS)]
    return [fleet.store.save(replace(draft, name=name)) for draft, name in zip(made, names, strict=True)]


@dataclass(eq=False)
class _Ticks:
    """A thread that asks all members for a tick, again and again, while the block runs."""

    fleet: Fleet
    ms: list[float] = field(default_factory=list)
    failed: int = 0
    """Ticks without an answer, or with one from nobody."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Ticks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60.0)

    def _run(self) -> None:
        windows = self.fleet.windows()[:, 0]
        with (
            Deployer(self.fleet.triton.endpoint) as deployer,
            Pool(self.fleet.triton.endpoint, deadline_s=30.0) as pool,
        ):
            slots, generation = _slots(deployer), None
            while not self._stop.is_set():
                begun = time.perf_counter()
                try:
                    answer = pool.tick(slots, windows)
                except ServingError:
                    self.failed += 1
                    continue
                self.ms.append((time.perf_counter() - begun) * 1e3)
                self.failed += bool((answer.versions < 0).any())
                if answer.generation != generation:
                    slots, generation = _slots(deployer), answer.generation


def _slots(deployer: Deployer) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array([m.slot for m in sorted(deployer.members(), key=lambda m: m.name)], np.int32)
