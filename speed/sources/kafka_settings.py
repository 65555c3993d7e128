"""What librdkafka is told: from site.toml, and what penstock's promises need."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from confluent_kafka import Consumer, KafkaException

from penstock.errors import SourceError
from penstock.speed.source import Access

log = logging.getLogger(__name__)

PORT = 9092
OURS = {
    "enable.auto.commit": "false",  # the journal says what is durable, and the group is told afterwards
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",  # what is gone at the broker is told, not skipped in silence
    "enable.partition.eof": "true",
}
"""Not to be changed: the promises rest on them."""
USUAL = {
    "socket.timeout.ms": "10000",  # librdkafka waits a minute for a broker that hangs
    "fetch.queue.backoff.ms": "20",  # a full queue is empty again within milliseconds, not a second
    "queued.max.messages.kbytes": "32768",
    "log.connection.close": "false",  # brokers close idle connections: no news
    "enable.metrics.push": "false",  # we only read
}
"""As we want them, unless `options` say otherwise."""


def settings(name: str, access: Access) -> dict[str, str]:
    """librdkafka's configuration of a source. Raises SourceError for what it cannot use, or must not change."""
    for key in access.options:
        if key in OURS or key == "bootstrap.servers":
            raise SourceError(f"source {name}: options: {key} is penstock's own; take it out of site.toml")
    who = f"{access.client}-{name}"
    found = {"client.id": who, "group.id": who, **USUAL, **_secrets(name, access), **access.options, **OURS}
    _check(name, found)
    return found | {"bootstrap.servers": _servers(name, access.url)}


def _servers(name: str, url: str) -> str:
    """kafka://a:9092,b -> a:9092,b:9092"""
    parts = urlsplit(url)
    hosts = [host for host in parts.netloc.split(",") if host]
    if parts.scheme != "kafka" or not hosts:
        raise SourceError(f"source {name}: url is {url}; give kafka://HOST:PORT, several hosts separated by commas")
    return ",".join(host if ":" in host else f"{host}:{PORT}" for host in hosts)


def _secrets(name: str, access: Access) -> dict[str, str]:
    """TLS where a certificate is given, SASL where a user is; the mechanism is PLAIN unless `options` name one."""
    files = {"ssl.ca.location": access.ca_file, "ssl.certificate.location": access.cert_file}
    files["ssl.key.location"] = access.key_file
    found = {}
    for key, path in files.items():
        if path is not None:
            with _readable(name):
                path.open("rb").close()
            found[key] = str(path)
    protocol = ("SASL_" if access.user is not None else "") + ("SSL" if found else "PLAINTEXT")
    if access.user is not None:
        found |= {"sasl.mechanism": "PLAIN", "sasl.username": access.user, "sasl.password": access.password or ""}
    return found | {"security.protocol": protocol}


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"source {name}: its certificates cannot be read ({error})") from error


def _check(name: str, found: dict[str, str]) -> None:
    """A client without brokers, so that librdkafka judges its settings now and not when the stream runs."""
    try:
        Consumer(found, logger=log)
    except KafkaException as error:
        why = error.args[0].str()
        raise SourceError(f"source {name}: {why}; see its options and files in site.toml") from error
