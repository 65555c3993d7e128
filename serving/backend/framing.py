"""One frame for admin requests and for slot files: a JSON header and named parts of bytes.

    "PSF1" | crc32 of the rest, uint32 | header length, uint32 | header | parts, one after the other

Copied into Triton's repository beside the engine, so it imports nothing of
penstock; the client's side imports this same file.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

MAGIC = b"PSF1"
_HEAD = struct.Struct("<4sII")


def pack(header: Mapping[str, Any], parts: Mapping[str, bytes] | None = None) -> bytes:
    """The frame of `header` (JSON values) and `parts`; the header gains the key ``parts``."""
    parts = parts or {}
    text = json.dumps({**header, "parts": {k: len(v) for k, v in parts.items()}}).encode()
    body = b"".join([text, *parts.values()])
    crc = zlib.crc32(struct.pack("<I", len(text)) + body)
    return _HEAD.pack(MAGIC, crc, len(text)) + body


def unpack(frame: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Header and parts of a frame.

    Raises ValueError when it is cut, damaged or no frame at all.
    """
    if len(frame) < _HEAD.size or frame[:4] != MAGIC:
        raise ValueError("not a penstock frame")
    _, crc, length = _HEAD.unpack_from(frame)
    if zlib.crc32(frame[8:]) != crc:
        raise ValueError(f"a frame of {len(frame)} bytes fails its checksum: cut or damaged")
    at = _HEAD.size + length
    header = json.loads(frame[_HEAD.size : at])
    parts = {}
    for name, size in header.pop("parts").items():
        parts[name] = frame[at : at + size]
        at += size
    return header, parts
