"""An authority of a test's own, and certificates from it, made by the openssl command as the README shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from distributed import Security


class Authority:
    """Keeps everything in `folder`; all of it may be read by everybody: it is a test's."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            why = "no openssl command: apt-get install openssl"
            pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("-keyout", self._key, "-out", self.ca, "-subj", f"/CN={name}")

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Certificate and key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        if not cert.exists():
            own = ("-keyout", key, "-out", cert, "-subj", f"/CN={name}")
            _openssl("-CA", self.ca, "-CAkey", self._key, "-addext", "basicConstraints=CA:FALSE", *own)
            key.chmod(0o644)
        return cert, key

    def security(self, name: str) -> Security:
        """Dask's, for every role, with the certificate of that name."""
        cert, key = map(str, self.certificate(name))
        files = {
            f"tls_{role}_{part}": path for role in ("client", "worker") for part, path in (("cert", cert), ("key", key))
        }
        return Security(require_encryption=True, tls_ca_file=str(self.ca), **files)


def _openssl(*more: str | Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-noenc",
        "-days",
        "2",
    ]
    subprocess.run([*command, *map(str, more)], check=True, capture_output=True, timeout=60)
