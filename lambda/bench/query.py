"""`penstock bench query`: a day of one model at a tick a second, truth, prediction and quality, across the seam.

Ours is the public `site.query` of a site that is open; the peer reads the same rows and columns from a Parquet file.
Each question begins at another second, half of its rows recomputed and half said live.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from penstock.bench.query_site import MODEL, Past, filled, go_on
from penstock.bench.results import Load, Row, answer
from penstock.site import Site

Told = Callable[[str], None]
GOAL_MS = 20.0
DUCKDB = "DuckDB on Parquet"
THREADS = 4
WARM = 5
"""Questions before any is measured, for all alike."""
WRITE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be measured."""

    rows: int = 86_400
    """Of a question."""
    queries: int = 300

    @property
    def slack(self) -> int:
        """Ticks more than a question has: so that no two ask for the same."""
        return self.rows // 24

    @property
    def name(self) -> str:
        """As the rows of a day are called."""
        return "24h-1s" if self.rows == 86_400 else f"{self.rows}-rows"


def run(wish: Wish, told: Told = lambda text: None) -> dict[str, Any]:
    """The benchmark's JSON; `told` hears what it does. Raises what a site raises."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        told(f"a scratch site with {wish.rows + wish.slack} ticks")
        site, past = filled(Path(scratch), wish.rows + wish.slack, (wish.rows + wish.slack) // 2)
        with site:
            folder = site.folder
            load, peers = Load(), _peer(Path(scratch), site, past, wish, told)
            told("ours")
            ours = _times(lambda begin: _asked(site, begin, wish), past, wish)
            told(f"ours, {THREADS} threads, while ticks are said")
            beside = _beside(site, past, wish)
        first = _first(folder, past, wish)
        others = load.others()
    return answer("query", list(_rows(wish, ours, beside, first, peers)), others)


def _asked(site: Site, begin: int, wish: Wish) -> xr.Dataset:
    """The answer to one question. Raises AssertionError where it is not whole."""
    grid = site.readings.grid
    found = site.query(MODEL, grid.time(begin), grid.time(begin + wish.rows))
    if found.sizes["time"] != wish.rows or found.attrs["holes"] or len(np.unique(found["layer"].values[[0, -1]])) != 2:
        raise AssertionError(f"{found.sizes['time']} rows, {found.attrs['holes']} holes, from tick {begin}")
    return found


def _begins(past: Past, wish: Wish) -> list[int]:
    begins = past.first + np.random.default_rng(1).integers(0, wish.slack, WARM + wish.queries)
    return [int(begin) for begin in begins]


def _times(ask: Callable[[int], object], past: Past, wish: Wish) -> list[float]:
    """ms of each question, one behind the other."""
    found = []
    for begin in _begins(past, wish):
        begun = time.perf_counter()
        ask(begin)
        found.append(1000 * (time.perf_counter() - begun))
    return found[WARM:]


def _beside(site: Site, past: Past, wish: Wish) -> list[float]:
    """ms of each question of several threads, while a tick is archived and said ten times a second."""
    over = threading.Event()

    def write() -> None:
        for _ in go_on(site, past):
            if over.wait(WRITE_S):
                return

    def ask(begin: int) -> float:
        begun = time.perf_counter()
        _asked(site, begin, wish)
        return 1000 * (time.perf_counter() - begun)

    with ThreadPoolExecutor(THREADS + 1) as pool:
        writing = pool.submit(write)
        try:
            found = list(pool.map(ask, _begins(past, wish)))
        finally:
            over.set()
        writing.result()
    return found[WARM:]


def _first(folder: Path, past: Past, wish: Wish) -> float:
    """ms of the first question of a site that was just opened; the files are in the page cache."""
    with Site.open(folder) as site:
        begun = time.perf_counter()
        _asked(site, past.first, wish)
        return 1000 * (time.perf_counter() - begun)


def _peer(scratch: Path, site: Site, past: Past, wish: Wish, told: Told) -> list[float]:
    """ms of each question to DuckDB, about a file of all that the site would answer; none where it is not there."""
    if find_spec("duckdb") is None:
        return []
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    told(DUCKDB)
    grid, path = site.readings.grid, scratch / "answers.parquet"
    whole = site.query(MODEL, grid.time(past.first), grid.time(past.last))
    names = ["truth", "quality", "flags", "prediction", "reason", "layer", "version", "sample", "filled"]
    columns = {name: np.ravel(whole[name].values) for name in names}
    table = pa.table({"time": whole["time"].values.astype("datetime64[ns]").astype(np.int64), **columns})
    pq.write_table(table, path)
    with duckdb.connect() as database:

        def ask(begin: int) -> None:
            span = [grid.time(begin), grid.time(begin + wish.rows)]
            found = database.sql(
                f"SELECT * FROM '{path}' WHERE time >= ? AND time < ? ORDER BY time", params=span
            ).to_arrow_table()
            if (found.num_rows, found.num_columns) != (wish.rows, len(names) + 1):
                raise AssertionError(f"DuckDB: {found.num_rows} rows of {found.num_columns} columns")

        return _times(ask, past, wish)


def _rows(wish: Wish, ours: list[float], beside: list[float], first: float, peers: list[float]) -> list[Row]:
    why = None if peers else "DuckDB is not installed: pip install 'penstock[bench]'"

    def row(kind: str, figure: Callable[[list[float]], float], goal: float | None = None) -> Row:
        told = {DUCKDB: round(figure(peers), 2)} if peers else {}
        return Row(
            what=f"query-{wish.name}-{kind}", unit="ms", ours=round(figure(ours), 2), peers=told, goal=goal, why=why
        )

    return [
        row("p99-ms", lambda times: float(np.percentile(times, 99)), GOAL_MS if wish.rows == 86_400 else None),
        row("p50-ms", lambda times: float(np.median(times))),
        Row(what=f"query-{wish.name}-first-ms", unit="ms", ours=round(first, 1)),
        Row(
            what=f"query-{wish.name}-{THREADS}-threads-p99-ms", unit="ms",
            ours=round(float(np.percentile(beside, 99)), 2),
        ),
    ]  # fmt: skip
