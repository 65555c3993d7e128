"""`penstock bench fleet`: what a tick of hundreds of LSTMs costs, beside the usual ways, all in one run.

60 steps of 32 inputs, 64 units, float32, a prediction per model and tick, from this process through gRPC and the
real Triton.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.batch import peers
from penstock.batch.specimens import Size
from penstock.bench.one_per_model import echo, one_per_model
from penstock.bench.results import Load, Row, answer
from penstock.bench.served_fleet import Fleet, Tell, milliseconds, served, started_again
from penstock.bench.stock import Stock
from penstock.errors import SiteError
from penstock.serving.backend.onnx_graph import graph_of
from penstock.serving.bundle import Bundle
from penstock.serving.pool import Pool
from penstock.serving.streaming import Stream

Float32 = NDArray[np.float32]

GOALS_MS = {100: 8.0, 300: 24.0, 500: 40.0}
ROWS_GOALS_MS = {100: (2.5, 5.0), 500: (10.0, 16.0)}
"""p50 and p99."""
ALONE = 8
"""Models with a process of their own that are measured; more do not fit into a small machine."""
TICKS = 200
ROWS_FIRST = 20
"""Ticks in which the states of a whole fleet have begun."""
PEER_TICKS = 20
DEPTH = 16
PATIENCE_S = 60.0
ALIASES = "alias calls, all in flight"
ONNX = "ONNX Runtime in process, 2 threads"
OPENVINO = "OpenVINO in process, 2 threads"
COMPILED = 100
"""Models that OpenVINO is measured with at most: it compiles each for a third of a second."""
PER_MODEL = "python model per LSTM"


def run(counts: tuple[int, ...], tell: Tell) -> dict[str, Any]:
    """Measure fleets of those sizes; the answer in the form that all benchmarks have."""
    load = Load()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        served(Path(folder), Size(), max(counts), tell) as fleet,
    ):
        rows = [*_windows(fleet, counts, tell), *_batches(fleet, min(counts), tell), *_costs(fleet, tell)]
    return answer("fleet", rows, load.others())


def _windows(fleet: Fleet, counts: tuple[int, ...], tell: Tell) -> list[Row]:
    rows = []
    windows, arrays = fleet.windows(), _arrays(fleet)
    with (
        Pool(fleet.triton.endpoint, deadline_s=PATIENCE_S) as pool,
        one_per_model(fleet, ALONE) as alone,
        Stock(fleet.triton.endpoint) as stock,
    ):
        for count in counts:
            tell(f"{count} models")
            x = windows[:count, 0]
            ours = milliseconds(partial(pool.tick, fleet.slots[:count], x), TICKS)
            runtimes, why = _runtimes(arrays[:count], windows[:count])
            names = [a.name for a in fleet.members[:count]]
            each = _p50(partial(stock.at_once, alone.names, x[:ALONE])) / ALONE
            others = {
                ALIASES: _p50(partial(stock.at_once, names, x)),
                "tf.function loop in process": _p50(partial(peers.function_loop(arrays[:count]), x), 5),
                **runtimes,
                f"python model per LSTM ({ALONE} measured)": round(each * count, 3),
            }
            goal = GOALS_MS.get(count)
            rows.append(Row(what=f"windows-{count}-p50-ms", unit="ms", ours=_middle(ours), peers=others, goal=goal,
                            why=why))  # fmt: skip
            rows.append(Row(what=f"windows-{count}-p99-ms", unit="ms", ours=_high(ours)))
            rows += _rows(fleet, pool, count, others)
    times = round(rows[0].peers[ALIASES] / (rows[0].ours or np.nan), 2)
    rows.append(Row(what=f"windows-{counts[0]}-vs-alias", unit="times", ours=times, goal=8.0, better="higher"))
    start, memory = {PER_MODEL: round(alone.start_s, 3)}, {PER_MODEL: round(alone.memory_gib, 3)}
    why = "what one model costs the usual way, beside the start and the memory of all"
    rows.append(Row(what="start-one-s", unit="s", ours=None, peers=start, why=why))
    rows.append(Row(what="memory-one-gib", unit="GiB", ours=None, peers=memory, why=why))
    return rows


def _rows(fleet: Fleet, pool: Pool, count: int, peers: Mapping[str, float]) -> list[Row]:
    """The same models at ticks of which each brings one row: `Stream`'s comparison of the windows included."""
    stream = Stream(pool)
    names, slots = [a.name for a in fleet.members[:count]], {fleet.triton.endpoint: fleet.slots[:count]}
    length, random = fleet.size.length, np.random.default_rng(9)
    past = random.normal(0, 1, (count, length + TICKS + ROWS_FIRST, fleet.size.features)).astype(np.float32)
    taken = []
    for tick in range(TICKS + ROWS_FIRST):
        bundle = Bundle.of(np.ascontiguousarray(past[:, tick : tick + length]))
        taken += milliseconds(partial(stream.tick, names, slots, bundle), 1, first=0).tolist()
    if stream.rows < count * TICKS:
        raise RuntimeError(f"{count * TICKS - stream.rows} of {count * TICKS} entries went by windows")
    ours, goals = np.array(taken[ROWS_FIRST:]), ROWS_GOALS_MS.get(count, (None, None))
    rows = [
        Row(what=f"rows-{count}-p50-ms", unit="ms", ours=_middle(ours), peers=peers, goal=goals[0]),
        Row(what=f"rows-{count}-p99-ms", unit="ms", ours=_high(ours), goal=goals[1]),
    ]
    if count == min(ROWS_GOALS_MS) and ONNX in peers:
        times = round(peers[ONNX] / _middle(ours), 2)
        rows.append(Row(what=f"rows-{count}-vs-ort", unit="times", ours=times, goal=1.3, better="higher"))
    return rows


