"""How far each variable of a source has been delivered, and the one number of it that the journal keeps.

A server says a variable's readings in order, so everything up to a variable's newest reading has come. The journal
has one offset per source: the time up to which *every* variable that still speaks has been delivered. After a
restart history is read from there, for all of them, and what was there already comes again, which changes nothing.

    pump    --x--x--x--x--|        newest 4
    valve   --x--x--x-----|        newest 3: its fourth may be on the way, the offset is 3
    switch  -x------------|        quiet for QUIET_S: not waited for, its next is later than what others say now

Plain numbers: knows no clock and no server.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.speed.opcua.values import BEGIN, ns_of

QUIET_S = 60.0
"""A variable that has said nothing for so long is not waited for."""
REACH_NS = 3_600_000_000_000
"""Nor is one whose time stamps lie further behind the newest one's than this: its clock is wrong."""
UNKNOWN = np.iinfo(np.int64).min
NOTHING = ns_of(BEGIN)
"""Of a variable that had no value when it was first looked at: all that its history has is new."""


class Marks:
    """Newest delivered time per variable."""

    def __init__(self, offset: int | None, slack_ns: int) -> None:
        """`offset`: as the journal has it, None: nothing was ever delivered.

        `slack_ns`: how much further back history is read, as variables are sampled one after another.
        """
        self._offset, self._slack_ns = offset, slack_ns
        self._kept = offset
        self._rows: dict[str, int] = {}
        self.newest: NDArray[np.int64] = np.empty(0, np.int64)
        """[rows] ns; UNKNOWN, NOTHING, or the newest reading's time."""
        self._spoke_s: NDArray[np.float64] = np.empty(0)
        self._listened: NDArray[np.intp] = np.empty(0, np.intp)
        self._filling = False

    def connect(self, variables: Sequence[str], now_s: float) -> NDArray[np.intp]:
        """Rows [n] of the variables that are listened to from now on; their gap is yet to be filled."""
        for name in variables:
            self._rows.setdefault(name, len(self._rows))
        more = len(self._rows) - len(self.newest)
        self.newest = np.concatenate([self.newest, np.full(more, UNKNOWN)])
        self._spoke_s = np.concatenate([self._spoke_s, np.full(more, now_s)])
        self._listened = np.array([self._rows[name] for name in variables], np.intp)
        self._filling = True
        return self._listened

    def since(self) -> NDArray[np.int64]:
        """[n] where the history of each variable listened to must be read from; UNKNOWN: it begins now."""
        start = UNKNOWN if self._offset is None else max(self._offset - self._slack_ns, NOTHING)
        own = self.newest[self._listened]
        return np.where(own == UNKNOWN, start, own)

    def filled(self, now_s: float) -> None:
        """Everything before the subscription has been delivered."""
        self._filling = False
        self._spoke_s[self._listened] = now_s

    def silent(self, rows: NDArray[np.intp]) -> None:
        """These have no value yet; where nothing is known of them, nothing was ever said."""
        if self._offset is None:
            self.newest[rows] = np.maximum(self.newest[rows], NOTHING)

    def see(self, rows: NDArray[np.intp], times: NDArray[np.int64], now_s: float) -> None:
        """Readings [n] of rows are delivered."""
        np.maximum.at(self.newest, rows, times)
        self._spoke_s[rows] = now_s

    def offset(self, now_s: float, latest_ns: int) -> int:
        """The time up to which all is delivered, ns. Times beyond `latest_ns` (a clock that is ahead) do not count."""
        own = self.since() if self._filling else self.newest[self._listened]
        waited = self._filling | (self._spoke_s[self._listened] > now_s - QUIET_S)
        floor = UNKNOWN if self._filling else NOTHING
        counted = own[waited & (own > floor) & (own <= latest_ns)]
        if len(counted):
            top = int(own[own <= latest_ns].max())
            self._kept = max(int(counted.min()), top - REACH_NS)
        return latest_ns - REACH_NS if self._kept is None else self._kept
