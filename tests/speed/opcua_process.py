"""A real OPC UA server in a process of its own, that can be killed and started again.

The process is forked from one that has imported `opcua_server`, which takes seconds; here nothing heavy is imported.
"""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
Reading = tuple[str, int, object, int]
"""(variable, ns, value, status code)"""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Of one variable."""

    unit: str = ""
    range: tuple[float, float] | None = None
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What the server is."""

    port: int
    variables: dict[str, str]
    """By name below a folder, their types."""
    root: str = "small"
    """What that folder is called."""
    folder: Path | None = None
    """Of the history; None: none is kept."""
    known: dict[str, Known] = field(default_factory=dict)
    """What the server says of variables beside their values."""
    users: dict[str, str] = field(default_factory=dict)
    """Passwords; none: anybody."""
    secure: Path | None = None
    """Folder of server.der, server.key and trusted/; then only encrypted sessions are had."""


def run(spec: Spec, pipe: Connection) -> None:
    """The process."""
    from opcua_server import serve

    serve(spec, pipe)


class ServerProcess:
    """The server, from outside."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Until it listens."""
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            CONTEXT.set_forkserver_preload(["opcua_server"])
            self._pipe, theirs = CONTEXT.Pipe()
            self._process = CONTEXT.Process(target=run, args=(self.spec, theirs), daemon=True)
            self._process.start()
        finally:
            os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].removeprefix(here).removeprefix(os.pathsep)
        theirs.close()
        self._answered()

    def put(self, readings: list[Reading], *, aloud: bool = True) -> None:
        """Say something, or only remember it; returns when it is in the history."""
        self._pipe.send((readings, aloud))
        self._answered()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
            self._process.close()
            self._pipe.close()
            self._process = None

    def _answered(self) -> None:
        assert self._pipe.poll(60), "the server does not answer"
        why = self._pipe.recv()
        assert why is None, why
