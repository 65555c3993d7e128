"""asyncua's own server with a history that outlives it: runs in a process of its own, see `opcua_process`.

Imported, it builds asyncua's address space, which takes seconds. A reading is written into the history first and then
announced, so what a client was told is never missing from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from asyncua import Server, ua
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from asyncua.server.history_sql import HistorySQLite
from asyncua.server.internal_server import InternalServer
from asyncua.server.standard_address_space import standard_address_space
from asyncua.ua.ua_binary import variant_to_binary
from opcua_process import Known, Reading, Spec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TYPES = {"Float": ua.VariantType.Float, "Double": ua.VariantType.Double, "Boolean": ua.VariantType.Boolean,
         "Int32": ua.VariantType.Int32, "String": ua.VariantType.String}  # fmt: skip


class _Users:
    def __init__(self, users: dict[str, str]) -> None:
        self._users = users

    def get_user(
        self, iserver: object, username: str | None = None, password: str | None = None, certificate: object = None
    ) -> User | None:
        known = not self._users or (username is not None and self._users.get(username) == password)
        return User(role=UserRole.User) if known else None


class _Prepared(InternalServer):
    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:
        """It is there already."""


_PREPARED = _Prepared()
standard_address_space.fill_address_space(_PREPARED.node_mgt_service)


class History(HistorySQLite):
    """Fast enough for a test: the machine does not lose its power."""

    async def init(self) -> None:
        # Python's own converter fails at times of whole seconds with an offset.
        sqlite3.register_converter("TIMESTAMP", lambda text: datetime.fromisoformat(text.decode()))
        await super().init()
        await self._db.execute("PRAGMA journal_mode = WAL")
        await self._db.execute("PRAGMA synchronous = OFF")

    def _get_table_name(self, node_id: ua.NodeId) -> str:
        """asyncua's own has quotes in it for names, and then refuses them."""
        return f"{node_id.NamespaceIndex}_{re.sub('[^A-Za-z0-9]', '_', str(node_id.Identifier))}"

    async def remember(self, said: list[tuple[ua.NodeId, ua.DataValue]]) -> None:
        """As asyncua does one by one, in one commit."""
        for node, value in said:
            await self._db.execute(
                f'INSERT INTO "{self._get_table_name(node)}" VALUES (NULL, ?, ?, ?, ?, ?, ?)',
                (
                    value.ServerTimestamp, value.SourceTimestamp, value.StatusCode.value, str(value.Value.Value),
                    value.Value.VariantType.name, sqlite3.Binary(variant_to_binary(value.Value)),
                ),
            )  # fmt: skip
        await self._db.commit()

    async def newest(self, node: ua.NodeId) -> ua.DataValue | None:
        values, _ = await self.read_node_history(node, None, None, 1)
        return values[0] if values else None


class OpcServer:
    """A server with variables, to be told what they are."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self.history = History(str(spec.folder / "history.sqlite")) if spec.folder is not None else None
        self.server = Server(iserver=_PREPARED)
        self.nodes: dict[str, Node] = {}

    async def start(self) -> None:
        spec, server = self._spec, self.server
        server.iserver.user_manager = _Users(spec.users)
        if self.history is not None:
            server.iserver.history_manager.set_storage(self.history)
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{spec.port}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        if spec.secure is not None:
            await self._secure(spec.secure)
        if spec.users:
            server.set_identity_tokens([ua.UserNameIdentityToken])
        await self._add_variables(await server.register_namespace("urn:small"))
        await server.start()

    async def put(self, readings: list[Reading], aloud: bool) -> None:
        """Into the history, then to everybody who listens, where it is said aloud."""
        said = [(self.nodes[name].nodeid, self._said(name, ns, value, status)) for name, ns, value, status in readings]
        if self.history is not None:
            await self.history.remember(said)
        for node, value in said if aloud else ():
            await self._announce(node, value)

    def _said(self, name: str, ns: int, value: object, status: int) -> ua.DataValue:
        kind = "String" if isinstance(value, str) else self._spec.variables[name]
        return ua.DataValue(
                ua.Variant(value, ua.VariantType.Null if value is None else TYPES[kind]),
                StatusCode=ua.StatusCode(ua.UInt32(status)), SourceTimestamp=EPOCH + timedelta(microseconds=ns // 1000),
                ServerTimestamp=datetime.now(UTC),
            )  # fmt: skip

    async def _announce(self, node: ua.NodeId, said: ua.DataValue) -> None:
        """As a device's driver would: asyncua's own way drops the value of a bad status, and keeps types."""
        kept = self.server.iserver.aspace._nodes[node].attributes[ua.AttributeIds.Value]
        kept.value = said
        for handle, told in list(kept.datachange_callbacks.items()):
            await told(handle, said)

    async def _add_variables(self, namespace: int) -> None:
        root = self._spec.root
        folder = await self.server.nodes.objects.add_folder(
            ua.NodeId(root, namespace), ua.QualifiedName(root, namespace)
        )
        for name, kind in self._spec.variables.items():
            node = await folder.add_variable(
                ua.NodeId(f"{root}.{name}", namespace), ua.QualifiedName(name, namespace),
                ua.Variant(None, ua.VariantType.Null),
                datatype=ua.NodeId(getattr(ua.ObjectIds, kind)),
            )  # fmt: skip
            self.nodes[name] = node
            await self._describe(node, namespace, self._spec.known.get(name, Known()))
            if self.history is not None:
                await node.set_attr_bit(ua.AttributeIds.AccessLevel, ua.AccessLevel.HistoryRead)
                await node.set_attr_bit(ua.AttributeIds.UserAccessLevel, ua.AccessLevel.HistoryRead)
                with contextlib.suppress(sqlite3.Error):
                    await self.history.new_historized_node(node.nodeid, None)
                if (newest := await self.history.newest(node.nodeid)) is not None:
                    await self._announce(node.nodeid, newest)

    async def _describe(self, node: Node, namespace: int, known: Known) -> None:
        if known.unit:
            unit = ua.EUInformation(DisplayName=ua.LocalizedText(known.unit))
            await node.add_property(ua.NodeId(0, namespace), ua.QualifiedName("EngineeringUnits", 0), unit)
        if known.range is not None:
            await node.add_property(ua.NodeId(0, namespace), ua.QualifiedName("EURange", 0), ua.Range(*known.range))
        if known.description:
            said = ua.DataValue(ua.Variant(ua.LocalizedText(known.description), ua.VariantType.LocalizedText))
            await node.write_attribute(ua.AttributeIds.Description, said)

    async def _secure(self, folder: Path) -> None:
        await self.server.load_certificate(folder / "server.der")
        await self.server.load_private_key(folder / "server.key.pem")
        self.server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        store = TrustStore([folder / "trusted"], [])
        await store.load()
        options = CertificateValidatorOptions.TRUSTED | CertificateValidatorOptions.PEER_CLIENT
        self.server.set_certificate_validator(CertificateValidator(options, store))


def serve(spec: Spec, pipe: Connection) -> None:
    """In the process: be there, and do what the pipe says; ends with it."""
    logging.disable(logging.CRITICAL)
    os.environ["PYTHONWARNINGS"] = "ignore"
    asyncio.run(_serve(OpcServer(spec), pipe))


async def _serve(server: OpcServer, pipe: Connection) -> None:
    try:
        await server.start()
        pipe.send(None)
        while True:
            await server.put(*await asyncio.to_thread(pipe.recv))
            pipe.send(None)
    except EOFError:
        pass
    except Exception as error:
        pipe.send(repr(error))
    os._exit(0)
