"""TLS as Dask has it: one authority, a certificate for everybody, both sides look.

A worker goes to a site's hatch with the certificate by which it is a worker; the hatch listens with the one by which
its process is a client. Who was given none by this authority is nobody. Addresses are not compared with what
certificates say, as in Dask: the authority is to be the cluster's own.
"""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from distributed import Security, get_worker

from penstock.data.hatch import Hatch, Wire
from penstock.errors import SiteError, Unavailable

WIRES = 8
"""Kept per thread: to the hatches of so many commands."""
LOOK_S = 5.0
_MINE = threading.local()


def security(ca: Path | None, cert: Path | None, key: Path | None) -> Security:
    """What these files make, for every role; Dask's own configuration says what is None.

    Raises SiteError for files that cannot be read, or do not belong together.
    """
    given = {"tls_ca_file": ca, "tls_client_cert": cert, "tls_client_key": key}
    made = Security(require_encryption=True, **{name: str(path) for name, path in given.items() if path is not None})
    listening(made)
    return made


def listening(made: Security) -> ssl.SSLContext:
    """For the side that listens: asks who connects for a certificate. Raises SiteError."""
    return _context(made, "client", listens=True)


def wire_to(hatch: Hatch) -> Wire:
    """This thread's connection to a hatch, with this Dask worker's certificate. Raises Unavailable."""
    wires: dict[Hatch, Wire] = _MINE.__dict__.setdefault("wires", {})
    if hatch not in wires:
        while len(wires) >= WIRES:
            wires.pop(next(iter(wires))).close()
        wires[hatch] = Wire(hatch.address, _of_this_worker())
    return wires[hatch]


def _of_this_worker() -> ssl.SSLContext:
    try:
        made = get_worker().security
    except ValueError:  # no worker's thread: Dask's configuration
        made = Security()
    try:
        return _context(made, "worker", listens=False)
    except SiteError as error:
        raise Unavailable(
            f"a Dask worker that cannot read the site has no certificate to fetch records with: {error}"
        ) from error


def _context(made: Security, role: str, *, listens: bool) -> ssl.SSLContext:
    said = made.get_tls_config_for_role(role)
    files = ", ".join(f"{name} {said[name]}" for name in ("ca_file", "cert", "key") if said[name])
    try:
        args = made.get_listen_args(role) if listens else made.get_connection_args(role)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SiteError(f"TLS of Dask: {why} ({files}); see dask.ca_file, cert_file and key_file") from error
    context: ssl.SSLContext | None = args["ssl_context"]
    if context is None:
        raise SiteError(
            f"TLS of Dask: a certificate and its authority are missing ({files or 'none given'}); give dask.ca_file, "
            "cert_file and key_file in site.toml, or distributed.comm.tls in Dask's configuration"
        )
    return context


def own_address(scheduler: str) -> str:
    """host:0 of this machine as those see it who see the scheduler. Raises Unavailable."""
    parts = urlsplit(scheduler)
    try:
        with socket.create_connection((parts.hostname, parts.port), LOOK_S) as plain:
            host: str = plain.getsockname()[0]
    except (OSError, ValueError) as error:
        raise Unavailable(f"no Dask scheduler answers at {scheduler}: {error}; is it running there?") from error
    return f"[{host}]:0" if ":" in host else f"{host}:0"


def refusal(address: str, made: Security) -> str | None:
    """Why the TLS listener at `address` (tls://host:port) and we do not agree; None: it does not seem to be about TLS.

    Asked once Dask has given up: it only says that it timed out.
    """
    parts = urlsplit(address)
    try:
        with (
            socket.create_connection((parts.hostname, parts.port), LOOK_S) as plain,
            _context(made, "client", listens=False).wrap_socket(plain) as wrapped,
        ):
            wrapped.settimeout(LOOK_S)
            # What the other side thinks of our certificate is told when the handshake is over.
            return None if wrapped.recv(1) else "it hung up after the handshake"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused: {error.verify_message}; is ca_file that of its authority?"
    except ssl.SSLError as error:
        return f"{error.reason or error}; is cert_file from the scheduler's authority, and does it speak TLS?"
    except (OSError, ValueError, SiteError):
        return None
