"""What the state folder says is published, read without the engine that keeps it (`backend/slots.py`).

So a start can give Triton every alias together with the engine: loaded in one go, 500 take seconds; one by one, each
of Triton's loads copies the configurations of all the others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from penstock.serving.backend.framing import unpack

UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, BadZipFile)
"""Of a file that was cut or damaged. The engine finds it too, and tells it as broken with its reason."""

Mark = tuple[int, int, str]
"""Version, slot and digest of a published member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A published member, as its slot's file has it. Whether it is right is for the engine to say."""

    name: str
    version: int
    slot: int
    digest: str
    shape: tuple[int, int, int]
    """T, F, O."""
    card: dict[str, Any]

    @property
    def mark(self) -> Mark:
        """What tells it from another state of the same name."""
        return self.version, self.slot, self.digest


def kept(state: Path) -> Iterator[Kept]:
    """The published members, one by one, as their cards are large; those that cannot be read are left out."""
    for name, slot in _published(state).items():
        found = None
        with suppress(*UNREADABLE):
            found = _read(slot, (state / f"{slot}.slot").read_bytes())
        if found is not None and found.name == name:
            yield found


def _published(state: Path) -> dict[str, int]:
    try:
        return dict(json.loads((state / "published.json").read_bytes())["published"])
    except UNREADABLE:
        return {}


def _read(slot: int, frame: bytes) -> Kept:
    header, parts = unpack(frame)
    return Kept(
        name=str(header["name"]),
        version=int(header["version"]),
        slot=slot,
        digest=str(header["digest"]),
        shape=_shape(parts["golden"]),
        card=dict(header["card"]),
    )


def _shape(golden: bytes) -> tuple[int, int, int]:
    with np.load(io.BytesIO(golden), allow_pickle=False) as arrays:
        _, length, features = arrays["windows"].shape
        return length, features, arrays["predictions"][0].size
