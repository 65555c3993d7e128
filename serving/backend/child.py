"""A process of one model's own, as its owner sees it: started, asked, killed.

The process runs `guest.py` beside this file in an ordinary Python of the environment. It dies with the *thread* that
started it: that thread must live for as long as the process is wanted. Imports nothing of penstock.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .host import F32
from .link import Gone, receive, send

# The folder above is on the path for this import alone: a model's own imports must not find our files.
_BEGIN = (
    "import sys, importlib; sys.path.insert(0, sys.argv[1]); guest = importlib.import_module(sys.argv[2] + '.guest'); "
    "sys.path.pop(0); guest.serve(int(sys.argv[3]), int(sys.argv[4]))"
)
_REAP_S = 10.0


class Failed(Exception):
    """The model raised, or gave something that is no answer; its process lives."""


class Down(Exception):
    """The process has died, was killed for not answering in time, or is being started."""


@dataclass(frozen=True)
class Guest:
    """A model that gets a process of its own."""

    name: str
    """As errors name it: ``nox@3``."""
    kind: str
    """callable, onnx, solo or compiled solo: by XLA"""
    content: bytes
    """The pickle, the ONNX file, the zipped SavedModel."""


class Child:
    """One process. Any one thread at a time may ask it; `kill` is safe from every thread."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        """Starts the process, in the working folder `folder`; the model is not opened yet."""
        home = Path(__file__).parent
        mine, theirs = socket.socketpair()
        # The name is for who lists processes.
        arguments = [str(home.parent), home.name, str(theirs.fileno()), str(os.getpid()), guest.name]
        with theirs:
            self._process = subprocess.Popen(
                [_python(), "-P", "-c", _BEGIN, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a model prints goes into the log, not among our answers
                cwd=folder,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._guest, self._link, self._number = guest, mine, 0

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def open(self, until: float) -> None:
        """Bring the model in. Raises Failed when it cannot be opened, Down when it takes longer than `until`."""
        self._send({"do": "open", "kind": self._guest.kind}, {"content": self._guest.content}, until)
        self._receive(until, "opening it")

    def ask(self, windows: F32, until: float) -> None:
        """Send windows [n, T, F]; the answer of an earlier one that nobody took is thrown away. Raises Down."""
        self._number += 1
        header = {"do": "say", "number": self._number, "shape": list(windows.shape)}
        self._send(header, {"x": np.ascontiguousarray(windows, np.float32).tobytes()}, until)

    def answer(self, until: float) -> F32:
        """Values [n, O] for what was asked last. Raises Failed, Down."""
        header, parts = self._receive(until, "an answer")
        return np.frombuffer(parts["y"], np.float32).reshape(header["shape"])

    def say(self, windows: F32, until: float) -> F32:
        """Values [n, O] for windows [n, T, F]. Raises Failed, Down."""
        self.ask(windows, until)
        return self.answer(until)

    def kill(self) -> None:
        """End it, and what it has started, now. Again: nothing happens."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it is reaped when that lets go
            self._process.wait(_REAP_S)

    def close(self) -> None:
        """Kill it and let go of the socket."""
        self.kill()
        self._link.close()

    def _send(self, header: dict[str, Any], parts: dict[str, bytes], until: float) -> None:
        try:
            send(self._link, header, parts, until)
        except TimeoutError:
            raise Down(f"{self._guest.name}: its process does not listen") from None
        except (Gone, OSError) as error:
            raise Down(self._ended()) from error

    def _receive(self, until: float, what: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        try:
            header, parts = receive(self._link, until)
            while header["number"] != self._number:
                header, parts = receive(self._link, until)
        except TimeoutError:
            raise Down(f"{self._guest.name}: {what} takes too long") from None
        except ValueError as error:
            raise Down(f"{self._guest.name}: {error}") from error
        except (Gone, OSError) as error:
            raise Down(self._ended()) from error
        if "error" in header:
            raise Failed(f"{self._guest.name}: {header['error']}")
        return header, parts

    def _ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1.0)
            return f"{self._guest.name}: its process has ended with {f'signal {-code}' if code < 0 else f'code {code}'}"
        return f"{self._guest.name}: its process has closed the connection"


def _python() -> str:
    """An ordinary interpreter of the environment: inside Triton `sys.executable` is none."""
    inside = "triton_python_backend_utils" in sys.modules
    return os.environ.get("PENSTOCK_PYTHON") or (shutil.which("python3") or "python3" if inside else sys.executable)


def _environment() -> dict[str, str]:
    """Ours, without the libraries of Triton before the environment's own; files are not written beside the engine."""
    found = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    libraries = found.pop("PENSTOCK_LIBRARIES", None)
    if libraries is not None:
        found["LD_LIBRARY_PATH"] = libraries
        if not libraries:
            del found["LD_LIBRARY_PATH"]
    return found
