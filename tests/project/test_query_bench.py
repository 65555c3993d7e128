"""The benchmark of questions, at a tiny size: every answer is whole, ours and the peer's."""

from __future__ import annotations

from importlib.util import find_spec

from penstock.bench.query import DUCKDB, Wish, run


def test_query_says_what_it_measured() -> None:
    heard: list[str] = []
    told = run(Wish(rows=1200, queries=10), heard.append)
    rows = {row["what"]: row for row in told["rows"]}
    assert list(rows) == [
        "query-1200-rows-p99-ms", "query-1200-rows-p50-ms", "query-1200-rows-first-ms",
        "query-1200-rows-4-threads-p99-ms",
    ]  # fmt: skip
    assert all(row["ours"] > 0 for row in rows.values())
    assert rows["query-1200-rows-p99-ms"]["ours"] >= rows["query-1200-rows-p50-ms"]["ours"]
    assert rows["query-1200-rows-p99-ms"]["goal"] is None, "the goal is for a day of seconds"
    assert Wish().name == "24h-1s"
    if find_spec("duckdb") is not None:
        assert set(rows["query-1200-rows-p99-ms"]["peers"]) == {DUCKDB}
        assert DUCKDB in heard
    else:
        assert "duckdb" in rows["query-1200-rows-p99-ms"]["why"].lower()
