"""What goes over the wire between a worker and a hatch: a length, a JSON head, bytes.

    magic "PNSH" | bytes of the head, uint32 | bytes of the body, uint64 | head | body        little-endian

A request and its answer are one message each. Both sides refuse what is longer than they expect before they read it.
Knows nothing of what is asked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.errors import BadAnswer

Buffer = bytes | memoryview
Head = dict[str, Any]

PREFIX = struct.Struct("<4sIQ")
MAGIC = b"PNSH"
LARGEST_HEAD = 1 << 20
LARGEST_REQUEST = 16 << 20
"""Bytes of a request's body: ids of four million tags."""
LARGEST_ANSWER = (1 << 30) + (64 << 20)
"""Bytes of an answer's: one record may fill the largest segment of a journal."""


def packed(head: Mapping[str, Any], body: Sequence[Buffer] = ()) -> list[Buffer]:
    """The message's buffers, in order."""
    text = json.dumps(head).encode()
    return [PREFIX.pack(MAGIC, len(text), sum(len(part) for part in body)) + text, *body]


def lengths(prefix: bytes, largest: int) -> tuple[int, int]:
    """Bytes of head and body. Raises BadAnswer for what is no message, or is longer than `largest`."""
    magic, head, body = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise BadAnswer("not a message of a penstock hatch; is something else at this address?")
    if head > LARGEST_HEAD or body > largest:
        raise BadAnswer(f"a message of {head} + {body} bytes; at most {LARGEST_HEAD} + {largest} are taken")
    return head, body


def head_of(text: bytes) -> Head:
    """Raises BadAnswer for what is no JSON object."""
    try:
        head = json.loads(text)
    except ValueError as error:
        raise BadAnswer(f"a message's head is no JSON: {error}") from error
    if not isinstance(head, dict):
        raise BadAnswer("a message's head is no JSON object")
    return head
