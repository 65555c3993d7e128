"""`penstock demo` of a fleet: every unit's two models trained, judged, deployed, and answering at every tick.

The full size is `penstock demo --plant simulated --units 100`; ten units take the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from demo_runs import answer, penstock

from penstock.demo_fleets import fleets, unfit
from penstock.site import Site

UNITS, TICKS = 10, 60


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    site = tmp_path_factory.mktemp("fleet") / "site"
    words = ["demo", "--plant", "simulated", "--units", str(UNITS), "--tags", "11", "--headless", "--json"]
    return answer(penstock(*words, "--ticks", str(TICKS), "--epochs", "4", "--site", str(site), deadline_s=550))


def test_nothing_is_lost_and_every_member_answers_at_every_tick(report: dict[str, Any]) -> None:
    assert report["readings_sent"] == report["readings_archived"] == (5 * 1440 + TICKS) * UNITS * 11
    assert report["failed_requests"] == report["readings_lost"] == 0
    assert report["ticks"] == TICKS
    assert report["predictions"] == TICKS * len(report["models"])
    assert {row["n"] for row in report["models"].values()} == {TICKS}


def test_the_fleets_are_told_with_what_a_tick_costs(report: dict[str, Any]) -> None:
    assert set(report["fleets"]) == {"power", "nox"}
    assert sum(fleet["members"] for fleet in report["fleets"].values()) == len(report["models"])
    for fleet in report["fleets"].values():
        assert 0 < fleet["tick_p50_ms"] <= fleet["tick_p99_ms"]


def test_who_does_not_beat_persistence_is_not_deployed_and_says_why(report: dict[str, Any]) -> None:
    names = {f"{kind}.U{number:03}" for kind in ("power", "nox") for number in range(1, UNITS + 1)}
    assert set(report["models"]) | set(report["not_deployed"]) == names
    assert not set(report["models"]) & set(report["not_deployed"])
    assert len(report["models"]) >= UNITS
    with Site.open(report["site"]) as site:
        for card in site.cards():
            (row,) = card["metrics"].values()
            assert (row["rmse"] < row["persistence_rmse"]) == (card["name"] in report["models"]), card["name"]


def test_a_model_no_better_than_persistence_is_unfit(report: dict[str, Any]) -> None:
    name = next(iter(report["models"]))
    with Site.open(report["site"]) as site:
        assert unfit(site, name) is None
        worse = Path(report["site"]) / "models" / name / "1" / "card.json"
        text = worse.read_text()
        try:
            worse.write_text(text.replace('"persistence_rmse": ', '"persistence_rmse": 0.0, "was": '))
            assert "is not below persistence's" in str(unfit(site, name))
        finally:
            worse.write_text(text)


def test_a_fleet_is_the_members_of_one_template() -> None:
    assert fleets(["nox.U001", "power.U001", "nox.U002", "flow"]) == {
        "nox": ["nox.U001", "nox.U002"],
        "power": ["power.U001"],
        "flow": ["flow"],
    }
