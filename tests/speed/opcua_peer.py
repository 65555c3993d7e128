"""An OPC UA server with a history as the other side of a source; see `opcua_server`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import small_site as small
from opcua_process import Reading, ServerProcess, Spec
from source_peers import free_port, names_of

from penstock.data.frame import Dense
from penstock.data.plant import SourceSpec
from penstock.data.registry import Registry
from penstock.speed.source import Access, Source
from penstock.speed.sources.opcua import OpcUa

SECOND = 10**9
FOLDER = "ns=2;s=small"
CODES = {0: 0, 0x40: 0x40000000, 0x80: 0x80000000}
"""Status codes by quality."""
SOURCE = SourceSpec(
    name="plc", kind="opcua", lateness_ns=0, idle_ns=60 * SECOND, skew_ns=60 * SECOND, nodes=(FOLDER,),
    interval_ns=SECOND // 20,
)  # fmt: skip
FLOATS = dict.fromkeys(small.NAMES, "Float")


def opcua(registry: Registry, port: int, spec: SourceSpec = SOURCE, **access: Any) -> OpcUa:
    """A source that knows the small plant's tags."""
    return OpcUa(spec, Access(url=f"opc.tcp://127.0.0.1:{port}", **access), names_of(registry))


def readings(rows: Dense) -> list[Reading]:
    """Rows as an OPC UA server says them."""
    frame = rows.long()
    return [
        (small.NAMES[tag], time, value, CODES[quality])
        for time, tag, value, quality in zip(
            frame.times.tolist(), frame.tags.tolist(), frame.values.tolist(), frame.quality.tolist(), strict=True
        )
    ]


class OpcUaPeer:
    """A folder of variables, one per tag."""

    keeps = True
    repeats = True

    def __init__(self, registry: Registry, folder: Path) -> None:
        folder.mkdir()
        self._registry = registry
        self.server = ServerProcess(Spec(port=free_port(), variables=FLOATS, folder=folder))

    def source(self) -> Source:
        return opcua(self._registry, self.server.spec.port)

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.kill()

    def send(self, rows: Dense) -> None:
        self.server.put(readings(rows))

    def garbage(self) -> None:
        self.server.put([("A", 0, "off", 0)])

    def close(self) -> None:
        self.server.kill()
