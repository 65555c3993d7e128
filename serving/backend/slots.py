"""The engine's slots: which member stands where, on disk and in memory.

One worker thread changes them; requests read `view`, an immutable value, once
each. Files in the state folder: `<slot>.slot` (the frame that wrote it) and
`published.json`. Both are renamed into place, so a restart at any moment finds
exactly what was published. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forward import F32, Shape, shape_of
from .framing import unpack
from .golden import Refusal, arrays_of, golden_of, mismatch
from .hosts import Group, Host, Solo

IDLE_S = 300.0
"""An unpublished slot that nobody has asked for this long may be taken again."""


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
    """[capacity, 7]: host number (-1: empty), row, version, crc32 of the name, T, F, O; for vector look-ups."""
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
    table = np.zeros((capacity, 7), np.int64)
    table[:, 0], table[:, 2] = -1, -1
    for slot, r in residents.items():
        table[slot] = (number[r.host], r.row, r.version, zlib.crc32(r.name.encode()), *r.shape)
    return View(generation, dict(residents), dict(published), dict(hosts), table, order)


class Slots:
    """The slots and their files. Only the engine's worker thread may call what changes them."""

    def __init__(self, folder: Path, models: Path, capacity: int) -> None:
        """`folder` keeps the state; `models` is Triton's repository."""
        self.folder, self.models = folder, models
        self.capacity = capacity
        self.broken: dict[str, str] = {}
        """Published members that could not be read again at start, with the reason."""
        self.used_at = np.zeros(capacity)
        """Monotonic seconds of the last request per slot."""
        # From the clock, so that it moves on even where the state folder was lost.
        self.view = view_of(capacity, int(time.time() * 1000), {}, {}, {})
        folder.mkdir(parents=True, exist_ok=True)
        self._restore()

    def write(self, frame: bytes) -> Resident:
        """Take the member of `frame` into a free slot, checked; not yet published.

        Raises Refusal with the reason.
        """
        slot = self._free_slot()
        resident = self._admit(frame, slot)
        _replace(self.folder / f"{slot}.slot", frame)
        return resident

    def publish(self, name: str, slot: int) -> int:
        """`name` is answered by `slot` from now on; the new generation.

        Raises Refusal when the slot holds something else.
        """
        resident = self.view.residents.get(slot)
        if resident is None or resident.name != name:
            raise Refusal(f"slot {slot} does not hold {name}: it was freed meanwhile; deploy again")
        return self._publish({**self.view.published, name: slot})

    def withdraw(self, name: str) -> int:
        """`name` is published no more; its slot stays until freed."""
        return self._publish({k: v for k, v in self.view.published.items() if k != name})

    def free(self, slot: int, quiet_s: float = 0.0) -> bool:
        """Empty an unpublished slot that nobody has asked for `quiet_s`; whether it is empty now.

        Raises Refusal when it is published.
        """
        if slot in self.view.published.values():
            raise Refusal(f"slot {slot} is published: deploy another version or withdraw it first")
        resident = self.view.residents.get(slot)
        if resident is None:
            return True
        if time.monotonic() - self.used_at[slot] < quiet_s:
            return False
        view = self.view
        hosts = dict(view.hosts)
        left = hosts[resident.host].drop(resident.row)
        hosts.pop(resident.host) if left is None else hosts.update({resident.host: left})
        residents = {s: r for s, r in view.residents.items() if s != slot}
        self.view = view_of(self.capacity, view.generation, residents, view.published, hosts)
        (self.folder / f"{slot}.slot").unlink(missing_ok=True)
        return True

    def _free_slot(self) -> int:
        now = time.monotonic()
        taken = set(self.view.residents)
        for slot in sorted(taken - set(self.view.published.values())):
            self.free(slot, IDLE_S)  # left behind by a deployer that died
        free = (s for s in range(self.capacity) if s not in self.view.residents)
        slot = next(free, -1)
        if slot < 0:
            raise Refusal(f"all {self.capacity} slots are taken: undeploy a model or start with more capacity")
        self.used_at[slot] = now
        return slot

    def _admit(self, frame: bytes, slot: int) -> Resident:
        """Into the view, after the golden check."""
        header, parts = unpack(frame)
        golden = golden_of(parts["golden"])
        rows, features = golden[0].shape[1:]
        key, host, row = f"solo {slot}", None, 0  # type: str, Host | None, int
        if header["kind"] == "solo":
            host = self._solo(parts["saved_model"], rows, features)
        else:
            key, host, row = self._join(arrays_of(parts["serving"]), rows, features)
        reason = mismatch(host, row, golden)
        if reason:
            raise Refusal(f"{header['name']}@{header['version']}: {reason}")
        resident = Resident(
            slot=slot,
            name=header["name"],
            version=int(header["version"]),
            digest=header["digest"],
            card=header["card"],
            kind=header["kind"],
            shape=(rows, features, golden[1].shape[1]),
            host=key,
            row=row,
            golden=golden,
        )
        view = self.view
        residents = {**view.residents, slot: resident}
        self.view = view_of(self.capacity, view.generation, residents, view.published, {**view.hosts, key: host})
        return resident

    def _join(self, arrays: dict[str, F32], rows: int, features: int) -> tuple[str, Host, int]:
        try:
            shape: Shape = shape_of(arrays, rows)
        except ValueError as error:
            raise Refusal(str(error)) from error
        if shape.features != features:
            raise Refusal(f"the golden windows have {features} columns, the weights expect {shape.features}")
        key = f"lstm {shape.rows}x{shape.features} {shape.units} {shape.outputs}"
        group = self.view.hosts.get(key) or Group.begin(shape)
        assert isinstance(group, Group)
        host, row = group.add(arrays)
        return key, host, row

    def _solo(self, archive: bytes, rows: int, features: int) -> Solo:
        solo = Solo.load(archive, self.folder)
        solo.warm(rows, features)
        return solo

    def _publish(self, published: Mapping[str, int]) -> int:
        view = self.view
        generation = view.generation + 1
        text = json.dumps({"generation": generation, "published": dict(published)})
        _replace(self.folder / "published.json", text.encode())
        self._list(published)
        self.view = view_of(self.capacity, generation, view.residents, published, view.hosts)
        return generation

    def _list(self, published: Mapping[str, int]) -> None:
        """An empty folder per published name: Triton's index lists only names that it finds on disk.

        Where the repository is read only, models answer and are merely not listed.
        """
        with suppress(OSError):
            for name in published:
                (self.models / name).mkdir(exist_ok=True)
            for name in set(self.view.published) - set(published):
                (self.models / name).rmdir()

    def _restore(self) -> None:
        """Read published slots again; what was never published is removed."""
        listing = self.folder / "published.json"
        stored: dict[str, Any] = {"generation": 0, "published": {}}
        if listing.exists():
            stored = json.loads(listing.read_bytes())
        published: dict[str, int] = stored["published"]
        kept = {f"{slot}.slot" for slot in published.values()} | {"published.json"}
        for path in self.folder.iterdir():
            if path.is_dir():  # a SavedModel that was being loaded
                shutil.rmtree(path)
            elif path.name not in kept:
                path.unlink()
        alive = {}
        for name, slot in published.items():
            try:
                self._admit((self.folder / f"{slot}.slot").read_bytes(), slot)
                alive[name] = slot
            except (OSError, ValueError, KeyError, IndexError, Refusal) as error:
                self.broken[name] = f"slot {slot}: {error}"
        self.view = replace(self.view, generation=max(stored["generation"], self.view.generation))
        if published:
            self._publish(alive)


def _replace(path: Path, data: bytes) -> None:
    """Write durably and whole, or not at all."""
    aside = path.with_name(path.name + ".new")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
