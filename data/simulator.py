"""A simulated power station's readings: for tests, for scale, and where no recorded data can be had.

The readings of a tick are the same to the last bit whatever span they are asked in, in whatever
order, by whichever process: random numbers are counted, not drawn one after the other, and
everything is computed in blocks of fixed bounds, of which a span is cut.

    physics [ticks, units, systems] ─► sensors: scale + a second system + noise ─► faults ─► Dense
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from penstock.data.frame import Dense
from penstock.data.plants.spans import Span
from penstock.data.simulator_faults import Fault, faults_between
from penstock.data.simulator_physics import Physics
from penstock.data.simulator_sensors import Sensors
from penstock.data.simulator_station import DAY_NS, START_NS, Station

Values = NDArray[np.float32]

BLOCK_CELLS = 1 << 22
"""Values computed at once: 16 MB; but at least LEAST ticks, as the past they look at costs the same for all."""
LEAST, MOST = 16, 1024
TILE_CELLS = 1 << 16
"""Values worked on at once, so that they stay in the processor's cache."""
NOISE_WHEEL = 1 << 18
"""Normal numbers from which each (tick, unit) takes its noise, beginning at a place of its own: a
million fresh ones per tick would cost more than all the rest."""
WHEEL, PLACES = 102, 103
"""Streams of random numbers; see `Station.random`."""
YEARS = 100
"""A span without end ends here."""


class Simulator:
    """Readings of one station. Ticks count from START_NS; its columns are `station.tag_names()`."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.physics = Physics(station)
        self.sensors = Sensors.of(station)
        width = station.units * station.tags
        self.block = int(np.clip(1 << max(0, (BLOCK_CELLS // width).bit_length() - 1), LEAST, MOST))
        """Ticks that are computed together: a property of the station, or the bits would depend on the span."""
        wheel = station.random(WHEEL, 0).standard_normal(NOISE_WHEEL + station.tags, np.float32)
        self._wheel = sliding_window_view(wheel, station.tags)
        self._clean = lru_cache(maxsize=2)(self._compute)
        self._truth = lru_cache(maxsize=32)(lambda b: self.physics.truth(b * self.block, (b + 1) * self.block))

    def rows(self, first: int, last: int, ids: NDArray[np.int32] | None = None) -> Dense:
        """The readings of ticks first..last-1: [k, units * tags] float32, k = ticks but for skewed clocks.

        `ids` are the tags' ids in a site; None: their column numbers. A skewed unit's readings stand in
        rows of their own, at their own times, behind those of the tick.
        """
        blocks = range(first // self.block, -(-last // self.block))
        parts = [self._cut(block, first, last) for block in blocks]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else self._nothing()
        faults = list(faults_between(self.station, first, last))
        if faults and not values.flags.writeable:
            values = values.copy()
        for fault in faults:
            self._spoil(values, fault, first, last)
        times = START_NS + np.arange(first, last, dtype=np.int64) * self.station.period_ns
        times, values = self._skewed(times, values, [f for f in faults if f.kind == "skew"], first, last)
        tags = np.arange(values.shape[1], dtype=np.int32) if ids is None else ids
        return Dense(times=times, tags=tags, values=values, quality=np.zeros(values.shape, np.uint8))

    def blocks(self, span: Span, ids: NDArray[np.int32] | None = None) -> Iterator[Dense]:
        """The readings of a span, block after block."""
        first, last = self.ticks(span)
        for begin in range(first - first % self.block, last, self.block):
            yield self.rows(max(begin, first), min(begin + self.block, last), ids)

    def tables(self, span: Span) -> Iterator[pa.Table]:
        """The same as Arrow tables: `time` (timestamp[ns, UTC]) and a float32 column per tag, null where missing."""
        first, last = self.ticks(span)
        most = self.block * max(1, BLOCK_CELLS // (self.block * self.station.units * self.station.tags))
        for begin in range(first, last, most):
            rows = self.rows(begin, min(begin + most, last))
            columns = [pa.array(column, from_pandas=True) for column in np.ascontiguousarray(rows.values.T)]
            times = pa.array(rows.times, pa.timestamp("ns", "UTC"))
            yield pa.table([times, *columns], names=["time", *self.station.tag_names()])

    def faults(self, first: int, last: int) -> list[Fault]:
        """What is wrong with the readings of ticks first..last-1."""
        return list(faults_between(self.station, first, last))

    def ticks(self, span: Span) -> tuple[int, int]:
        """First tick and one past the last tick of a span."""
        period, end = self.station.period_ns, span.last_ns if span.last_ns is not None else YEARS * 365 * DAY_NS
        return -(-span.first_ns // period), -(-end // period)

    def _nothing(self) -> Values:
        return np.empty((0, self.station.units * self.station.tags), np.float32)

    def _cut(self, block: int, first: int, last: int) -> Values:
        start = block * self.block
        return self._clean(block)[max(first - start, 0) : last - start]

    def _compute(self, block: int) -> Values:
        """[self.block, units * tags] readings without faults."""
        station, sensors = self.station, self.sensors
        truth = self._truth(block).reshape(-1, self._truth(block).shape[-1])
        places = station.random(PLACES, block).integers(0, NOISE_WHEEL, (station.units, self.block)).T.ravel()
        out = np.empty((len(truth), station.tags), np.float32)
        tile = max(1, TILE_CELLS // station.tags)
        for at in range(0, len(out), tile):
            rows = slice(at, at + tile)
            sensors.read(truth[rows], self._wheel[places[rows]], out[rows])
        out.flags.writeable = False  # kept for the next span
        return out.reshape(self.block, -1)

    def _spoil(self, values: Values, fault: Fault, first: int, last: int) -> None:
        """Put a fault into values [ticks first..last-1, units * tags], in place; skews are put in elsewhere."""
        if fault.sensor is None:
            return
        begin, end = max(fault.first, first), min(fault.last, last)
        column = values[begin - first : end - first, fault.unit * self.station.tags + fault.sensor]
        deviation = self.sensors.noise[fault.sensor]
        match fault.kind:
            case "missing":
                column[:] = np.nan
            case "flat":
                column[:] = self._still(fault)
            case "spike":
                column += np.float32(fault.size) * deviation
            case "drift":
                share = (np.arange(begin, end) - fault.first + 1) / (fault.last - fault.first)
                column += (fault.size * share).astype(np.float32) * deviation

    def _still(self, fault: Fault) -> np.float32:
        """What a sensor shows that has stopped moving at the fault's first tick."""
        assert fault.sensor is not None
        block, row = divmod(fault.first, self.block)
        return self.sensors.one(self._truth(block)[row, fault.unit], fault.sensor)

    def _skewed(
        self, times: NDArray[np.int64], values: Values, skews: list[Fault], first: int, last: int
    ) -> tuple[NDArray[np.int64], Values]:
        """Move the readings of units whose clock runs ahead into rows of their own, in order of time."""
        if not skews:
            return times, values
        extra_times, extra = [times], [values]
        for fault in skews:
            rows = slice(max(fault.first, first) - first, min(fault.last, last) - first)
            columns = slice(fault.unit * self.station.tags, (fault.unit + 1) * self.station.tags)
            moved = np.full_like(values[rows], np.nan)
            moved[:, columns] = values[rows, columns]
            extra_times.append(times[rows] + round(fault.size * 1e9))
            extra.append(moved)
            values[rows, columns] = np.nan
        joined = np.concatenate(extra_times)
        order = np.argsort(joined, kind="stable")
        return joined[order], np.concatenate(extra)[order]
