"""How tritonserver is started: its command line and its environment as values, and the keeper that runs it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from penstock.serving import keeper
from penstock.serving.provision import Installation

STOP_S = 8.0
"""What the server gets to end by itself before it is killed."""
LOG_BYTES = 16 << 20
"""A longer log is put aside at the next start."""


def shm_prefix(folder: Path) -> str:
    """Name prefix of the /dev/shm regions of the server on `folder`."""
    return f"penstock_{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]}_"


def command(found: Installation, folder: Path, endpoint: str) -> list[str]:
    """The server's command line: loopback only, gRPC only; what lies in `models/` is loaded, the rest by request only.

    A model that cannot be loaded does not end it, as an alias must not cost the others; `Triton` sees to the engine.
    """
    host, port = endpoint.rsplit(":", 1)
    return [
        str(found.server),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={found.backends}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix(folder)}",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",
        f"--exit-timeout-secs={int(STOP_S) - 2}",
        "--allow-http=false",
        "--allow-metrics=false",
        f"--grpc-address={host}",
        f"--grpc-port={port}",
        "--disable-auto-complete-config",
    ]


def environment(found: Installation, kernels: Path) -> dict[str, str]:
    """The server's environment: this Python first on PATH, so that the stub takes its packages.

    `kernels`: where what numba compiles is kept.
    """
    given = dict(os.environ)
    # What an isolated member's process runs in: not in the stub's interpreter, nor with Triton's libraries.
    given |= {"PENSTOCK_PYTHON": sys.executable, "PENSTOCK_LIBRARIES": given.get("LD_LIBRARY_PATH", "")}
    given["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{given.get('PATH', '')}"
    if found.libraries:
        given["LD_LIBRARY_PATH"] = f"{found.libraries}{os.pathsep}{given.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    given.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the golden check knows the CPU's rounding
    given["NUMBA_CACHE_DIR"] = str(kernels)
    given.setdefault("MALLOC_ARENA_MAX", "2")  # each of Triton's fifty threads would keep its own share of every alias
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    return given | quiet | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2", "OMP_NUM_THREADS": "1"}


def spawn(folder: Path, found: Installation, endpoint: str, lock: int, kernels: Path) -> subprocess.Popen[bytes]:
    """The keeper, in a session of its own, so that a kill of our process group leaves it to clean up."""
    log = folder / "triton.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        os.replace(log, log.with_suffix(".log.1"))
    order: dict[str, Any] = {
        "command": command(found, folder, endpoint),
        "record": str(folder / "server.json"),
        "endpoint": endpoint,
        "prefix": shm_prefix(folder),
        "parent": os.getpid(),
        "lock": lock,
        "stop_s": STOP_S,
    }
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", keeper.__file__, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(found, kernels),
            cwd=folder,
            pass_fds=(lock,),
            start_new_session=True,
        )
