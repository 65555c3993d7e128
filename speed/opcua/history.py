"""What a server remembers of variables, read in order of time across all of them.

Variables are read in chunks, so some are ahead of others. What is given out is what lies before the newest reading of
the one that is furthest behind: later chunks cannot bring anything older. `Merge` is that rule, without a server.

    A  1 2 3 | 4 5 6      B has been read up to 2 and has more:
    B  1 2   | ...        all up to 2 goes out, the rest waits
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from asyncua import ua
from asyncua.client.ua_session import UaSession

from penstock.speed.opcua.nodes import in_calls
from penstock.speed.opcua.values import Columns, datetime_of, is_silent, time_of

CHUNK = 500
"""Readings of a variable asked for at once."""
AT_ONCE = 20
"""Variables in one request."""
END = 2**63 - 1
STEP_NS = 1000
"""asyncua counts in microseconds."""

Reading = tuple[int, ua.DataValue]
"""(ns, what was said)"""


class Merge:
    """Readings of several variables, which come in chunks, in order of time."""

    def __init__(self, starts: Mapping[int, int]) -> None:
        """`starts`: by variable, the time (ns) before which nothing comes."""
        self._reached = dict(starts)
        self._waiting: dict[int, list[Reading]] = {at: [] for at in starts}

    def add(self, at: int, chunk: Sequence[Reading], *, more: bool) -> None:
        """The next readings of a variable, in order; `more`: there are further ones, none of them older."""
        self._waiting[at] += chunk
        if not more:
            del self._reached[at]
        elif chunk:
            self._reached[at] = max(self._reached[at], chunk[-1][0])

    def wanted(self) -> dict[int, int]:
        """The variables to read on, and where: those of which little waits, among them the one furthest behind."""
        return {at: ns for at, ns in self._reached.items() if len(self._waiting[at]) < CHUNK}

    def take(self) -> list[tuple[int, int, ua.DataValue]]:
        """(ns, variable, what was said) up to the time that all have reached, in order of time."""
        upto = min(self._reached.values(), default=END)
        found = []
        for at, waiting in self._waiting.items():
            cut = next((i for i, (ns, _) in enumerate(waiting) if ns > upto), len(waiting))
            found += [(ns, at, said) for ns, said in waiting[:cut]]
            del waiting[:cut]
        return sorted(found, key=lambda reading: reading[:2])


class History:
    """Reads the gap of each variable, from where it was delivered to where the server has nothing newer."""

    def __init__(self, session: UaSession, nodes: Sequence[ua.NodeId]) -> None:
        self._session, self._nodes = session, nodes
        self._from: dict[int, int] = {}
        """Where a variable is read on, ns."""
        self._points: dict[int, bytes] = {}
        """What the server wants to hear instead, where it answers in parts."""
        self.refused: dict[int, str] = {}
        """Variables whose history cannot be read, and the server's reason."""

    async def since(self, starts: Mapping[int, int], arrival_ns: int) -> AsyncGenerator[Columns, None]:
        """Readings of variables from `starts` (ns, by number) on, oldest first; those at the start come again.

        `arrival_ns`: the time of a reading without one.
        """
        merge, self._from, self._points = Merge(starts), dict(starts), {}
        while wanted := merge.wanted():
            for start in sorted({self._from[at] for at in wanted}):
                for group in in_calls([at for at in wanted if self._from[at] == start], AT_ONCE):
                    await self._read(group, start, merge, arrival_ns)
            columns = Columns()
            for ns, at, said in merge.take():
                columns.add(at, said, ns)
            if len(columns):
                yield columns

    async def _read(self, group: Sequence[int], start: int, merge: Merge, arrival_ns: int) -> None:
        """The next chunk of each; one request has one start."""
        details = ua.ReadRawModifiedDetails()
        details.IsReadModified = False
        details.StartTime = datetime_of(start)
        details.NumValuesPerNode = CHUNK
        details.ReturnBounds = False
        asked = ua.HistoryReadParameters()
        asked.HistoryReadDetails = details
        asked.TimestampsToReturn = ua.TimestampsToReturn.Both
        asked.NodesToRead = [self._value_id(at) for at in group]
        try:
            results = await self._session.history_read(asked)
        except ua.UaStatusCodeError as error:  # of the whole request; what is said now must come in all the same
            fault = ua.HistoryReadResult(StatusCode=ua.StatusCode(error.code))
            results = [fault for _ in group]
        for at, result in zip(group, results, strict=True):
            self._take(at, start, result, merge, arrival_ns)

    def _take(self, at: int, start: int, result: ua.HistoryReadResult, merge: Merge, arrival_ns: int) -> None:
        if not result.StatusCode.is_good():
            self.refused[at] = result.StatusCode.name
            merge.add(at, [], more=False)
            return
        values = (result.HistoryData.DataValues or ()) if isinstance(result.HistoryData, ua.HistoryData) else ()
        said = [(time_of(v, arrival_ns), v) for v in values if not is_silent(v)]
        self._points.pop(at, None)
        if result.ContinuationPoint:
            self._points[at] = result.ContinuationPoint
        else:
            newest = said[-1][0] if said else start
            self._from[at] = newest if newest > start else start + STEP_NS  # a whole chunk of one moment: step over it
        merge.add(at, said, more=bool(result.ContinuationPoint) or len(values) >= CHUNK)

    def _value_id(self, at: int) -> ua.HistoryReadValueId:
        asked = ua.HistoryReadValueId()
        asked.NodeId = self._nodes[at]
        asked.ContinuationPoint = self._points.get(at)
        return asked
