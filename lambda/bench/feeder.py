"""The plant's side of a benchmark: a process that sends a wide plant's frames to a TCP source.

    python -m penstock.bench.feeder ADDRESS PORT TAGS PERIOD_NS FIRST_TICK PER_S

PER_S frames a second, or 0: as fast as they are taken. Prints one JSON line when it begins - the moment (of the
monotonic clock, which all processes share) at which the first frame is due - and, when its standard input ends, stops
and prints another: how many ticks it sent, and that all of them are durable.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bench.wide_plant import LATE_TICKS, WidePlant
from penstock.speed.formats.arrow import NS, dense_batch, dense_schema
from penstock.speed.gateway import Gateway

READY_S = 0.5
"""Between the first line and the first frame of a paced run."""
KEPT = 12
"""Frames that a gateway keeps until they are durable."""
FLUSH_S = 300.0


class Feeder:
    """Two senders, as a gateway has them: what is read now, and what it could not send before."""

    def __init__(self, plant: WidePlant, address: tuple[str, int], first: int) -> None:
        self.plant, self.first = plant, first
        names = plant.names()
        self._now = Gateway(address, "now", dense_schema(names, quality=True), most=KEPT)
        self._dictionary = pa.array(names, pa.string())
        empty = self._behind_batch(np.zeros(0, np.int32), 0, np.zeros(0, np.float32), np.zeros(0, np.uint8))
        self._behind = Gateway(address, "behind", empty.schema, most=KEPT)

    def send(self, tick: int) -> None:
        """Tick `tick`'s frame, and what an older one was lacking."""
        plant = self.plant
        values, status = plant.dense(tick)
        time_ns = np.array([(self.first + tick) * plant.period_ns], np.int64)
        self._now.send(dense_batch(self._now.schema, time_ns, values[None], status[None]), FLUSH_S)
        self.send_behind(tick - LATE_TICKS)

    def send_behind(self, tick: int) -> None:
        """What comes behind a tick."""
        if tick >= 0:
            tags, values, status = self.plant.behind(tick)
            time_ns = (self.first + tick) * self.plant.period_ns
            self._behind.send(self._behind_batch(tags, time_ns, values, status), FLUSH_S)

    def end(self, ticks: int) -> None:
        """The rest of the late readings; returns when all is durable."""
        for tick in range(ticks - LATE_TICKS, ticks):
            self.send_behind(tick)
        for gateway in (self._now, self._behind):
            gateway.flush(FLUSH_S)
            gateway.close()

    def _behind_batch(
        self, tags: NDArray[np.int32], time_ns: int, values: NDArray[np.float32], status: NDArray[np.uint8]
    ) -> pa.RecordBatch:
        columns = {
            "time": pa.array(np.full(len(tags), time_ns, np.int64)).cast(NS),
            "tag": pa.DictionaryArray.from_arrays(pa.array(tags), self._dictionary),
            "value": pa.array(values),
            "quality": pa.array(status),
        }
        return pa.RecordBatch.from_pydict(columns)


def run(feeder: Feeder, per_s: float, over: threading.Event) -> int:
    """Frames until `over`; how many."""
    begin = time.monotonic() + READY_S
    print(json.dumps({"begin": begin}), flush=True)
    tick = 0
    while not over.is_set():
        if per_s and (wait := begin + tick / per_s - time.monotonic()) > 0 and over.wait(wait):
            break
        feeder.send(tick)
        tick += 1
    feeder.end(tick)
    return tick


def main(host: str, port: int, tags: int, period_ns: int, first: int, per_s: float) -> None:
    """Until standard input ends."""
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    ticks = run(Feeder(WidePlant(tags=tags, period_ns=period_ns), (host, port), first), per_s, over)
    print(json.dumps({"ticks": ticks, "cpu_s": time.process_time()}), flush=True)


if __name__ == "__main__":
    host, *numbers, per_s = sys.argv[1:]
    main(host, *map(int, numbers), float(per_s))  # type: ignore[call-arg]