def _batches(fleet: Fleet, count: int, tell: Tell) -> list[Row]:
    """16 windows of each of `count` models in one request."""
    tell(f"{DEPTH} windows of {count} models")
    windows = fleet.windows(DEPTH)[:count]
    flat = windows.reshape(-1, *windows.shape[2:])
    slots = np.repeat(fleet.slots[:count], DEPTH)
    arrays = _arrays(fleet)[:count]
    with Pool(fleet.triton.endpoint, deadline_s=PATIENCE_S) as pool:
        ours = milliseconds(lambda: pool.tick(slots, flat), 40)

    def rate(ms: float) -> float:
        return round(len(flat) / ms * 1e3)

    taken, why = _runtimes(arrays, windows)
    others = {name: rate(ms) for name, ms in taken.items()}
    return [Row(what=f"batch{DEPTH}-windows-per-s", unit="windows/s", ours=rate(_middle(ours)), peers=others,
                goal=55_000, better="higher", why=why)]  # fmt: skip


def _costs(fleet: Fleet, tell: Tell) -> list[Row]:
    """One window by its own name, memory, and a start."""
    tell("one model by its own name")
    name, x = fleet.members[0].name, fleet.windows()[:1, 0]
    with echo(fleet) as echoed, Stock(fleet.triton.endpoint) as stock:
        alias = milliseconds(partial(stock.at_once, [name], x), TICKS)
        plain = milliseconds(partial(stock.at_once, [echoed], x), TICKS)
    count, memory = len(fleet.members), fleet.memory_gib()
    tell(f"starting {count} models again")
    return [
        Row(what="alias-over-ensemble-ms", unit="ms", ours=round(_middle(alias) - _middle(plain), 3),
            peers={"ensemble over an echo": _middle(plain)}, goal=0.45),
        Row(what=f"memory-{count}-gib", unit="GiB", ours=round(memory, 2), goal=1.2 if count == 500 else None),
        Row(what=f"start-{count}-s", unit="s", ours=round(started_again(fleet), 1),
            goal=15.0 if count == 500 else None),
    ]  # fmt: skip


def _arrays(fleet: Fleet) -> list[dict[str, Float32]]:
    return [dict(np.load(io.BytesIO(a.files["serving.npz"]))) for a in fleet.members]


def _runtimes(arrays: list[dict[str, Float32]], windows: Float32) -> tuple[dict[str, float], str | None]:
    """Milliseconds of other runtimes for windows [M, n, T, F], and why one is not among them."""
    taken: dict[str, float] = {}
    lacking = []
    few = min(len(arrays), COMPILED)
    try:
        graphs = [graph_of(a, windows.shape[2], windows.shape[1]) for a in arrays]
    except ImportError as error:
        return {}, f"no graphs for ONNX Runtime and OpenVINO: {error}; pip install onnx"
    try:
        taken[ONNX] = _p50(partial(peers.onnx_sessions(graphs), windows))
    except SiteError as error:
        lacking.append(str(error))
    try:
        each = _p50(partial(peers.openvino_models(graphs[:few]), windows[:few])) / few
        name = OPENVINO if few == len(arrays) else f"{OPENVINO} ({few} measured)"
        taken[name] = round(each * len(arrays), 3)
    except SiteError as error:
        lacking.append(str(error))
    return taken, "; ".join(lacking) or None


def _p50(work: Callable[[], object], times: int = PEER_TICKS) -> float:
    return _middle(milliseconds(work, times, first=2))


def _middle(taken: NDArray[np.float64]) -> float:
    return round(float(np.median(taken)), 3)


def _high(taken: NDArray[np.float64]) -> float:
    return round(float(np.quantile(taken, 0.99)), 3)
