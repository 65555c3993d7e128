"""From a deployed frame to the host that executes its member, golden check passed.

What runs in the engine's process is a row of a group or a solo; what is isolated gets a process of its own. Runs
inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .child import Guest
from .forward import Shape, shape_of
from .golden import TOLERANCE, Refusal, apart, arrays_of, golden_of, mismatch
from .group import Group
from .host import F32, Host
from .isolated import START_S, Isolated
from .solo import Solo
from .trials import begun

Parts = Mapping[str, bytes]


def hosted(
    hosts: Mapping[str, Host], slot: int, header: Mapping[str, Any], parts: Parts, folder: Path, *, trusted: bool
) -> tuple[str, Host, int]:
    """(key, host, row) of the member that `header` and `parts` describe, among `hosts` or a new one.

    A solo that is not `trusted` is tried in a process of its own first: a graph that hangs, or crashes TensorFlow,
    would take every other model with it. Raises Refusal, ValueError with the reason.
    """
    golden = golden_of(parts["golden"])
    rows, features = golden[0].shape[1:]
    if (host := prepared(header, parts, folder)) is not None:
        if reason := host.wait(START_S):
            host.drop(0)
            raise Refusal(reason)
        return alone(slot), host, 0
    found: Host
    if header["kind"] == "solo":
        if not trusted:
            _try(_isolated(header, parts, folder))
        key, found, row = f"solo {slot}", _solo(parts["saved_model"], rows, features, folder), 0
    else:
        key, found, row = _join(hosts, arrays_of(parts["serving"]), rows, features, folder)
    tolerance = found.tolerance if isinstance(found, Group) else TOLERANCE
    if reason := mismatch(found, row, golden, tolerance):
        raise Refusal(f"{header['name']}@{header['version']}: {reason}")
    return key, found, row


def prepared(header: Mapping[str, Any], parts: Parts, folder: Path) -> Isolated | None:
    """The host of an isolated member, its process beginning to start; None for a member that is none.

    A member is isolated where that was asked for, or where its code is anybody's.
    """
    if not header.get("isolate") and header["kind"] not in ("callable", "onnx"):
        return None
    return _isolated(header, parts, folder)


def _isolated(header: Mapping[str, Any], parts: Parts, folder: Path) -> Isolated:
    golden = golden_of(parts["golden"])
    content = parts["saved_model" if header["kind"] == "solo" else "program"]
    guest = Guest(name=f"{header['name']}@{header['version']}", kind=header["kind"], content=content)
    return Isolated(guest, folder, golden[1].shape[1], partial(apart, golden=golden), golden[0])


def _try(host: Isolated) -> None:
    """Raises Refusal when it does not answer its golden windows rightly and in time."""
    reason = host.wait(START_S)
    host.drop(0)
    if reason:
        raise Refusal(reason)


def alone(slot: int) -> str:
    """Key of the host of an isolated member."""
    return f"alone {slot}"


def _join(
    hosts: Mapping[str, Host], arrays: dict[str, F32], rows: int, features: int, folder: Path
) -> tuple[str, Host, int]:
    try:
        shape: Shape = shape_of(arrays, rows)
    except ValueError as error:
        raise Refusal(str(error)) from error
    if shape.features != features:
        raise Refusal(f"the golden windows have {features} columns, the weights expect {shape.features}")
    key = f"lstm {shape.rows}x{shape.features} {shape.units} {shape.outputs}"
    group = hosts.get(key) or begun(shape, key, folder)
    assert isinstance(group, Group)
    host, row = group.add(arrays)
    return key, host, row


def _solo(archive: bytes, rows: int, features: int, folder: Path) -> Solo:
    solo = Solo.load(archive, folder)
    solo.warm(rows, features)
    return solo
