"""A long CSV file, a float64 tag among its tags, replayed by the command in two goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from demo_runs import answer, penstock

from penstock.site import Site

PLANT = """
[plant]
name = "meter"
period = "1s"
clock = "replay"
[tags]
T = { unit = "degC" }
E = { unit = "kWh", dtype = "float64", kind = "counter" }
[model.heat]
target = "T"
inputs = ["E"]
step = "1s"
window = "4s"
every = "1s"
"""
ROWS, FIRST_GO = 90, 40


def test_a_long_file_is_streamed_and_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "plant.toml").write_text(PLANT)
    energy = 2.0**40 + np.arange(ROWS) / 8
    begin = np.datetime64("2024-03-01T00:00:00", "s")
    lines = [
        f"{begin + i}Z,{tag},{value}"
        for i in range(ROWS)
        for tag, value in (("T", 20 + i % 7), ("E", float(energy[i])))
    ]
    source = tmp_path / "long.csv"
    source.write_text("time,tag,value\n" + "\n".join(lines) + "\n")
    site = str(tmp_path / "site")
    answer(penstock("init", site, "--plant", str(tmp_path / "plant.toml"), "--json"))

    stream = ("stream", "-s", site, "--replay", str(source), "--json")
    first = answer(penstock(*stream, "--ticks", str(FIRST_GO)))
    assert (first["readings"], first["ticks"], first["late"]) == (2 * FIRST_GO, FIRST_GO, 0)
    rest = answer(penstock(*stream))
    assert (rest["readings"], rest["ticks"], rest["late"]) == (2 * (ROWS - FIRST_GO), ROWS - FIRST_GO, 0)
    assert (tmp_path / "site" / "archive" / "expired").exists(), "the stream looks for old commits"
    with Site.open(site) as opened:
        stored = opened.archive().sel(tag="E")["value"].values
        assert stored.astype(np.float64).tobytes() == energy.tobytes()
