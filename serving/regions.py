"""Shared memory for the large inputs of calls to a Triton on this machine.

gRPC copies a request several times; a region that both processes map is written once. Only inputs travel so, never
answers: what a call leaves in its region after its deadline can spoil no other call's answer, as whoever reads it
then answers nobody.

A region's name in /dev/shm is removed as soon as the server has mapped it, so that a kill -9 leaves none behind;
what the server still maps for a client that has died is let go of by the next client (`_sweep`).
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

LEAST_BYTES = 1 << 16
"""Of one input; a smaller one travels inside the message, which costs less than asking for a region."""
MOST_BYTES = 1 << 28
"""Of one call; Triton takes larger ones, but a mistake should not take the machine's memory."""
SHM = "/dev/shm"
LOCAL = re.compile(r"^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$")
NAME = re.compile(r"^penstock_client_(\d+)_\d+$")
LOST = "shared memory region"
"""What Triton's message says when it does not know a region: it was started anew."""
_ALIGNED = 64

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """Memory that a server has mapped too."""

    name: str
    memory: mmap.mmap

    def put(self, arrays: Sequence[NDArray[Any]]) -> list[int]:
        """Write the arrays one behind the other; where each begins."""
        at, begins = 0, []
        for array in arrays:
            begins.append(at)
            np.frombuffer(self.memory, array.dtype, array.size, at)[:] = array.reshape(-1)
            at += aligned(array.nbytes)
        return begins


class Regions:
    """The regions of one connection. Belongs to one event loop."""

    def __init__(self, endpoint: str, client: aio.InferenceServerClient) -> None:
        self._client = client
        self._possible = LOCAL.match(endpoint) is not None
        self._swept = False
        self._free: dict[int, list[Region]] = {}

    async def lend(self, size: int, left_s: float) -> Region | None:
        """Room for `size` bytes, until `take_back`; None where the server cannot map what we map.

        Raises InferenceServerException when the server does not answer within `left_s`.
        """
        if not self._possible or size > MOST_BYTES:
            return None
        room = max(LEAST_BYTES, 1 << (size - 1).bit_length())
        if free := self._free.get(room):
            return free.pop()
        if not self._swept:
            await self._sweep(left_s)
        return await self._make(room, left_s)

    def take_back(self, region: Region) -> None:
        """Its next call may have it."""
        self._free.setdefault(len(region.memory), []).append(region)

    def forget(self) -> None:
        """The server was started anew and knows none of ours."""
        self._free.clear()

    async def close(self) -> None:
        """Let the server unmap what is not lent."""
        for region in itertools.chain.from_iterable(self._free.values()):
            with suppress(InferenceServerException):  # gone with its mappings, or going
                await self._client.unregister_system_shared_memory(region.name, client_timeout=1.0)
        self._free.clear()

    async def _make(self, room: int, left_s: float) -> Region | None:
        name = f"penstock_client_{os.getpid()}_{next(_numbers)}"
        try:
            handle = os.open(f"{SHM}/{name}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except OSError:  # no /dev/shm, or a full one: the message takes everything
            self._possible = False
            return None
        try:
            os.posix_fallocate(handle, 0, room)
            memory = mmap.mmap(handle, room)
            await self._client.register_system_shared_memory(name, f"/{name}", room, client_timeout=left_s)
        except (OSError, InferenceServerException) as error:
            self._possible = False
            if isinstance(error, InferenceServerException) and "UNAVAILABLE" in str(error.status()):
                self._possible = True
                raise
            return None  # full, another user's server, or another machine's behind a tunnel
        finally:
            os.close(handle)
            os.unlink(f"{SHM}/{name}")
        return Region(name=name, memory=memory)

    async def _sweep(self, left_s: float) -> None:
        """Unregister regions of clients that have died."""
        status = await self._client.get_system_shared_memory_status(client_timeout=left_s)
        self._swept = True
        for name in list(status.regions):
            told = NAME.match(name)
            if told and not psutil.pid_exists(int(told[1])):
                with suppress(InferenceServerException):  # another client did it
                    await self._client.unregister_system_shared_memory(name, client_timeout=left_s)


def large(arrays: Sequence[NDArray[Any]]) -> bool:
    """Whether these inputs are worth a region."""
    return any(a.nbytes >= LEAST_BYTES for a in arrays)


def aligned(size: int) -> int:
    """Bytes that an array of `size` bytes takes in a region."""
    return -(-size // _ALIGNED) * _ALIGNED
