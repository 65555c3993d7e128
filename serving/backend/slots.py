"""The engine's slots: which member stands where, on disk and in memory.

One worker thread changes them; requests read `view`, an immutable value, once
each. Files in the state folder: `<slot>.slot` (the frame that wrote it) and
`published.json`. Both are renamed into place, so a restart at any moment finds
exactly what was published. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from . import durable
from .admission import alone, hosted, prepared
from .choices import FILE, remember
from .framing import unpack
from .golden import TOLERANCE, Refusal, golden_of
from .group import Group
from .isolated import Isolated
from .solo import Solo
from .trials import entry_of, optimized
from .view import Resident, view_of

RESTORE_S = 30.0
"""How long a start waits for isolated members; the others answer meanwhile as soon as it ends."""
IDLE_S = 300.0
"""An unpublished slot that nobody has asked for this long may be taken again."""


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
        self._born = count(1)
        folder.mkdir(parents=True, exist_ok=True)
        self._restore()

    def write(self, frame: bytes) -> Resident:
        """Take the member of `frame` into a free slot, checked; not yet published.

        Raises Refusal with the reason.
        """
        slot = self._free_slot()
        resident = self._admit(frame, slot, trusted=False)
        durable.write(self.folder / f"{slot}.slot", frame)
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

    def optimize(self, tolerance: float) -> dict[str, Any]:
        """Try, for every group, all ways to execute it, and take the fastest right one; what was chosen, by group."""
        chosen = {}
        for key, host in self.view.hosts.items():
            members = {r.row: r.golden for r in self.view.residents.values() if r.host == key}
            if isinstance(host, Group) and members:
                group, trials = optimized(host, members, tolerance)
                view = self.view
                live = {n: r.version for n, s in view.published.items() if (r := view.residents[s]).host == key}
                entry = entry_of(group.variant.name, group.tolerance, len(members), trials)
                chosen[key] = remember(self.folder, key, entry) | {"live": live}
                hosts = {**view.hosts, key: group}
                self.view = view_of(self.capacity, view.generation, view.residents, view.published, hosts)
        return chosen

    def execute(self, resident: Resident, solo: Solo, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """`resident` is executed by `solo` from now on; `entry` is what is remembered of it, and what was.

        Raises Refusal when another one has its slot by now.
        """
        view = self.view
        now = view.residents.get(resident.slot)
        if now is None or now.born != resident.born:
            raise Refusal(f"{resident.name}@{resident.version}: was undeployed meanwhile")
        self.view = view_of(
            self.capacity, view.generation, view.residents, view.published, {**view.hosts, resident.host: solo}
        )
        return remember(self.folder, key, entry)

    def tolerance(self, slot: int) -> float:
        """Of the member's golden check."""
        host = self.view.hosts[self.view.residents[slot].host]
        return host.tolerance if isinstance(host, Group | Solo) else TOLERANCE

    def variant(self, slot: int) -> str:
        """By which way the member is executed; "" where that is its own process' matter."""
        match self.view.hosts[self.view.residents[slot].host]:
            case Group() as group:
                return group.variant.name
            case Solo() as solo:
                return solo.variant
        return ""

    def close(self) -> None:
        """End the processes of isolated members."""
        for host in self.view.hosts.values():
            if isinstance(host, Isolated):
                host.drop(0)

    def waiting(self) -> dict[str, str]:
        """Published members that do not answer at the moment, with the reason: their own process is down."""
        view = self.view
        hosts = {name: view.hosts[view.residents[slot].host] for name, slot in view.published.items()}
        return {name: h.trouble for name, h in hosts.items() if isinstance(h, Isolated) and h.trouble}

    def steady(self) -> int | None:
        """A published slot inside this process: one whose wrong answer says something about all of them."""
        view = self.view
        hosts = ((slot, view.hosts[view.residents[slot].host]) for slot in view.published.values())
        return next((slot for slot, host in hosts if not isinstance(host, Isolated)), None)

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

    def _admit(self, frame: bytes, slot: int, coming: Isolated | None = None, *, trusted: bool = True) -> Resident:
        """Into the view, after the golden check; one that was prepared may still be on its way up."""
        header, parts = unpack(frame)
        golden = golden_of(parts["golden"])
        if coming is None:
            key, host, row = hosted(self.view.hosts, slot, header, parts, self.folder, trusted=trusted)
        else:
            key, host, row = alone(slot), coming, 0
        resident = Resident(
            slot=slot,
            name=header["name"],
            version=int(header["version"]),
            digest=header["digest"],
            card=header["card"],
            kind=header["kind"],
            shape=(*golden[0].shape[1:], golden[1].shape[1]),
            host=key,
            row=row,
            born=next(self._born),
            golden=golden,
        )
        view = self.view
        residents = {**view.residents, slot: resident}
        self.view = view_of(self.capacity, view.generation, residents, view.published, {**view.hosts, key: host})
        return resident

    def _publish(self, published: Mapping[str, int]) -> int:
        view = self.view
        generation = view.generation + 1
        text = json.dumps({"generation": generation, "published": dict(published)})
        durable.write(self.folder / "published.json", text.encode())
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
        self._sweep({f"{slot}.slot" for slot in published.values()} | {"published.json", FILE})
        coming = {slot: host for slot in published.values() if (host := self._prepare(slot))}
        alive = {}
        for name, slot in published.items():
            try:
                self._admit((self.folder / f"{slot}.slot").read_bytes(), slot, coming.get(slot))
                alive[name] = slot
            except (OSError, ValueError, KeyError, IndexError, Refusal) as error:
                self.broken[name] = f"slot {slot}: {error}"
        until = time.monotonic() + RESTORE_S
        for host in coming.values():  # what is not up by then comes later: nobody else waits for it
            host.wait(max(0.0, until - time.monotonic()))
        self.view = replace(self.view, generation=max(stored["generation"], self.view.generation))
        if published:
            self._publish(alive)

    def _prepare(self, slot: int) -> Isolated | None:
        """An isolated member whose process begins to start, beside all the others; None for other kinds."""
        with suppress(OSError, ValueError, KeyError, IndexError, Refusal):  # told by `_admit`
            return prepared(*unpack((self.folder / f"{slot}.slot").read_bytes()), self.folder)
        return None

    def _sweep(self, kept: set[str]) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():  # a SavedModel that was being loaded
                shutil.rmtree(path)
            elif path.name not in kept:
                path.unlink()
