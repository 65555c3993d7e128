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
            node = _local(reference)
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


async def properties(session: UaSession, nodes: Sequence[ua.NodeId], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Values of the properties called `wanted` of each node, where it has them."""
    where: list[tuple[int, str, ua.NodeId]] = []
    at = 0
    for group in in_calls(nodes):
        for references in await _references(session, group, ua.ObjectIds.HasProperty):
            where += [(at, r.BrowseName.Name, _local(r)) for r in references if r.BrowseName.Name in wanted]
            at += 1
    found: list[dict[str, Any]] = [{} for _ in nodes]
    values = await attributes(session, [node for _, _, node in where], ua.AttributeIds.Value)
    for (of, name, _), value in zip(where, values, strict=True):
        if value is not None:
            found[of][name] = value
    return found


async def keep_history(session: UaSession, nodes: Sequence[ua.NodeId]) -> list[bool]:
    """Which of the variables have a history that we may read."""
    levels = await attributes(session, nodes, ua.AttributeIds.UserAccessLevel)
    return [isinstance(level, int) and bool(level & (1 << ua.AccessLevel.HistoryRead)) for level in levels]


async def _below(session: UaSession, nodes: Sequence[ua.NodeId]) -> list[ua.ReferenceDescription]:
    """What hangs below nodes; properties (a unit, a range) are no variables of the plant."""
    found = await _references(session, nodes, ua.ObjectIds.HierarchicalReferences)
    return [r for each in found for r in each if r.ReferenceTypeId != ua.NodeId(ua.ObjectIds.HasProperty)]


async def _references(session: UaSession, nodes: Sequence[ua.NodeId], kind: int) -> list[list[ua.ReferenceDescription]]:
    """References of a kind, forward, per node; a server may answer in parts."""
    wanted = ua.BrowseParameters()
    wanted.NodesToBrowse = [_asked(node, kind) for node in nodes]
    results = await session.browse(wanted)
    found: list[list[ua.ReferenceDescription]] = [[] for _ in nodes]
    open_at = list(range(len(nodes)))
    while True:
        for at, result in zip(open_at, results, strict=True):
            found[at] += result.References or ()
        left = [(at, r.ContinuationPoint) for at, r in zip(open_at, results, strict=True) if r.ContinuationPoint]
        if not left:
            return found
        open_at = [at for at, _ in left]
        more = ua.BrowseNextParameters()
        more.ContinuationPoints = [point for _, point in left]
        results = await session.browse_next(more)


def _local(reference: ua.ReferenceDescription) -> ua.NodeId:
    """A reference's target: an ExpandedNodeId, which is equal to no NodeId."""
    node = reference.NodeId
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _asked(node: ua.NodeId, kind: int) -> ua.BrowseDescription:
    asked = ua.BrowseDescription()
    asked.NodeId = node
    asked.BrowseDirection = ua.BrowseDirection.Forward
    asked.ReferenceTypeId = ua.NodeId(kind)
    asked.IncludeSubtypes = True
    asked.NodeClassMask = ua.UInt32(CLASSES)
    asked.ResultMask = ua.UInt32(ua.BrowseResultMask.All)
    return asked
