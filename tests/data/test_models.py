"""The model store: whole or not at all, next version, checked on load, who answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.data.models import Draft, Golden, ModelStore
from penstock.errors import ModelError, ModelNotFound


def draft(name: str = "nox", size: int = 100) -> Draft:
    rng = np.random.default_rng(7)
    golden = Golden(
        windows=rng.normal(size=(3, 4, 2)).astype(np.float32),
        predictions=rng.normal(size=(3, 1)).astype(np.float32),
        scale=np.ones(1, np.float32),
    )
    serving = {
        "mean": np.arange(2, dtype=np.float32),
        "l0.kernel": rng.normal(size=(2, 8)).astype(np.float32),
    }
    return Draft(name=name, kind="lstm", card={"seed": 1}, keras=b"k" * size, golden=golden, serving=serving)


def test_saved_then_loaded_is_the_same(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    saved = store.save(draft())
    loaded = store.load("nox", 1)
    assert (saved.name, saved.version, loaded.version) == ("nox", 1, 1)
    assert loaded.files == saved.files
    assert loaded.keras == b"k" * 100
    assert loaded.kind == "lstm"
    assert loaded.saved_model == b""
    assert loaded.card == json.loads(json.dumps(saved.card))
    np.testing.assert_array_equal(loaded.golden.windows, draft().golden.windows)
    assert list(loaded.serving) == ["mean", "l0.kernel"]
    assert sorted(p.name for p in loaded.folder.iterdir()) == [
        "card.json",
        "golden.npz",
        "model.keras",
        "serving.npz",
    ]


def test_what_executes_a_model_is_noted_in_its_card_and_nothing_else_changes(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    saved = store.save(draft())
    first, newest = ({"variant": v, "table": [{"variant": v, "one_us": 3.5}]} for v in ("xla", "kernel"))
    store.note("nox", 1, "execution", first)
    store.note("nox", 1, "execution", newest)
    loaded = store.load("nox", 1)
    assert loaded.card == {**saved.card, "execution": newest}
    assert loaded.files == saved.files
    assert not list(loaded.folder.glob(".*"))
    with pytest.raises(ModelNotFound):
        store.note("nox", 2, "execution", {})


def test_solo_keeps_its_saved_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.save(replace(draft(), kind="solo", serving=None, saved_model=b"zip"))
    loaded = store.load("nox", 1)
    assert (loaded.kind, loaded.saved_model, loaded.serving) == ("solo", b"zip", {})


def test_incomplete_draft_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(ModelError, match="needs serving arrays"):
        store.save(replace(draft(), serving=None))
    assert store.names() == []


def test_versions_count_up_and_are_never_given_twice(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert [store.save(draft()).version for _ in range(3)] == [1, 2, 3]
    store.record("nox", 3, "deploy", "ana")
    for file in (tmp_path / "nox" / "3").iterdir():
        file.unlink()
    (tmp_path / "nox" / "3").rmdir()
    assert store.versions("nox") == [1, 2]
    assert store.save(draft()).version == 4
    assert store.names() == ["nox"]


def test_many_savers_at_once_get_a_version_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda _: ModelStore(tmp_path).save(draft()).version, range(12)))
    assert sorted(versions) == list(range(1, 13))
    for version in versions:
        ModelStore(tmp_path).load("nox", version)


@pytest.mark.parametrize("file", ["model.keras", "serving.npz", "golden.npz"])
def test_a_changed_file_is_named(tmp_path: Path, file: str) -> None:
    store = ModelStore(tmp_path)
    path = store.save(draft()).folder / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"{file}: changed since it was saved"):
        store.load("nox", 1)
    path.unlink()
    with pytest.raises(ModelError, match=f"not a whole artifact.*{file}"):
        store.load("nox", 1)


def test_unknown_names_and_versions_say_what_there_is(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.save(draft())
    with pytest.raises(ModelNotFound, match="did you mean 'nox'"):
        store.load("noxx", 1)
    with pytest.raises(ModelNotFound, match="no version 9; there are 1"):
        store.load("nox", 9)
    for evil in ("../nox", ".hidden", "a/b", ""):
        with pytest.raises(ModelError, match="model name"):
            store.save(draft(evil))


def test_the_champion_is_a_fold_over_the_record(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert store.champion("nox") is None
    assert store.champions() == {}
    store.record("nox", 1, "deploy", "ana", at="2014-01-01T00:00:00Z")
    store.record("nox", 2, "deploy", "ana")
    store.record("tey", 5, "deploy", "bo")
    assert store.champions() == {"nox": 2, "tey": 5}
    store.record("nox", 1, "rollback", "ana")
    assert store.champion("nox") == 1
    store.record("nox", 2, "undeploy", "ana")
    assert store.champion("nox") == 1, "undeploying another version leaves the champion"
    store.record("nox", 1, "undeploy", "ana")
    assert store.champions() == {"tey": 5}
    history = ModelStore(tmp_path).history("nox")
    assert [(d.version, d.action) for d in history] == [
        (1, "deploy"),
        (2, "deploy"),
        (1, "rollback"),
        (2, "undeploy"),
        (1, "undeploy"),
    ]
    assert history[0].at == "2014-01-01T00:00:00Z"
    with pytest.raises(ModelError, match="action 'delete'"):
        store.record("nox", 1, "delete", "ana")  # type: ignore[arg-type]


def test_a_registry_that_is_no_database_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"not a database at all, but long enough to look at" * 100)
    with pytest.raises(ModelError, match=r"registry\.sqlite"):
        ModelStore(tmp_path).champions()


_SAVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_models import draft
from penstock.data.models import ModelStore
store = ModelStore(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    print(store.save(draft(size=2_000_000)).version, flush=True)
"""


def test_kill_9_in_the_middle_of_saves_leaves_whole_artifacts_or_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    rng = np.random.default_rng(3)
    acknowledged: list[int] = []
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", _SAVER, str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        ) as saver:
            assert saver.stdout is not None
            assert saver.stdout.readline() == "ready\n"
            time.sleep(float(rng.uniform(0.01, 0.12)))
            os.kill(saver.pid, signal.SIGKILL)
            acknowledged += [int(line) for line in saver.stdout if line.endswith("\n")]
        versions = store.versions("nox")
        assert set(acknowledged) <= set(versions)
        for version in versions:
            assert store.load("nox", version).keras == b"k" * 2_000_000
    leftovers = [p for p in (tmp_path / "nox").iterdir() if p.name.startswith(".saving-")]
    assert len(leftovers) <= 1
    store.save(draft())
    assert not list((tmp_path / "nox").glob(".saving-*")), "the next save sweeps"
