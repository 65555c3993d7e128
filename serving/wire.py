"""What penstock and Triton say to each other, as values: requests built, answers checked, errors translated.

Knows tritonclient's types; opens no connection. Every output's byte length is
checked against its shape: a server whose backend lost an output (numpy 2 under
an old python backend) sends zero bytes with a healthy-looking shape.

| gRPC status                           | becomes          |
|---------------------------------------|------------------|
| UNAVAILABLE, or "Stub process ..."    | Unavailable      |
| DEADLINE_EXCEEDED, CANCELLED          | DeadlineExceeded |
| RESOURCE_EXHAUSTED                    | Overloaded       |
| INVALID_ARGUMENT, NOT_FOUND           | BadRequest       |
| anything else                         | ServingError     |

What each of them means to a call that another endpoint could answer stands in `outcomes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from penstock.errors import (
    BadAnswer,
    BadRequest,
    DeadlineExceeded,
    Overloaded,
    ServingError,
    Unavailable,
)
from penstock.serving.bundle import Bundle
from penstock.serving.regions import Region

_TYPES = {"int32": "INT32", "int64": "INT64", "float32": "FP32", "uint8": "UINT8"}
_DTYPES = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32, "UINT8": np.uint8}
_STUB_DEAD = ("Stub process", "is not healthy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One inference request, before it is sent anywhere."""

    model: str
    version: str = ""
    """"": whichever version is live."""
    inputs: Mapping[str, NDArray[Any]]
    outputs: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What one model said."""

    values: NDArray[np.float32]
    """[n, O] in the targets' units."""
    version: int
    """The version that computed them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TickAnswer:
    """What the engine said to one tick request over M slots."""

    numbers: NDArray[np.float32]
    """[sum O] the slots' values, one behind the other."""
    ends: NDArray[np.int64]
    """[M] where each slot's values end."""
    versions: NDArray[np.int64]
    """[M] -1: the slot is empty; -2: its windows have another shape; -3: its model raised; -4: a row came, and the
    window is wanted."""
    members: NDArray[np.int64]
    """[M] crc32 of the name of the member that answered."""
    kept: NDArray[np.int64]
    """[M] the tick of the state that the engine keeps of a stream's entry; -1: none."""
    generation: int
    """Moves with every publication."""
    endpoint: str = field(default="")
    """Who answered; slots mean nothing to another one."""

    @property
    def values(self) -> tuple[NDArray[np.float32], ...]:
        """Per slot [O]; empty where the version is negative."""
        return tuple(np.split(self.numbers, self.ends[:-1]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Streamed:
    """What makes a tick one of a stream: the engine keeps states for it, and takes a row where it knows the rest."""

    stream: int
    """Any number that nobody else has."""
    ticks: NDArray[np.int64]
    """[M] of each entry's newest row, one more than before where only that row is sent; -1: keep no state."""


def tick_call(slots: NDArray[np.int32], windows: Bundle, streamed: Streamed | None = None) -> Call:
    """slots [M] and their M windows, or, of a stream, some windows' newest rows [1, F] alone -> the request.

    Raises BadRequest when the two do not fit together.
    """
    if len(slots) != len(windows) or not len(slots):
        raise BadRequest(f"a tick of {len(slots)} slots has {len(windows)} windows: give one [T, F] per slot")
    entries = np.full((len(slots), 4), -1, np.int64)
    entries[:, 0], entries[:, 1:3] = slots, windows.shapes
    inputs: dict[str, NDArray[Any]] = {"entries": entries, "rows": windows.numbers}
    if streamed is not None:
        entries[:, 3] = streamed.ticks
        inputs["stream"] = np.array([streamed.stream], np.int64)
    return Call(model="engine", inputs=inputs, outputs=("values", "told", "generation"))


def tick_answer(arrays: Mapping[str, NDArray[Any]], slots: int, endpoint: str) -> TickAnswer:
    """The answer to a tick of that many slots.

    Raises BadAnswer when the lengths do not add up.
    """
    widths, versions, members, kept = arrays["told"].T
    ends = np.cumsum(widths)
    numbers = arrays["values"][:-1]
    if len(ends) != slots or ends[-1] != len(numbers):
        raise BadAnswer(f"{endpoint}: a tick of {slots} slots was answered with {len(numbers)} values")
    return TickAnswer(
        numbers=numbers,
        ends=ends,
        versions=versions,
        members=members,
        kept=kept,
        generation=int(arrays["generation"][0]),
        endpoint=endpoint,
    )


def infer_inputs(call: Call, region: Region | None = None) -> list[InferInput]:
    """The tensors of a call as tritonclient wants them; with a region they are written there."""
    begins = None if region is None else region.put(list(call.inputs.values()))
    tensors = []
    for k, (name, array) in enumerate(call.inputs.items()):
        tensor = InferInput(name, list(array.shape), _TYPES[array.dtype.name])
        if region is None or begins is None:
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
        else:
            tensor.set_shared_memory(region.name, array.nbytes, begins[k])
        tensors.append(tensor)
    return tensors


def infer_outputs(call: Call) -> list[InferRequestedOutput]:
    """The outputs of a call as tritonclient wants them."""
    return [InferRequestedOutput(name) for name in call.outputs]


def arrays_of(result: InferResult, call: Call, endpoint: str) -> dict[str, NDArray[Any]]:
    """Every output that was asked for, its byte length checked against its shape and type.

    Raises BadAnswer, with endpoint, model and output.
    """
    response = result.get_response()
    found = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=False):
        dtype = np.dtype(_DTYPES.get(tensor.datatype, np.void))
        if len(raw) != prod(tensor.shape) * dtype.itemsize:
            raise BadAnswer(
                f"{endpoint}: {call.model}: output {tensor.name} {tensor.datatype} {list(tensor.shape)} "
                f"came with {len(raw)} bytes: the server's backend lost it; look into its log"
            )
        found[tensor.name] = np.frombuffer(raw, dtype).reshape(tensor.shape)
    missing = set(call.outputs) - set(found)
    if missing:
        raise BadAnswer(f"{endpoint}: {call.model}: no output {', '.join(sorted(missing))} in the answer")
    return found


def translate(error: InferenceServerException, endpoint: str, what: str) -> ServingError:
    """A tritonclient error as one of ours, by the table at the top."""
    status = str(error.status() or "").removeprefix("StatusCode.")
    text = f"{endpoint}: {what}: {error.message()}"
    if status == "UNAVAILABLE":
        return Unavailable(f"{text}: is the server running and the model deployed?")
    if any(sign in str(error.message()) for sign in _STUB_DEAD):
        return Unavailable(f"{text}: the engine's process has died; repair() loads it again")
    match status:
        case "DEADLINE_EXCEEDED" | "CANCELLED":
            return DeadlineExceeded(f"{text}: no answer in time; is the machine overloaded?")
        case "RESOURCE_EXHAUSTED":
            return Overloaded(f"{text}: try again later")
        case "INVALID_ARGUMENT" | "NOT_FOUND":
            return BadRequest(text)
    return ServingError(f"{text} ({status or 'no status'})")
