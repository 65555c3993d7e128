"""One endpoint: every call that penstock makes to a Triton, asynchronous, errors translated.

No retries, no bounds: those are the pool's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from penstock.errors import BadAnswer, BadRequest
from penstock.serving import wire
from penstock.serving.backend.framing import pack
from penstock.serving.regions import LOST, Region, Regions, aligned, large
from penstock.serving.repository import ENGINE
from penstock.serving.wire import Call

R = TypeVar("R")

MESSAGE_BYTES = 256 << 20
"""Largest message either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A deployed model, as the server itself tells."""

    name: str
    version: int
    window: tuple[int, int]
    """T, F"""
    outputs: int
    parameters: Mapping[str, Any]
    """Keys of docs/architecture.md, "Triton": spec, inputs, units, step, prepare, window, target, ..."""


class Channel:
    """A gRPC connection to one endpoint. Belongs to one event loop."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        options = [
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._client = aio.InferenceServerClient(endpoint, channel_args=options)
        self._regions = Regions(endpoint, self._client)

    async def infer(self, call: Call, left_s: float) -> dict[str, NDArray[Any]]:
        """The outputs of `call`, checked; large inputs go through shared memory where the server is on this machine."""
        until = time.monotonic() + left_s
        region = await self._region(call, left_s)
        if region is not None:
            try:
                return await self._infer(call, region, until - time.monotonic())
            except BadRequest as error:
                if LOST not in str(error):
                    raise
                self._regions.forget()
                region = None
            finally:
                if region is not None:
                    self._regions.take_back(region)
        return await self._infer(call, None, until - time.monotonic())

    async def _region(self, call: Call, left_s: float) -> Region | None:
        arrays = list(call.inputs.values())
        if not large(arrays):
            return None
        return await self._told(self._regions.lend(sum(aligned(a.nbytes) for a in arrays), left_s), call.model)

    async def _infer(self, call: Call, region: Region | None, left_s: float) -> dict[str, NDArray[Any]]:
        result = await self._told(
            self._client.infer(
                call.model,
                wire.infer_inputs(call, region),
                model_version=call.version,
                outputs=wire.infer_outputs(call),
                client_timeout=left_s,
            ),
            call.model,
        )
        return wire.arrays_of(result, call, self.endpoint)

    async def admin(
        self, command: Mapping[str, Any], blob: Mapping[str, bytes] | None, left_s: float
    ) -> dict[str, Any]:
        """The engine's answer to an admin request."""
        frame = np.frombuffer(pack(command, blob), np.uint8)
        answer = await self.infer(Call(model=ENGINE, inputs={"admin": frame}, outputs=("answer",)), left_s)
        try:
            told = json.loads(answer["answer"].tobytes())
        except ValueError as error:
            raise BadAnswer(f"{self.endpoint}: the engine's answer is no JSON: {error}") from error
        return dict(told)

    async def versions(self, left_s: float) -> dict[str, int]:
        """The newest ready version of every model that the server's index lists."""
        index = await self._told(self._client.get_model_repository_index(client_timeout=left_s), "index")
        ready = sorted((m.name, int(m.version)) for m in index.models if m.state == "READY" and m.version)
        return dict(ready)

    async def models(self, left_s: float) -> list[ModelInfo]:
        """Every ready model that is an alias of ours."""
        index = await self._told(self._client.get_model_repository_index(client_timeout=left_s), "index")
        names = {m.name for m in index.models if m.state == "READY" and m.name != ENGINE}
        return [info for name in sorted(names) if (info := await self._info(name, left_s))]

    async def _info(self, name: str, left_s: float) -> ModelInfo | None:
        meta = await self._told(self._client.get_model_metadata(name, client_timeout=left_s), name)
        told = await self._told(self._client.get_model_config(name, client_timeout=left_s), name)
        config = told.config
        if "spec" not in config.parameters:
            return None
        _, rows, features = config.input[0].dims
        return ModelInfo(
            name=name,
            version=max(int(v) for v in meta.versions),
            window=(rows, features),
            outputs=config.output[0].dims[-1],
            parameters={k: _parsed(v.string_value) for k, v in config.parameters.items()},
        )

    async def load(self, name: str, config: str | None, files: Mapping[str, bytes] | None, left_s: float) -> None:
        """Load `name`; `files` are paths inside its folder, with ``file:`` before them."""
        await self._told(self._client.load_model(name, config=config, files=files, client_timeout=left_s), name)

    async def unload(self, name: str, left_s: float) -> None:
        """Unload `name`; models that need it stay known and fail until it is loaded again."""
        await self._told(self._client.unload_model(name, client_timeout=left_s), name)

    async def server_version(self, left_s: float) -> str:
        """What the server says it is, e.g. "2.51.0"."""
        told = await self._told(self._client.get_server_metadata(client_timeout=left_s), "server metadata")
        return str(told.version)

    async def ready(self, name: str, version: int | None, left_s: float) -> bool:
        """What the server says; without a version also of a model that has none."""
        asked = self._client.is_model_ready(name, "" if version is None else str(version), client_timeout=left_s)
        return bool(await self._told(asked, name))

    async def close(self) -> None:
        """Close the connection."""
        await self._regions.close()
        await self._client.close()

    async def _told(self, call: Awaitable[R], what: str) -> R:
        try:
            return await call
        except InferenceServerException as error:
            raise wire.translate(error, self.endpoint, what) from error


def _parsed(text: str) -> Any:
    """Parameters are JSON, except for plain words."""
    try:
        return json.loads(text)
    except ValueError:
        return text
