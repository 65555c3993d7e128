"""The hydraulic rig's server: OPC UA with a history, telling its rows as time goes by. A process of its own.

    python rig_server.py PORT FOLDER SECONDS RATE

Begins to tell when a line comes on standard input; started again after a kill it goes on with the row that its history
does not have whole. Prints a line when all rows were told, and serves on until standard input ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
from opcua_process import Spec
from opcua_server import OpcServer

from penstock.data.plants.hydraulic_rig import SENSORS, START_NS, hydraulic_rig
from penstock.data.plants.spans import parse_span
from penstock.speed.opcua.values import ns_of


async def main(port: int, folder: Path, seconds: int, rate: float) -> None:
    table = hydraulic_rig(parse_span(f"0s..{seconds}s", "hydraulic-rig"))
    times = table["time"].cast(pa.int64()).to_pylist()
    rows = list(zip(*(table[name].to_pylist() for name in SENSORS), strict=True))
    server = OpcServer(Spec(port=port, root="rig", variables=dict.fromkeys(SENSORS, "Double"), folder=folder))
    await server.start()
    await asyncio.to_thread(sys.stdin.readline)
    first = await told(server, times)
    begun = time.monotonic() - (times[first] - START_NS) / 1e9 / rate if first < len(times) else 0.0
    for at, row in zip(times[first:], rows[first:], strict=True):
        await asyncio.sleep(max(0.0, begun + (at - START_NS) / 1e9 / rate - time.monotonic()))
        await server.put([(name, at, value, 0) for name, value in zip(SENSORS, row, strict=True)], aloud=True)
    print(len(times) * len(SENSORS), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


async def told(server: OpcServer, times: list[int]) -> int:
    """Rows that are in the history of every sensor."""
    assert server.history is not None
    newest = [await server.history.newest(node.nodeid) for node in server.nodes.values()]
    if None in newest:
        return 0
    return times.index(min(ns_of(value.SourceTimestamp) for value in newest)) + 1


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
