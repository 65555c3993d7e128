"""A fleet of random LSTMs on a real Triton of its own, in a scratch folder, for measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from penstock.batch.specimens import Size, drafts
from penstock.data.models import Artifact, ModelStore
from penstock.errors import Refused
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.serving.triton import Triton

Float32 = NDArray[np.float32]
Tell = Callable[[str], None]
DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Members that answer on `triton`, in the order of their names."""

    triton: Triton
    size: Size
    store: ModelStore
    members: list[Artifact]
    slots: NDArray[np.int32]
    """[M]"""

    def windows(self, depth: int = 1) -> Float32:
        """[M, depth, T, F] of random numbers, the same every time."""
        random = np.random.default_rng(7)
        shape = (len(self.members), depth, self.size.length, self.size.features)
        return random.normal(0, 1, shape).astype(np.float32)

    def memory_gib(self) -> float:
        """What tritonserver and all processes below it keep in memory, shared pages once."""
        running = Triton.running(self.triton.folder)
        if running is None:
            return float("nan")
        server = psutil.Process(running.server)
        return float(sum(p.memory_full_info().pss for p in (server, *server.children(recursive=True))) / 2**30)


@contextmanager
def served(folder: Path, size: Size, count: int, tell: Tell) -> Iterator[Fleet]:
    """`count` members deployed as a plant's fleets are, at once; all gone when the block ends."""
    store = ModelStore(folder / "models")
    tell(f"building {count} members")
    members = [store.save(draft) for draft in drafts(size, count)]
    tell("starting Triton")
    with Triton.start(folder / "triton", capacity=count + 8, deadline_s=DEADLINE_S) as triton:
        with Deployer(triton.endpoint, deadline_s=DEADLINE_S) as deployer:
            for k, done in enumerate(deployer.deploy_all(members)):
                tell(f"deployed {k + 1} of {count}")
                if isinstance(done, Refused):
                    raise done
            slot = {m.name: m.slot for m in deployer.members()}
        yield Fleet(
            triton=triton, size=size, store=store, members=members,
            slots=np.array([slot[a.name] for a in members], np.int32),
        )  # fmt: skip


def started_again(fleet: Fleet) -> float:
    """Seconds from a start of Triton to the answer of all members; it ran before and has ended."""
    begun = time.monotonic()
    fleet.triton.restart()
    with Pool(fleet.triton.endpoint, deadline_s=DEADLINE_S) as pool:
        answer = pool.tick(fleet.slots, fleet.windows()[:, 0])
    if (answer.versions < 0).any():
        raise RuntimeError(f"{int((answer.versions < 0).sum())} members did not come back")
    return time.monotonic() - begun


def milliseconds(work: Callable[[], object], times: int, *, first: int = 5) -> NDArray[np.float64]:
    """[times] how long each call of `work` takes, after `first` calls that do not count."""
    for _ in range(first):
        work()
    taken = np.empty(times)
    for k in range(times):
        begun = time.perf_counter()
        work()
        taken[k] = (time.perf_counter() - begun) * 1e3
    return taken
