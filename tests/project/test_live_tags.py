"""`penstock tags --live`: what came, how old it is, what is wrong with it, who sent it - while a stream writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.data.archive.archiver import drain
from penstock.data.frame import BAD, UNCERTAIN, Frame
from penstock.data.journal import ClockDecision, Entry
from penstock.errors import QueryError
from penstock.live_tags import LiveTags
from penstock.site import Site

PLANT = """
[plant]
name = "works"
period = "1s"
[tags]
"U1/T" = { unit = "degC", range = [0, 100], max_gap = "3s" }
"U1/VALVE" = { kind = "state", max_gap = "1h", reports = "on change", heartbeat = "10s" }
"U1/KWH" = { unit = "kWh", dtype = "float64", kind = "counter" }
"U2/T" = { unit = "degC", flat_after = "3s", substitute = 20.0 }
[model.t]
target = "U1/T"
inputs = ["U2/T"]
window = "4s"
"""
SECOND = 10**9
BEGIN = 1_700_000_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "plant.toml").write_text(PLANT)
    with Site.create(tmp_path / "site", tmp_path / "plant.toml") as opened:
        yield opened


def bring(site: Site, tick: int, source: str = "plc", quality: int = 0, **values: float) -> None:
    """Readings of one second, a quarter into it; all seconds before are closed with them."""
    names = [name.replace("_", "/") for name in values]
    frame = Frame(
        times=np.full(len(names), (BEGIN + tick) * SECOND + SECOND // 4),
        tags=np.asarray(site.registry.ids(names), np.int32), values=np.array(list(values.values()), np.float64),
        quality=np.full(len(names), quality, np.uint8),
    )  # fmt: skip
    before = site.journal.clock()
    closed = max(BEGIN + tick, before.closed if before else 0)
    clock = ClockDecision(closed=closed, reason="watermark", state={"closed": closed, "begin": BEGIN, "sources": {}})
    parts = site.layout().split(frame)
    site.journal.append([Entry(source=source, source_offset=site.journal.tail, parts=parts, clock=clock)])


def by_tag(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["tag"]: row for row in rows}


def test_value_age_quality_and_source(site: Site) -> None:
    bring(site, 0, U1_T=50.0, U1_VALVE=1.0, U1_KWH=2.0**40 + 0.125, U2_T=7.0)
    for tick in range(1, 5):
        bring(site, tick, source="historian" if tick == 4 else "plc", U1_T=50.0 + tick, U2_T=7.0)
    now = (BEGIN + 6) * SECOND
    told = by_tag(LiveTags(site, "*").look(now))
    assert (told["U1/T"]["value"], told["U1/T"]["unit"]) == (54.0, "degC")
    assert told["U1/T"]["age_s"] == pytest.approx(1.75, abs=1e-6)
    assert (told["U1/T"]["quality"], told["U1/T"]["source"]) == ("good", "historian")
    assert (told["U1/VALVE"]["quality"], told["U1/VALVE"]["source"]) == ("unchanged", "plc")
    assert told["U1/VALVE"]["age_s"] == pytest.approx(5.75, abs=1e-6)
    assert told["U1/KWH"]["value"] == 2.0**40 + 0.125
    assert told["U1/KWH"]["quality"] == "withheld"
    assert told["U2/T"]["quality"] == "stuck"


def test_what_is_wrong_is_said_in_words(site: Site) -> None:
    live = LiveTags(site, "U1/*")
    assert {row["quality"] for row in live.look(0)} == {"no reading"}
    assert {row["source"] for row in live.look(0)} == {None}
    bring(site, 0, U1_T=50.0, U1_VALVE=1.0)
    bring(site, 1, U1_T=500.0)
    assert by_tag(live.look(0))["U1/T"]["quality"] == "out of range"
    bring(site, 2, quality=UNCERTAIN, U1_T=51.0)
    assert by_tag(live.look(0))["U1/T"]["quality"] == "uncertain"
    bring(site, 3, quality=BAD, U1_T=51.0)
    assert by_tag(live.look(0))["U1/T"]["quality"] == "bad"
    bring(site, 12, U1_KWH=1.0)
    assert by_tag(live.look(0))["U1/VALVE"]["quality"] == "stale, carried"
    assert by_tag(live.look(0))["U1/T"]["quality"] == "bad, withheld"
    bring(site, 11, source="late one", U1_T=52.0)
    row = by_tag(live.look(0))["U1/T"]
    assert (row["value"], row["quality"], row["source"]) == (52.0, "late", "late one")


def test_an_archived_reading_has_no_source_once_the_journal_has_let_go(site: Site) -> None:
    bring(site, 0, U1_T=50.0)
    live = LiveTags(site, "U1/T")
    assert live.look(0)[0]["source"] == "plc"
    drain(site.journal, site.readings, site.layout())
    filler = Entry(source="quiet", source_offset=1, parts={}, rejected=1)
    while site.journal.tail < 2 * 4096:
        site.journal.append([filler] * 4096)
    row = LiveTags(site, "U1/T").look(0)[0]
    assert (row["value"], row["source"]) == (50.0, None)
    assert live.look(0)[0]["source"] == "plc", "who has heard it knows it still"
    with pytest.raises(QueryError, match="no tag is like 'U9/"):
        LiveTags(site, "U9/*")


def test_the_command_follows_until_ctrl_c(site: Site) -> None:
    bring(site, 0, U1_T=50.0)
    words = [sys.executable, "-m", "penstock", "tags", "U1/T", "--live", "--json", "--every", "0.1"]
    with subprocess.Popen([*words, "-s", str(site.folder)], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert json.loads(command.stdout.readline())["tags"][0]["value"] == 50.0
        bring(site, 1, U1_T=60.0)
        for line in command.stdout:  # it ends with the value, or with the test's own deadline
            if json.loads(line)["tags"][0]["value"] == 60.0:
                break
        command.send_signal(signal.SIGINT)
        command.stdout.read()
        assert command.wait(30) == 0


def test_once(site: Site) -> None:
    bring(site, 0, U1_T=50.0)
    words = [sys.executable, "-m", "penstock", "tags", "U1/*", "--live", "--once", "-s", str(site.folder)]
    run = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["tag", "U1/T", "U1/VALVE", "U1/KWH"]
    assert "plc" in run.stdout
