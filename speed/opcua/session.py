"""A session with an OPC UA server: encrypted where we have a certificate, with a server that we were told to trust.

asyncua does the protocol. What goes wrong is a SourceError that says what to do about it. Knows nothing of readings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from penstock.errors import SourceError
from penstock.speed.opcua.certificates import Security, distrust, security
from penstock.speed.source import Access

PORT = 4840
ANSWER_S = 10.0
"""A server that takes longer over an answer is given up, and connected to again."""
LOOK_S = 5.0
"""How often the server is asked whether it is still there."""
LEAVE_S = 3.0
USER = ("BadUserAccessDenied", "BadIdentityTokenRejected", "BadIdentityTokenInvalid")
CERTIFICATE = (
    "BadCertificate",
    "BadSecurityChecksFailed",
    "BadApplicationSignatureInvalid",
    "BadSecurityPolicyRejected",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """An address that can be used, and what to show there."""

    name: str
    """The source's, for messages."""
    url: str
    client: str
    user: str | None
    password: str | None
    security: Security | None

    @property
    def place(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc


def door(name: str, access: Access) -> Door:
    """As site.toml says. Raises SourceError for an address or certificates that cannot be used."""
    parts = urlsplit(access.url)
    try:
        port = parts.port or PORT
    except ValueError:
        port = 0
    if parts.scheme != "opc.tcp" or not parts.hostname or not port:
        raise SourceError(f"source {name}: url is {access.url}; give opc.tcp://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Door(
        name=name, url=f"opc.tcp://{host}:{port}{parts.path}", client=access.client, user=access.user,
        password=access.password, security=security(name, access),
    )  # fmt: skip


@asynccontextmanager
async def entered(door: Door) -> AsyncIterator[tuple[Client, asyncio.Event]]:
    """(a client with a session, an event that is set when the connection is lost).

    Raises SourceError where there is none to be had.
    """
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what matters of it stands on the link
    client, lost = Client(door.url, timeout=ANSWER_S, watchdog_intervall=LOOK_S), asyncio.Event()

    async def gone(error: Exception) -> None:
        lost.set()

    client.connection_lost_callback = gone
    client.name = client.description = door.client
    client.application_uri = door.security.uri if door.security else f"urn:{door.client}"
    if door.user is not None:
        client.set_user(door.user)
        client.set_password(door.password or "")
    try:
        if door.security is not None:
            await _secure(client, door.security, door)
        await client.connect()
    except (OSError, TimeoutError, ua.UaError) as error:
        await _leave(client)
        raise SourceError(_why(error, door)) from error
    except BaseException:
        await _leave(client)
        raise
    try:
        yield client, lost
    finally:
        await _leave(client)


async def _leave(client: Client) -> None:
    """Say farewell; the server may be gone."""
    with suppress(Exception):
        await asyncio.wait_for(client.disconnect(), LEAVE_S)
    with suppress(Exception):
        client.disconnect_socket()


async def _secure(client: Client, security: Security, door: Door) -> None:
    """Encrypt; the server's certificate is checked before anything is said to it."""
    offered = await client.connect_and_get_server_endpoints()
    policy, mode = SecurityPolicyBasic256Sha256, ua.MessageSecurityMode.SignAndEncrypt
    fit = [e for e in offered if e.SecurityPolicyUri == policy.URI and e.SecurityMode == mode and e.ServerCertificate]
    if not fit:
        raise SourceError(f"{door.place} offers no SignAndEncrypt with Basic256Sha256; have it switched on there")
    shown = fit[0].ServerCertificate
    if (why := distrust(shown, security.trusted, datetime.now(UTC))) is not None:
        raise SourceError(f"{door.place} shows a certificate that {why}; if it is the right one, put it into ca_file")
    await client.set_security(policy, security.certificate, security.key, server_certificate=shown)


def _why(error: Exception, door: Door) -> str:
    """What went wrong, and what to do about it."""
    code = str(getattr(error, "code", "") and type(error).__name__)
    if code in USER:
        return f"{door.place} refuses user {door.user or '(none)'}: set user and password_file in site.toml ({code})"
    if code.startswith(CERTIFICATE):
        return f"{door.place} refuses our certificate; have it trusted there ({code})"
    if "No matching endpoints" in str(error):
        return f"{door.place} wants an encrypted session: set cert_file, key_file and ca_file in site.toml"
    return f"{door.place} cannot be reached ({str(error) or type(error).__name__})"
