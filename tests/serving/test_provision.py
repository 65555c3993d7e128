"""Finding the server: the pinned wheel or none, whole or not at all."""

from __future__ import annotations

import zipfile

import pytest

from penstock.errors import ServingError
from penstock.serving.provision import VERSION, cached, on_path, provision, unpack


def test_another_wheel_is_refused_and_nothing_is_unpacked(tmp_path):
    wheel = tmp_path / "nvidia_pytriton.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("pytriton/tritonserver/bin/tritonserver", "malice")
    with pytest.raises(ServingError, match=r"sha256 is .*, expected 21f063ff"):
        unpack(wheel, tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_a_package_index_that_cannot_be_reached_is_told(tmp_path, monkeypatch):
    for key, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PATH": "/nowhere"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ServingError, match=r"cannot be fetched .*No matching distribution.*tritonserver on PATH"):
        provision(tmp_path)
    assert cached(tmp_path) is None
    assert [p.name for p in (tmp_path / "triton").iterdir()] == [f"{VERSION}.lock"]


def test_a_python_without_a_stub_is_told(tmp_path):
    (tmp_path / "triton" / VERSION).mkdir(parents=True)
    with pytest.raises(ServingError, match=r"no stub for Python .* 3\.8 to 3\.13"):
        cached(tmp_path)


def test_a_server_on_path_is_taken_with_the_backend_beside_it(tmp_path, monkeypatch):
    server = tmp_path / "bin" / "tritonserver"
    backend = tmp_path / "backends" / "python" / "libtriton_python.so"
    for path in (server, backend):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(server.parent))
    found = on_path()
    assert found is not None
    assert (found.server, found.backends, found.libraries) == (server, tmp_path / "backends", None)
    backend.unlink()
    assert on_path() is None
