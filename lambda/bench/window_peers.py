"""The usual ways to do what `bench windows` measures, each with a library that may or may not be installed.

A peer gets readings and gives its answers for the last row (or its cells) and the seconds that it took; building its
own kind of table from the readings does not count.
"""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.data.frame import Frame
from penstock.errors import PenstockError

Stats = Mapping[str, NDArray[np.floating]]
"""Of "mean", "low", "high", "std" what it computes: [tags] at the last row."""
Placed = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.floating]]
"""Ticks, tags and values of the cells."""


class NotInstalled(PenstockError):
    """The peer's library is not here."""


@dataclass(frozen=True, slots=True)
class WindowPeer:
    """A way to slide."""

    name: str
    slide: Callable[[NDArray[np.float32], int], tuple[Stats, float]]
    each_event: bool = False
    """It is given one reading at a time."""


@dataclass(frozen=True, slots=True)
class GridPeer:
    """A way to bring long frames onto a grid: the last reading of each cell."""

    name: str
    pivot: Callable[[Frame, int], tuple[Placed, float]]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        top = name.partition(".")[0]
        raise NotInstalled(f"{top} is not installed: pip install 'penstock[bench]'") from None


def _pandas(rows: NDArray[np.float32], window: int) -> tuple[Stats, float]:
    pandas = _library("pandas")
    table = pandas.DataFrame(rows)
    begun = time.perf_counter()
    rolling = table.rolling(window)
    told = {"mean": rolling.mean(), "low": rolling.min(), "high": rolling.max(), "std": rolling.std(ddof=0)}
    seconds = time.perf_counter() - begun
    return {name: table.to_numpy()[-1] for name, table in told.items()}, seconds


def _polars(rows: NDArray[np.float32], window: int) -> tuple[Stats, float]:
    polars = _library("polars")
    table = polars.DataFrame(rows, schema=[f"t{i}" for i in range(rows.shape[1])])
    every = polars.all()
    begun = time.perf_counter()
    told = {
        "mean": table.lazy().select(every.rolling_mean(window)).collect(),
        "low": table.lazy().select(every.rolling_min(window)).collect(),
        "high": table.lazy().select(every.rolling_max(window)).collect(),
        "std": table.lazy().select(every.rolling_std(window, ddof=0)).collect(),
    }
    seconds = time.perf_counter() - begun
    return {name: table.tail(1).to_numpy()[0] for name, table in told.items()}, seconds


def _duckdb(rows: NDArray[np.float32], window: int) -> tuple[Stats, float]:
    duckdb, pandas = _library("duckdb"), _library("pandas")
    k, tags = rows.shape
    long = pandas.DataFrame(
        {"time": np.repeat(np.arange(k), tags), "tag": np.tile(np.arange(tags), k), "value": rows.reshape(-1)}
    )
    with duckdb.connect() as base:
        base.execute("create table readings as select * from long")
        begun = time.perf_counter()
        base.execute(
            "create table told as select tag, time, avg(value) over w as mean, min(value) over w as low, "
            "max(value) over w as high, stddev_pop(value) over w as std from readings "
            f"window w as (partition by tag order by time rows between {window - 1} preceding and current row)"
        )
        seconds = time.perf_counter() - begun
        last = base.execute(f"select mean, low, high, std from told where time = {k - 1} order by tag").fetchnumpy()
    del long
    return {name: np.asarray(column) for name, column in last.items()}, seconds


def _bottleneck(rows: NDArray[np.float32], window: int) -> tuple[Stats, float]:
    moves = _library("bottleneck")
    columns = np.ascontiguousarray(rows.T.astype(np.float64))  # its running sums in float32 are off by percents
    begun = time.perf_counter()
    told = {
        "mean": moves.move_mean(columns, window),
        "low": moves.move_min(columns, window),
        "high": moves.move_max(columns, window),
        "std": moves.move_std(columns, window, ddof=0),
    }
    return _last(told), time.perf_counter() - begun


def _numbagg(rows: NDArray[np.float32], window: int) -> tuple[Stats, float]:
    """It has no moving minimum and maximum."""
    moves = _library("numbagg")
    columns = np.ascontiguousarray(rows.T.astype(np.float64))
    moves.move_mean(columns, window=window), moves.move_std(columns, window=window)  # it compiles
    begun = time.perf_counter()
    told = {"mean": moves.move_mean(columns, window=window), "std": moves.move_std(columns, window=window)}
    seconds = time.perf_counter() - begun
    told["std"] = told["std"] * np.sqrt((window - 1) / window)  # it divides by one less
    return _last(told), seconds


