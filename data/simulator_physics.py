"""What goes on inside a simulated station: pure functions of the tick, vectorised over units.

No state is carried from tick to tick, so that any span can be computed by itself: slow and
fast disturbances are smooth curves through numbered random knots, memory is a finite sum over
the past, an outage is a function of the time to its bounds.

    weather ─► demand ─► set point ─► FUEL, IGV ──────► (lag 10 min) ─► POWER
                              └─► FLAME_T, WATER, SPLIT ─► (dead 3 min, lag 6 min) ─► NOX

Power follows fuel, inlet guide vanes and ambient; NOx follows flame temperature, water
injection, fuel split and humidity: mostly different sensors. Wear drifts over weeks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from penstock.data.durations import UNITS_NS
from penstock.data.simulator_station import SYSTEMS, Station

Float = NDArray[np.float64]

KNOTS = 64
"""Knots of a curve that are drawn at once."""
TAP_MIN = 3
"""Minutes between the looks into the past; at least a tick."""
TAPS = 16
POWER_LAG_MIN, NOX_LAG_MIN = 10.0, 6.0
SHARED = ("weather", "pressure", "humidity")
HOURS = {
    "weather": 9.0, "pressure": 40.0, "humidity": 7.0, "share": 1.5, "trim": 1 / 3, "igv": 0.75,
    "split": 1.0, "water": 5 / 6, "flame": 0.42, "wear": 480.0,
}  # fmt: skip
"""Hours between the knots of each disturbance; those of SHARED are the same for all units."""
CELL_H = 96.0
"""At most one outage of each unit in so many hours."""
OUTAGES = 100
"""Stream of the outages; the disturbances have 0, 1, 2, ..."""
DOWN_H, UP_H = 0.5, 1.0
"""Ramps of a shut-down and of a start-up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drivers:
    """What moves a station; each [k, units], or [k, 1] where all units share it, in the sensor's unit."""

    run: Float
    """0 stopped .. 1 running."""
    ambient: Float
    pressure: Float
    humidity: Float
    fuel: Float
    igv: Float
    split: Float
    water: Float
    flame: Float
    wear: Float


