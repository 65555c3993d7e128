"""What a station's sensors make of the true values: every unit has the same instruments.

A sensor reads ``base + a * system + b * second system + noise``. The first ones read one
system plainly; the others are the thermocouples, pressures, flows and vibrations that a real
unit has by the hundred, each following one system and a little of another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.data.simulator_station import SYSTEMS, Station

Values = NDArray[np.float32]

NOISE = (0.05, 0.1, 0.3, 0.02, 0.15, 0.1, 0.01, 1.5, 0.12, 0.3, 0.05)
"""Deviation of the noise of each sensor of SYSTEMS, in its unit."""
UNITS = ("degC", "mbar", "%", "kg/s", "%", "%", "kg/s", "degC", "MW", "mg/m3", "mm/s")
RANGES = (
    (-40, 60), (900, 1100), (0, 105), (-1, 15), (0, 105), (-5, 60),
    (-1, 5), (-40, 1700), (-5, 120), (-5, 300), (0, 40),
)  # fmt: skip
SECOND = ("degC", "bar", "kg/s", "mm/s")
"""Units of further sensors, in turn."""
FOLLOWED = ("POWER", "FLAME_T", "FUEL", "IGV", "AMBIENT_T", "WEAR")
"""Systems that a further sensor may follow: not NOX, which is measured once."""
TYPICAL = {"POWER": 50.0, "FLAME_T": 1100.0, "FUEL": 7.0, "IGV": 75.0, "AMBIENT_T": 12.0, "WEAR": 10.0}
STREAM = 104


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sensors:
    """The instruments of one unit; all arrays [tags]."""

    base: Values
    first: NDArray[np.intp]
    """The system it follows, as a number of SYSTEMS."""
    gain: Values
    second: NDArray[np.intp]
    side: Values
    """Gain of the second system."""
    noise: Values
    """Deviation of its noise, in its unit."""

    @classmethod
    def of(cls, station: Station) -> Sensors:
        """Drawn sensor by sensor, so that the same ones come first however many there are."""
        plain, more = len(SYSTEMS), station.tags - len(SYSTEMS)
        draw = station.random(STREAM, 0).random((more, 5)).astype(np.float32)
        followed = np.array([SYSTEMS.index(name) for name in FOLLOWED])
        typical = np.array([TYPICAL[name] for name in FOLLOWED], np.float32)
        one, two = (draw[:, 0] * len(FOLLOWED)).astype(int), (draw[:, 1] * len(FOLLOWED)).astype(int)
        swing = 20 + 60 * draw[:, 2]
        none = np.zeros(plain, np.float32)
        return cls(
            base=np.concatenate([none, 10 + 20 * draw[:, 3]]),
            first=np.concatenate([np.arange(plain), followed[one]]),
            gain=np.concatenate([none + 1, swing / typical[one]]),
            second=np.concatenate([np.zeros(plain, int), followed[two]]),
            side=np.concatenate([none, 0.2 * swing / typical[two]]),
            noise=np.concatenate([np.array(NOISE, np.float32), 0.1 + 0.4 * draw[:, 4]]),
        )

    def read(self, truth: Values, noise: Values, out: Values) -> None:
        """Readings of true values [r, systems] with unit noise [r, tags] (used up) into `out` [r, tags]."""
        np.take(truth, self.second, axis=1, out=out, mode="clip")
        out *= self.side
        noise *= self.noise
        out += noise
        np.take(truth, self.first, axis=1, out=noise, mode="clip")
        noise *= self.gain
        out += noise
        out += self.base

    def one(self, truth: Values, sensor: int) -> np.float32:
        """A sensor's reading of true values [systems], without noise."""
        first, second = truth[self.first[sensor]], truth[self.second[sensor]]
        return np.float32(self.gain[sensor] * first + self.side[sensor] * second + self.base[sensor])


def unit_of(number: int) -> str:
    """Engineering unit of a sensor."""
    return UNITS[number] if number < len(UNITS) else SECOND[number % len(SECOND)]
