"""What an MQTT broker's address and certificates come to, for who reads from one and who writes to one."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from penstock.errors import PenstockError
from penstock.speed.source import Access

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_S = 10
"""A broker that is silent for twice as long is given up, and connected to again."""


def address_of(url: str) -> tuple[str, int] | None:
    """Host and port; None where it is no broker's address."""
    parts = urlsplit(url)
    return (parts.hostname, parts.port or PORTS[parts.scheme]) if parts.scheme in PORTS and parts.hostname else None


def encrypted(url: str) -> bool:
    """Whether it is spoken to over TLS."""
    return url.startswith("mqtts:")


def context_of(what: str, access: Access, error: type[PenstockError]) -> ssl.SSLContext:
    """TLS that checks the broker, and shows our certificate where we have one. Raises `error`, naming `what`."""
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
        if access.cert_file is not None:
            context.load_cert_chain(access.cert_file, access.key_file)
    except (OSError, ssl.SSLError) as why:
        raise error(f"{what}: its certificates cannot be read ({why})") from why
    return context