class Physics:
    """The true values behind the sensors of one station."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.tap = max(1, round(TAP_MIN * UNITS_NS["min"] / station.period_ns))
        """Ticks between the looks into the past."""
        self._knots = lru_cache(maxsize=64)(self._draw_knots)
        self._outages = lru_cache(maxsize=16)(self._draw_outages)

    def truth(self, first: int, last: int) -> NDArray[np.float32]:
        """[ticks first..last-1, units, len(SYSTEMS)]: what perfect sensors would read."""
        ticks = np.arange(first, last, dtype=np.int64)
        now = self.drivers(ticks)
        past = self.drivers((ticks - self.tap * np.arange(TAPS)[:, None]).ravel())
        power = self._lagged(_power(past), POWER_LAG_MIN, 0)
        nox = self._lagged(_nox(past), NOX_LAG_MIN, 1)
        columns = {
            "AMBIENT_T": now.ambient, "AMBIENT_P": now.pressure, "HUMIDITY": now.humidity, "FUEL": now.fuel,
            "IGV": now.igv, "SPLIT": now.split, "WATER": now.water, "FLAME_T": now.flame, "POWER": power,
            "NOX": nox, "WEAR": now.wear,
        }  # fmt: skip
        out = np.empty((len(ticks), self.station.units, len(SYSTEMS)), np.float32)
        for i, name in enumerate(SYSTEMS):
            out[:, :, i] = columns[name]
        return out

    def drivers(self, ticks: NDArray[np.int64]) -> Drivers:
        """At any ticks [k], in any order."""
        h = ticks.astype(np.float64) * np.float64(self.station.period_ns / UNITS_NS["h"])
        curve: dict[str, Float] = {name: self._curve(number, name, h) for number, name in enumerate(HOURS)}
        ambient: Float = 12 + 9 * _wave(h, 8766, 0.3) + 5 * _wave(h, 24, 0.4) + 3 * curve["weather"]
        run, load = self._running(h), _demand(h) + 0.06 * curve["share"] + 0.03 * curve["trim"]
        load = np.clip(load, 0.4, 1.03)
        igv = np.clip(35 + 50 * load - 0.4 * (ambient - 12) + 3 * curve["igv"], 20, 95)
        flame = 1080 + 260 * (load - 0.7) - 3 * (igv - 70) + 9 * curve["flame"]
        return Drivers(
            run=run,
            ambient=ambient,
            pressure=1013 + 9 * curve["pressure"],
            humidity=np.clip(72 - 1.3 * (ambient - 12) + 6 * curve["humidity"], 15, 100),
            fuel=run * (0.4 + 9 * load),
            igv=20 + run * (igv - 20),
            split=run * np.clip(22 + 8 * curve["split"], 5, 45),
            water=run * np.clip(1.2 + 0.5 * curve["water"], 0, 3),
            flame=ambient + run * (flame - ambient),
            wear=10 + 2 * curve["wear"],
        )

    def _lagged(self, values: Float, lag_min: float, dead: int) -> Float:
        """[k, units]: exponentially forgetting mean of [TAPS * k, units], `dead` taps late."""
        minutes = self.tap * self.station.period_ns / UNITS_NS["min"]
        weights = np.where(np.arange(TAPS) >= dead, np.exp(-(np.arange(TAPS) - dead) * minutes / lag_min), 0)
        taps = values.reshape(TAPS, -1, values.shape[-1])
        total: Float = np.zeros_like(taps[0])
        for weight, tap in zip(weights / weights.sum(), taps, strict=True):  # a fixed order: the same bits
            total += weight * tap
        return total

    def _curve(self, stream: int, name: str, h: Float) -> Float:
        """[k, units or 1]: a smooth random curve of mean 0 and, at its knots, deviation 1."""
        at = h / HOURS[name]
        knot = np.floor(at).astype(np.int64)
        rest = (at - knot)[:, None]
        blend = rest * rest * (3 - 2 * rest)
        begin = int(knot.min()) // KNOTS
        blocks = range(begin, (int(knot.max()) + 1) // KNOTS + 1)
        knots = np.concatenate([self._knots(stream, name, block) for block in blocks])
        low, high = knots[knot - begin * KNOTS], knots[knot - begin * KNOTS + 1]
        return np.asarray(low + (high - low) * blend, np.float64)

    def _draw_knots(self, stream: int, name: str, block: int) -> Float:
        """[KNOTS, units or 1]"""
        units = 1 if name in SHARED else self.station.units
        return np.ascontiguousarray(self.station.random(stream, block).standard_normal((units, KNOTS)).T)

    def _running(self, h: Float) -> Float:
        """[k, units]: 1, but in an outage 0, with ramps; an outage lies inside its cell of CELL_H hours."""
        cell = np.floor(h / CELL_H).astype(np.int64)
        begin, end = np.empty((2, len(h), self.station.units))
        for number in np.unique(cell):
            begin[cell == number], end[cell == number] = self._outages(int(number))
        down, up = np.clip((begin - h[:, None]) / DOWN_H, 0, 1), np.clip((h[:, None] - end) / UP_H, 0, 1)
        return np.asarray(np.maximum(down, up))

    def _draw_outages(self, cell: int) -> tuple[Float, Float]:
        """Begin and end of each unit's outage, hours; one that does not happen has both before the cell."""
        happens, begin, length = self.station.random(OUTAGES, cell).random((self.station.units, 3)).T
        first = cell * CELL_H + (0.1 + 0.5 * begin) * CELL_H
        never = cell * CELL_H - UP_H
        return np.where(happens < 0.4, first, never), np.where(happens < 0.4, first + 4 + 14 * length, never)


def _power(d: Drivers) -> Float:
    """MW before the lag: the fuel's heat by the efficiency."""
    efficiency = 7.9 - 0.03 * (d.ambient - 15) + 0.02 * (d.igv - 70) + 0.004 * (d.pressure - 1013)
    return np.asarray(d.fuel * efficiency * (1 - 0.01 * (d.wear - 10)))


def _nox(d: Drivers) -> Float:
    """mg/m3 before the lag."""
    thermal = 25 * np.exp((d.flame - 1080) / 130) * np.exp(-0.35 * (d.water - 1.2))
    return np.asarray(d.run * thermal * (1 + 0.012 * (d.split - 22)) * (1 - 0.004 * (d.humidity - 60)))


def _demand(h: Float) -> Float:
    """[k, 1] share of full load asked for: two daily waves, less around Sunday (tick 0 is a Monday)."""
    weekend = np.clip(3 * (np.cos(2 * np.pi * (h / 168 - 6 / 7)) - 0.62) + 0.5, 0, 1)
    return np.asarray(0.76 + 0.12 * _wave(h, 24, 0.33) + 0.05 * _wave(h, 12, 0.2) - 0.1 * weekend[:, None])


def _wave(h: Float, period_h: float, phase: float) -> Float:
    """[k, 1]"""
    return np.asarray(np.sin(2 * np.pi * (h / period_h - phase))[:, None])
