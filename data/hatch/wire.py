"""A worker's connection to a hatch: questions out, answers in, one after the other.

Kept between questions and made again where it broke: every question may be asked twice. For one thread. What TLS asks
for comes from the caller; what the hatch refuses is raised here as what it was there.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from urllib.parse import urlsplit

from penstock import errors
from penstock.data.hatch.message import LARGEST_ANSWER, PREFIX, Buffer, Head, head_of, lengths, packed
from penstock.errors import BadAnswer, PenstockError, Unavailable

CONNECT_S = 5.0
ANSWER_S = 30.0
"""Longest time for one answer, a page of 60 MB among them."""


class Wire:
    """To one hatch; `close` it."""

    def __init__(self, address: str, tls: ssl.SSLContext, *, answer_s: float = ANSWER_S) -> None:
        """`address`: host:port. Connects when something is asked."""
        self.address = address
        self._tls, self._answer_s = tls, answer_s
        self._socket: ssl.SSLSocket | None = None

    def ask(self, head: Head, body: Buffer = b"") -> tuple[Head, bytearray]:
        """Head and body of the answer.

        Raises Unavailable where none comes, BadAnswer for garbage, and what the hatch raised: JournalError,
        ArchiveError, SiteError, BadRequest.
        """
        kept = self._socket is not None
        try:
            answer = self._once(head, body)
        except (OSError, EOFError) as error:
            self.close()
            if not kept or isinstance(error, TimeoutError):
                raise self._unreached(error) from error
            try:  # the hatch lets go of a wire that says nothing for long
                answer = self._once(head, body)
            except (OSError, EOFError) as again:
                self.close()
                raise self._unreached(again) from again
        except BadAnswer:
            self.close()
            raise
        if "error" in answer[0]:
            raise _raised(answer[0])
        return answer

    def __del__(self) -> None:
        """A thread that ends takes its connections along."""
        self.close()

    def close(self) -> None:
        """Hang up; a later question connects again."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket = None

    def _once(self, head: Head, body: Buffer) -> tuple[Head, bytearray]:
        deadline = time.monotonic() + self._answer_s
        if self._socket is None:
            self._socket = self._connected()
        self._socket.settimeout(self._answer_s)
        for part in packed(head, [body]):
            self._socket.sendall(part)
        told, length = lengths(bytes(self._received(PREFIX.size, deadline)), LARGEST_ANSWER)
        return head_of(bytes(self._received(told, deadline))), self._received(length, deadline)

    def _connected(self) -> ssl.SSLSocket:
        parts = urlsplit(f"//{self.address}")
        plain = socket.create_connection((parts.hostname, parts.port), CONNECT_S)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls.wrap_socket(plain, server_hostname=parts.hostname)
        except BaseException:
            plain.close()
            raise

    def _received(self, length: int, deadline: float) -> bytearray:
        assert self._socket is not None
        found = bytearray(length)
        view, at = memoryview(found), 0
        while at < length:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no whole answer within {self._answer_s:g} s")
            self._socket.settimeout(left_s)
            got = self._socket.recv_into(view[at:], length - at)
            if not got:
                raise EOFError("the connection was closed")
            at += got
        return found

    def _unreached(self, error: Exception) -> Unavailable:
        if isinstance(error, ssl.SSLError):
            return Unavailable(
                f"records at {self.address}: TLS failed: {error}; the certificates of this worker and of site.toml "
                "must come from one authority"
            )
        return Unavailable(
            f"records at {self.address}: no answer: {error or type(error).__name__}; does the command that uses this "
            "worker still run, and may the worker reach that port? See dask.records in site.toml"
        )


def _raised(head: Head) -> PenstockError:
    """What the hatch raised, as itself where it is one of ours."""
    kind = getattr(errors, str(head["error"]), None)
    text = str(head.get("text", ""))
    if isinstance(kind, type) and issubclass(kind, PenstockError) and kind.__init__ is Exception.__init__:
        return kind(text)
    return errors.BadRequest(text)
