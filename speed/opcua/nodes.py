"""The variables of a server: those that were asked for, and those below the folders and objects that were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from asyncua import ua
from asyncua.client.ua_session import UaSession

T = TypeVar("T")
PER_CALL = 200
"""Nodes asked about in one request: servers allow a few hundred at least."""
CLASSES = ua.NodeClass.Object | ua.NodeClass.Variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Something that has a value."""

    id: ua.NodeId
    name: str
    """Its browse name, without the namespace."""

    @property
    def text(self) -> str:
        """The node id as people write it, such as ``ns=2;s=Line1.T1``."""
        return str(self.id.to_string())


def node_id(text: str) -> ua.NodeId:
    """Raises ValueError for what is no node id."""
    try:
        return ua.NodeId.from_string(text)
    except (ua.UaError, ValueError) as error:
        raise ValueError(text) from error


def in_calls(items: Sequence[T], most: int = PER_CALL) -> Iterable[Sequence[T]]:
    """Items in groups that fit one request."""
    return (items[at : at + most] for at in range(0, len(items), most))


async def variables(session: UaSession, nodes: Sequence[ua.NodeId]) -> tuple[list[Variable], list[ua.NodeId]]:
    """(each variable once, nodes that the server does not know). Nodes of the server itself are left out."""
    found: dict[ua.NodeId, Variable] = {}
    classes = await attributes(session, nodes, ua.AttributeIds.NodeClass)
    names = await attributes(session, nodes, ua.AttributeIds.BrowseName)
    missing, folders = [], []
    for node, kind, name in zip(nodes, classes, names, strict=True):
        if kind is None:
            missing.append(node)
            continue
        folders.append(node)
        if kind == ua.NodeClass.Variable:
            found[node] = Variable(id=node, name=name.Name if name else "")
    seen = set(nodes)
    while folders:
        below = [ref for node in in_calls(folders) for ref in await _below(session, node)]
        folders = []
        for reference in below:
            node = ua.NodeId(reference.NodeId.Identifier, reference.NodeId.NamespaceIndex, reference.NodeId.NodeIdType)
            if node in seen or node.NamespaceIndex == 0:
                continue
            seen.add(node)
            folders.append(node)
            if reference.NodeClass == ua.NodeClass.Variable:
                found[node] = Variable(id=node, name=reference.BrowseName.Name or "")
    return list(found.values()), missing


async def attributes(session: UaSession, nodes: Sequence[ua.NodeId], which: ua.AttributeIds) -> list[Any]:
    """One attribute of each node; None where it has none."""
    found = [v for part in in_calls(nodes) for v in await session.read_attributes(list(part), which)]
    return [v.Value.Value if v.StatusCode.is_good() and v.Value is not None else None for v in found]


async def keep_history(session: UaSession, nodes: Sequence[ua.NodeId]) -> list[bool]:
    """Which of the variables have a history that we may read."""
    levels = await attributes(session, nodes, ua.AttributeIds.UserAccessLevel)
    return [isinstance(level, int) and bool(level & (1 << ua.AccessLevel.HistoryRead)) for level in levels]


async def _below(session: UaSession, nodes: Sequence[ua.NodeId]) -> list[ua.ReferenceDescription]:
    """What hangs below nodes; properties (a unit, a range) are no variables of the plant."""
    wanted = ua.BrowseParameters()
    wanted.NodesToBrowse = [_asked(node) for node in nodes]
    results = await session.browse(wanted)
    found = [ref for result in results for ref in result.References or ()]
    while points := [r.ContinuationPoint for r in results if r.ContinuationPoint]:
        more = ua.BrowseNextParameters()
        more.ContinuationPoints = points
        results = await session.browse_next(more)
        found += [ref for result in results for ref in result.References or ()]
    return [ref for ref in found if ref.ReferenceTypeId != ua.NodeId(ua.ObjectIds.HasProperty)]


def _asked(node: ua.NodeId) -> ua.BrowseDescription:
    asked = ua.BrowseDescription()
    asked.NodeId = node
    asked.BrowseDirection = ua.BrowseDirection.Forward
    asked.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    asked.IncludeSubtypes = True
    asked.NodeClassMask = ua.UInt32(CLASSES)
    asked.ResultMask = ua.UInt32(ua.BrowseResultMask.All)
    return asked
