"""What an OPC UA server has: its variables that hold numbers, with unit, range and description where it says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.client.ua_session import UaSession

from penstock.errors import SourceError
from penstock.guess_text import quoted
from penstock.listening import Address, Found, FoundTag, settings_of
from penstock.sources import access
from penstock.speed.opcua.nodes import Variable, attributes, node_id, properties, variables
from penstock.speed.opcua.session import door, entered

TOP = "i=85"
"""Objects: everything that is not the server's own."""
LOOK_S = 300.0
PERIOD_NS = 1_000_000_000
GAP = "3s"
BOOLEAN, ENUMERATION = 1, 29
NUMBERS = frozenset((*range(1, 12), 26, 27, 28, ENUMERATION))
"""Data types of OPC UA itself that are numbers, and the abstract ones above them."""
WIDE = frozenset((6, 7, 8, 9))
"""Whole numbers that float32 does not hold."""
SHOWN = 5


def look(address: Address) -> Found:
    """Raises SourceError where the server cannot be reached, does not let us in, or takes too long."""
    try:
        nodes = [node_id(text) for text in address.nodes or (TOP,)]
    except ValueError as error:
        raise SourceError(f'--node {error}: is no node id; give one such as "ns=2;s=Line1"') from error
    try:
        return asyncio.run(asyncio.wait_for(_look(address, nodes), LOOK_S))
    except (TimeoutError, OSError, ua.UaError) as error:
        why = str(error) or f"no end after {LOOK_S:.0f} s; begin lower down with --node"
        raise SourceError(f"{address.url}: cannot be looked through ({why})") from error


async def _look(address: Address, nodes: Sequence[ua.NodeId]) -> Found:
    where = access("opcua", settings_of(address), Path(), "init")
    async with entered(door("opcua", where)) as (client, _):
        session = client.uaclient.session
        found, missing = await variables(session, nodes)
        tags, left_out = await _tags(session, found)
    notes = [f"the server knows no node {node.to_string()}" for node in missing]
    if left_out:
        more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        notes.append(f"left out, as they are no single numbers: {', '.join(left_out[:SHOWN])}{more}")
    notes.append("a tag that is told only when it changes needs reports = on change and a heartbeat in tags.csv")
    listed = ", ".join(quoted(node.to_string()) for node in nodes)
    keys = {"nodes": f"[{listed}]", "interval": '"1s" # publishing and sampling'}
    return Found(kind="opcua", keys=keys, tags=tags, period_ns=PERIOD_NS, notes=tuple(notes))


async def _tags(session: UaSession, found: Sequence[Variable]) -> tuple[tuple[FoundTag, ...], list[str]]:
    """(tags, names of variables that are none)."""
    ids = [variable.id for variable in found]
    types = await attributes(session, ids, ua.AttributeIds.DataType)
    ranks = await attributes(session, ids, ua.AttributeIds.ValueRank)
    said = await attributes(session, ids, ua.AttributeIds.Value)
    texts = await attributes(session, ids, ua.AttributeIds.Description)
    more = await properties(session, ids, ("EngineeringUnits", "EURange", "EnumStrings"))
    often = Counter(variable.name for variable in found)
    tags, left_out = [], []
    for i, variable in enumerate(found):
        if not _is_number(types[i], ranks[i], said[i]):
            left_out.append(variable.text)
            continue
        alone = often[variable.name] == 1
        name = variable.name if alone else str(variable.id.Identifier)
        cells = _cells(_own_type(types[i]), more[i]) | {"max_gap": GAP, "description": _text(texts[i])}
        tags.append(FoundTag(source=variable.text, name=name, named=alone, cells=cells))
    return tuple(tags), left_out


def _is_number(data_type: Any, rank: Any, said: Any) -> bool:
    single = not isinstance(rank, int) or rank < 0
    number = _own_type(data_type) in NUMBERS or isinstance(said, int | float)
    return single and number and not isinstance(said, list)


def _own_type(data_type: Any) -> int | None:
    """The number of one of OPC UA's own data types."""
    own = isinstance(data_type, ua.NodeId) and data_type.NamespaceIndex == 0
    return int(data_type.Identifier) if own else None


def _cells(data_type: int | None, more: dict[str, Any]) -> dict[str, str]:
    state = data_type in (BOOLEAN, ENUMERATION) or "EnumStrings" in more
    cells = {"kind": "state" if state else "", "dtype": "float64" if data_type in WIDE and not state else ""}
    cells["unit"] = _text(getattr(more.get("EngineeringUnits"), "DisplayName", None)).replace("°", "deg")
    limits = more.get("EURange")
    if isinstance(limits, ua.Range) and limits.Low < limits.High:
        cells |= {"low": repr(float(limits.Low)), "high": repr(float(limits.High))}
    return cells


def _text(text: Any) -> str:
    """Of a text in some language; one line."""
    return " ".join((getattr(text, "Text", None) or "").split())