def _last(told: Mapping[str, NDArray[np.floating]]) -> Stats:
    return {name: columns[:, -1] for name, columns in told.items()}


def _of_window(values: deque[float]) -> tuple[float, float, float, float]:
    read = np.array(values)
    return float(read.mean()), float(read.min()), float(read.max()), float(read.std())


def _streamz(rows: NDArray[np.float32], window: int) -> tuple[Stats, float]:
    streamz = _library("streamz")
    last: dict[int, tuple[float, ...]] = {}
    kept: dict[int, deque[float]] = {}

    def slide(event: tuple[int, float]) -> None:
        tag, value = event
        values = kept.setdefault(tag, deque(maxlen=window))
        values.append(value)
        last[tag] = _of_window(values)

    source = streamz.Stream()
    sink = source.map(slide)
    begun = time.perf_counter()
    for row in rows.tolist():
        for event in enumerate(row):
            source.emit(event)
    seconds = time.perf_counter() - begun
    del sink
    return _columns(last), seconds


def _bytewax(rows: NDArray[np.float32], window: int) -> tuple[Stats, float]:
    operators, flows, testing = (_library(f"bytewax.{part}") for part in ("operators", "dataflow", "testing"))
    events = [(str(tag), value) for row in rows.tolist() for tag, value in enumerate(row)]
    out: list[tuple[str, tuple[float, ...]]] = []

    def slide(state: deque[float] | None, value: float) -> tuple[deque[float], tuple[float, ...]]:
        values = deque(maxlen=window) if state is None else state
        values.append(value)
        return values, _of_window(values)

    flow = flows.Dataflow("windows")
    read = operators.input("in", flow, testing.TestingSource(events))
    told = operators.stateful_map("slide", read, slide)
    operators.output("out", told, testing.TestingSink(out))
    begun = time.perf_counter()
    testing.run_main(flow)
    seconds = time.perf_counter() - begun
    return _columns({int(tag): values for tag, values in out}), seconds


def _columns(last: Mapping[int, tuple[float, ...]]) -> Stats:
    told = np.array([last[tag] for tag in sorted(last)])
    return dict(zip(("mean", "low", "high", "std"), told.T, strict=True))


def _pandas_pivot(frame: Frame, period_ns: int) -> tuple[Placed, float]:
    pandas = _library("pandas")
    table = pandas.DataFrame({"time": frame.times, "tag": frame.tags, "value": frame.values})
    begun = time.perf_counter()
    last = (
        table.sort_values("time").assign(tick=table["time"] // period_ns).drop_duplicates(["tick", "tag"], keep="last")
    )
    wide = last.pivot(index="tick", columns="tag", values="value")
    seconds = time.perf_counter() - begun
    assert len(wide) == last["tick"].nunique()
    return (last["tick"].to_numpy(), last["tag"].to_numpy(), last["value"].to_numpy()), seconds


def _duckdb_pivot(frame: Frame, period_ns: int) -> tuple[Placed, float]:
    duckdb, pandas = _library("duckdb"), _library("pandas")
    long = pandas.DataFrame({"time": frame.times, "tag": frame.tags, "value": frame.values})
    with duckdb.connect() as base:
        base.execute("create table readings as select * from long")
        begun = time.perf_counter()
        base.execute(
            f"create table cells as select time // {period_ns} as tick, tag, arg_max(value, time) as value "
            "from readings group by 1, 2"
        )
        seconds = time.perf_counter() - begun
        cells = base.execute("select tick, tag, value from cells").fetchnumpy()
    del long
    return (cells["tick"], cells["tag"], cells["value"]), seconds


WINDOW_PEERS = (
    WindowPeer("pandas rolling", _pandas),
    WindowPeer("Polars", _polars),
    WindowPeer("DuckDB", _duckdb),
    WindowPeer("bottleneck", _bottleneck),
    WindowPeer("numbagg (mean, std)", _numbagg),
    WindowPeer("streamz per event", _streamz, each_event=True),
    WindowPeer("Bytewax per event", _bytewax, each_event=True),
)
GRID_PEERS = (GridPeer("pandas pivot", _pandas_pivot), GridPeer("DuckDB", _duckdb_pivot))
