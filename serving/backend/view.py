"""All slots at one moment, as one immutable value: what a request reads once and then works with.

Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .host import F32, Host


@dataclass(frozen=True)
class Resident:
    """The member in one slot."""

    slot: int
    name: str
    version: int
    digest: str
    """sha256 of what was deployed, given by the deployer."""
    card: dict[str, Any]
    """The artifact's card, for those who ask what is deployed."""
    kind: str
    shape: tuple[int, int, int]
    """T, F, O"""
    host: str
    """Key of `View.hosts`."""
    row: int
    """Row in the host."""
    born: int
    """Another number for each one that is admitted."""
    golden: tuple[F32, F32, F32]
    """windows [g, T, F], predictions [g, O], scale [O]"""


@dataclass(frozen=True)
class View:
    """All slots at one moment."""

    generation: int
    residents: Mapping[int, Resident]
    published: Mapping[str, int]
    """Name -> slot."""
    hosts: Mapping[str, Host]
    table: NDArray[np.int64]
    """[capacity, 8]: host number (-1: empty), row, version, crc32 of the name, T, F, O, born; for vector look-ups."""
    order: tuple[str, ...]
    """Host number -> key."""


def view_of(
    capacity: int,
    generation: int,
    residents: Mapping[int, Resident],
    published: Mapping[str, int],
    hosts: Mapping[str, Host],
) -> View:
    """A view with its look-up table built."""
    order = tuple(hosts)
    number = {key: i for i, key in enumerate(order)}
    table = np.zeros((capacity, 8), np.int64)
    table[:, 0], table[:, 2] = -1, -1
    for slot, r in residents.items():
        table[slot] = (number[r.host], r.row, r.version, zlib.crc32(r.name.encode()), *r.shape, r.born)
    return View(generation, dict(residents), dict(published), dict(hosts), table, order)
