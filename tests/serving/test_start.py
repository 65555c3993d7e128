"""A start with deployed models: the very versions come up, all in one go, and one that cannot costs no other."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.data.models import Artifact
from penstock.errors import ServingError
from penstock.serving.backend.framing import pack, unpack
from penstock.serving.channel import ModelInfo
from penstock.serving.deploy import Deployer
from penstock.serving.engine_code import compiled, engine_code
from penstock.serving.kept import kept
from penstock.serving.pool import Pool
from penstock.serving.repository import ENGINE
from penstock.serving.triton import LISTENS, Triton

NAMES = ("first", "nox (2)", 'it\'s "3"', "victim")


@pytest.fixture(scope="module")
def members(make_artifact) -> list[Artifact]:
    """With names and units that an ordinary store does not give; the first is a second version."""
    return [named(make_artifact(f"s{k}", seed=k), name, 1 + (k == 0)) for k, name in enumerate(NAMES)]


def named(artifact: Artifact, name: str, version: int) -> Artifact:
    card = {**artifact.card, "units": ['"°C" \\ \n\t\x7f \U0001f525']}
    return replace(artifact, name=name, version=version, card=card)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, make_artifact, members) -> tuple[Path, list[ModelInfo]]:
    """A folder whose server has ended, and what it told of its models."""
    folder = tmp_path_factory.mktemp("site") / "triton"
    with served(folder, [named(make_artifact("old", seed=9), NAMES[0], 1), *members]) as (_, pool):
        return folder, pool.models()


@pytest.fixture
def folder(tmp_path, deployed) -> Iterator[Path]:
    """The same folder, whose state is as it was again afterwards."""
    state = deployed[0] / "state"
    shutil.copytree(state, tmp_path / "state")
    yield deployed[0]
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "state", state)


@contextmanager
def served(folder: Path, members: list[Artifact] | None = None) -> Iterator[tuple[Triton, Pool]]:
    """A server on `folder`, with `members` deployed on it."""
    with Triton.start(folder, capacity=8) as triton, Pool(triton.endpoint, deadline_s=10.0) as pool:
        with Deployer(triton.endpoint, drain_s=0.1) as deployer:
            for artifact in members or []:
                deployer.deploy(artifact)
        yield triton, pool


def slot_file(folder: Path, name: str) -> Path:
    """Where the engine keeps `name`."""
    (slot,) = (k.slot for k in kept(folder / "state") if k.name == name)
    return folder / "state" / f"{slot}.slot"


def loaded_at_start(folder: Path, since: int) -> set[str]:
    """What a server whose log begins at byte `since` had loaded when it began to answer."""
    log = (folder / "triton.log").read_bytes()[since:].decode().replace('\\"', '"')
    return set(re.findall(r"successfully loaded '(.*)'\"$", log.partition(LISTENS)[0], re.MULTILINE))


def answers_right(pool: Pool, artifact: Artifact) -> bool:
    said = pool.predict(artifact.name, artifact.golden.windows)
    apart = np.abs(said.values - artifact.golden.predictions)
    return said.version == artifact.version and bool((apart <= 1e-5 * artifact.golden.scale).all())


def ready(members: list[Artifact]) -> dict[str, int]:
    """What the server's index must tell."""
    return {ENGINE: 1} | {a.name: a.version for a in members}


def test_what_was_deployed_comes_up_as_it_was_and_in_one_go(folder, members, deployed):
    log = folder / "triton.log"
    since = log.stat().st_size
    with served(folder) as (triton, pool):
        for _ in range(2):
            assert (pool.versions(), pool.models()) == (ready(members), deployed[1]), "every parameter too"
            assert all(answers_right(pool, a) for a in members)
            assert loaded_at_start(folder, since) == set(ready(members)), "not one by one afterwards"
            assert triton.canary().broken == {}
            os.kill(Triton.running(folder).server, signal.SIGKILL)
            wait_for(lambda: not triton.alive())
            since = log.stat().st_size
            triton.restart()


def test_what_numba_compiled_for_one_site_is_used_by_the_next_one(deployed, tmp_path):
    def known():
        return {path: path.stat().st_mtime_ns for path in compiled(engine_code()).rglob("*.nb*")}

    before = known()
    with served(tmp_path / "triton"):
        assert known() == before != {}


def wait_for(true):
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def lie(path: Path) -> None:
    header, parts = unpack(path.read_bytes())
    with np.load(io.BytesIO(parts["golden"])) as stored:
        arrays = {k: stored[k] for k in stored.files}
    out = io.BytesIO()
    np.savez(out, **arrays | {"predictions": arrays["predictions"] + 1})
    path.write_bytes(pack(header, {**parts, "golden": out.getvalue()}))


@pytest.mark.parametrize("spoil", [cut, lie])
def test_one_that_the_engine_refuses_has_no_alias_and_costs_no_other(folder, members, spoil):
    spoil(slot_file(folder, "victim"))
    with served(folder) as (triton, pool):
        assert set(triton.canary().broken) == {"victim"}
        assert pool.versions() == ready(members[:3])
        assert all(answers_right(pool, a) for a in members[:3])
        with pytest.raises(ServingError, match="victim"):
            pool.predict("victim", members[3].golden.windows)


def test_an_alias_that_triton_cannot_load_is_told_and_costs_no_other(folder, members, caplog):
    path = slot_file(folder, "victim")
    header, parts = unpack(path.read_bytes())
    path.write_bytes(pack({**header, "version": -3}, parts))
    with served(folder) as (_, pool):
        assert pool.versions() == ready(members[:3])
        assert all(answers_right(pool, a) for a in members[:3])
    assert [r.args[0] for r in caplog.records if "cannot be asked by its name" in r.message] == ["victim"]


def test_after_a_start_models_come_and_go_as_before(folder, members, make_artifact):
    newer = named(make_artifact("new", seed=8), "nox (2)", 2)
    left = [members[0], newer, members[2]]
    with served(folder, [newer]) as (triton, pool), Deployer(triton.endpoint, drain_s=0.1) as deployer:
        deployer.undeploy("victim")
        assert pool.versions() == ready(left)
        found = {p.name: list(p.iterdir()) for p in (folder / "models").iterdir() if p.name != ENGINE}
        assert found == {a.name: [] for a in left}, "no file brings an old version back"
        os.kill(triton.canary().pid, signal.SIGKILL)
        wait_for(triton.engine_gone)
        triton.repair()
        assert pool.versions() == ready(left)
        assert all(answers_right(pool, a) for a in left)
        deployer.deploy(members[3])
        assert pool.versions() == ready([*left, members[3]])


def test_a_server_without_its_engine_is_told_at_once(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "published.json").write_text("no json")
    with pytest.raises(ServingError, match=r"could not load its engine(.|\n)*triton\.log"):
        Triton.start(tmp_path, capacity=2)
    assert Triton.running(tmp_path) is None
