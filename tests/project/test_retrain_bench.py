"""The benchmark of a retrain, at a tiny size: it goes the product's own way, gate included, and names its figures."""

from __future__ import annotations

from penstock.bench.retrain import run


def test_retrain_says_what_it_measured() -> None:
    heard: list[str] = []
    told = run(2, heard.append, windows=600)
    rows = {row["what"]: row for row in told["rows"]}
    assert list(rows) == ["retrain-2-vs-loop", "retrain-2-s", "retrain-2-trained-s"]
    assert all(row["ours"] > 0 for row in rows.values())
    assert rows["retrain-2-trained-s"]["ours"] <= rows["retrain-2-s"]["ours"]
    assert rows["retrain-2-vs-loop"]["goal"] == 4.0
    assert next(iter(rows["retrain-2-s"]["peers"])).endswith("2 measured and scaled")
    steps = [text.split()[0] for text in heard]
    assert steps.count("stored") == steps.count("judged") == steps.count("settled") == 2, "nothing is left out"
    assert "promoted" not in steps
