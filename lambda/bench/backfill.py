"""`penstock bench backfill`: one model over its history through the real Triton, beside Keras and ONNX Runtime.

60 steps of 32 inputs, 64 units, float32, a tick a second. The first row is what a Dask worker does when it recomputes:
windows in large requests to the engine. The second is all of `penstock recompute`: from the archive to the commit.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from penstock.batch import fitting, peers
from penstock.batch.specimens import Size, drafts, network_of
from penstock.batch.view import ASKED
from penstock.bench.results import Load, Row, answer
from penstock.data.models import Artifact
from penstock.errors import SiteError
from penstock.serving.backend.onnx_graph import graph_of
from penstock.serving.backfill import Backfill
from penstock.site import Site

Float32 = NDArray[np.float32]
Told = Callable[[str], None]
GOAL = 5e4
ROUNDS = 3
"""The best of so many counts: the others had to share the machine."""
ASKERS = 2
"""As many as a site has workers."""
PEER_WINDOWS = 8192
BATCH = 1024
BEGIN = pd.Timestamp("2025-01-01", tz="UTC")
NAME = "m0000"
PLANT = """
[plant]
name = "backfill"
period = "1s"
[tags]
{tags}
[model.{name}]
target = "Y"
inputs = ["S*"]
window = "{length}s"
"""


def run(ticks: int, told: Told) -> dict[str, Any]:
    """The benchmark's JSON over so many ticks of history. Raises what a site raises, RuntimeError for wrong answers."""
    load, size = Load(), Size()
    history = np.random.default_rng(5).normal(0, 1, (ticks, size.features)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, _site(Path(folder), size) as site:
        told("importing the history")
        site.load(_table(history))
        told("starting Triton")
        artifact = _stored(site, size)
        site.deploy(artifact)
        windows = sliding_window_view(history, size.length, axis=0).transpose(0, 2, 1)
        told("windows through Triton")
        said, ours = _asked(site, artifact, windows)
        told("the same windows by others")
        others, why = _peers(artifact, size, windows[:PEER_WINDOWS], said)
        told("the whole way, from the archive to the view")
        whole = _recomputed(site, ticks, size)
    rows = [
        Row(what="backfill-predictions-per-s", unit="predictions/s", ours=ours, peers=others, goal=GOAL,
            better="higher", why=why),
        Row(what="backfill-view-predictions-per-s", unit="predictions/s", ours=whole, peers=others, better="higher"),
    ]  # fmt: skip
    return answer("backfill", rows, load.others())


def _site(folder: Path, size: Size) -> Site:
    tags = "\n".join(f"{name} = {{}}" for name in (*_inputs(size), "Y"))
    (folder / "plant.toml").write_text(PLANT.format(tags=tags, name=NAME, length=size.length))
    return Site.create(folder / "site", folder / "plant.toml")


def _inputs(size: Size) -> list[str]:
    return [f"S{i:02d}" for i in range(size.features)]


def _table(history: Float32) -> pd.DataFrame:
    times = BEGIN + pd.to_timedelta(np.arange(len(history)), unit="s")
    return pd.DataFrame(history, columns=_inputs(Size())).assign(time=times)


def _stored(site: Site, size: Size) -> Artifact:
    (draft,) = drafts(size, 1)
    spec = site.spec(NAME)
    card = {**draft.card, "spec": spec.to_json(), "units": list(spec.target_units)}
    return site.models.save(replace(draft, name=NAME, card=card))


def _asked(site: Site, artifact: Artifact, windows: Float32) -> tuple[Float32, float]:
    """[n, 1] what the engine says, and predictions a second."""
    backfill = Backfill(endpoints=site.parts.endpoints())
    starts = range(0, len(windows), ASKED)
    said = np.empty((len(windows), 1), np.float32)

    def ask(asker: int) -> None:
        with backfill(artifact) as answered:
            for begin in starts[asker::ASKERS]:
                values = answered(np.ascontiguousarray(windows[begin : begin + ASKED]))
                if values is None:
                    raise RuntimeError(f"{artifact.name}@{artifact.version} did not answer")
                said[begin : begin + ASKED] = values

    with ThreadPoolExecutor(ASKERS) as pool:
        taken = _best(lambda: list(pool.map(ask, range(ASKERS))))
    return said, round(len(windows) / taken)


def _peers(
    artifact: Artifact, size: Size, windows: Float32, said: Float32
) -> tuple[dict[str, float], str | None]:  # fmt: skip
    """Predictions a second of others over `windows`, and why one is not among them. Raises RuntimeError where the
    answers differ."""
    windows = np.ascontiguousarray(windows[: len(windows) // ASKERS * ASKERS])
    network, n = network_of(size, 0), len(windows)
    found, why = {}, None

    def measured(name: str, work: Callable[[], Any]) -> None:
        values = np.asarray(work(), np.float32).reshape(-1)  # what compiles has compiled
        if np.abs(values - said[:n, 0]).max() > 1e-5 * float(artifact.golden.scale[0]):
            raise RuntimeError(f"{name} says something else than the engine")
        found[name] = float(round(n / _best(work)))

    measured("Keras predict", partial(network.predict, windows, batch_size=BATCH, verbose=0))
    measured("Keras, batches of 256", partial(fitting.predict, network, windows, np.arange(n)))
    try:
        graph = graph_of(artifact.serving, size.length)
        sessions = peers.onnx_sessions([graph] * ASKERS, threads=ASKERS)
        halves = windows.reshape(ASKERS, -1, *windows.shape[1:])
        measured(f"ONNX Runtime in process, {ASKERS} threads", lambda: sessions(halves))
    except (ImportError, SiteError) as error:
        why = f"no ONNX Runtime: {error}; pip install onnx onnxruntime"
    return found, why


def _recomputed(site: Site, ticks: int, size: Size) -> float:
    """Predictions a second of the product's own command; workers are up, and have asked once."""
    start = BEGIN + pd.Timedelta(size.length, "s")
    site.recompute(NAME, start, start + pd.Timedelta(2 * ASKED, "s"))
    begun = time.perf_counter()
    done = site.recompute(NAME, start, BEGIN + pd.Timedelta(ticks, "s"))
    return float(round(done["ticks"] / (time.perf_counter() - begun)))


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)
