"""Frames over a socket, between the engine and a member's own process; both sides read and write with this file.

    frame length, uint64 | frame of framing.py

Nothing waits longer than it is told to. Imports nothing of penstock.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from .framing import pack, unpack

_LENGTH = struct.Struct("<Q")
MOST_BYTES = 2 << 30
"""A longer frame is a stream that has lost its place."""
READY_S = 0.001
"""What has arrived already is read even after the deadline."""


class Gone(Exception):
    """The other side has ended, or closed its end."""


def send(link: socket.socket, header: Mapping[str, Any], parts: Mapping[str, bytes], until: float | None) -> None:
    """Write one frame. `until` is monotonic seconds, None: for ever.

    Raises TimeoutError, Gone.
    """
    frame = pack(header, parts)
    link.settimeout(_left(until))
    try:
        link.sendall(_LENGTH.pack(len(frame)) + frame, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Gone(str(error)) from error


def receive(link: socket.socket, until: float | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read one frame. Raises TimeoutError; Gone at its end; ValueError where the bytes are no frame."""
    (length,) = _LENGTH.unpack(_exactly(link, _LENGTH.size, until))
    if length > MOST_BYTES:
        raise ValueError(f"a frame of {length} bytes: somebody else has written to this socket")
    return unpack(_exactly(link, length, until))


def _exactly(link: socket.socket, size: int, until: float | None) -> bytes:
    found = bytearray(size)
    at = 0
    while at < size:
        link.settimeout(_left(until))
        try:
            read = link.recv_into(memoryview(found)[at:])
        except ConnectionResetError as error:
            raise Gone(str(error)) from error
        if not read:
            raise Gone("the other side has ended")
        at += read
    return bytes(found)


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - time.monotonic(), READY_S)
