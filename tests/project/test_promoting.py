"""Promotion, roll-back and the audit log on a site with the real Triton, while ticks are asked for without pause."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.data.models import Draft
from penstock.data.scoring import Ask
from penstock.errors import ModelError, ModelNotFound, PenstockError, Refused
from penstock.promoting import audit, promote, rollback
from penstock.serving.deploy import Deployer
from penstock.serving.pool import Pool
from penstock.serving.score import Score
from penstock.site import Site

PLANT = """
[plant]
name = "yard"
period = "1h"
[tags]
IN0 = {}
"""
PASSED = {"passed": True, "verdict": "better", "why": "better than nox@1 (p = 0.001)"}
KEPT = {"passed": False, "verdict": "no better", "why": "no better than nox@2 (p = 0.4)"}


@pytest.fixture
def site(tmp_path: Path, triton, make_artifact) -> Iterator[Site]:
    """Three versions of nox, none of them live."""
    (tmp_path / "plant.toml").write_text(PLANT)
    Site.create(tmp_path / "site", tmp_path / "plant.toml").close()
    (tmp_path / "site" / "site.toml").write_text(f'triton.endpoints = ["{triton.endpoint}"]\n')
    with Site.open(tmp_path / "site") as opened:
        for seed in (1, 2, 3):
            made = make_artifact("nox", seed=seed)
            card = {**made.card, "trained": {**made.card["trained"], "snapshot": f"S{seed}"}}
            draft = Draft(name="nox", kind="lstm", card=card, keras=b"", golden=made.golden, serving=made.serving)
            opened.models.save(draft)
        yield opened
    with Deployer(triton.endpoint, drain_s=0.1) as deploys:
        deploys.ensure([])


class Ticks(threading.Thread):
    """Asks for ticks without pause; keeps what was said and what failed."""

    def __init__(self, endpoint: str, windows: np.ndarray) -> None:
        super().__init__(daemon=True)
        self.endpoint, self.windows = endpoint, windows
        self.said, self.failed, self.stop, self.begun = [], [], threading.Event(), threading.Event()

    def run(self) -> None:
        with Pool(self.endpoint, deadline_s=5.0) as pool:
            score = Score(pool)
            while not self.stop.is_set():
                try:
                    (member,) = score.members()
                    self.said += score.score([Ask(member=member, windows=self.windows)])
                except (PenstockError, ValueError) as error:
                    self.failed.append(error)
                self.begun.set()


def test_a_promotion_and_a_roll_back_under_ticks_fail_no_request(site: Site, triton) -> None:
    site.deploy("nox", 1)
    site.models.note("nox", 2, "gate", PASSED)
    artifacts = {version: site.models.load("nox", version) for version in (1, 2)}
    windows = artifacts[1].golden.windows
    with Pool(triton.endpoint) as pool:
        expected = {1: pool.predict("nox", windows).values}
        ticks = Ticks(triton.endpoint, windows)
        ticks.start()
        assert ticks.begun.wait(30)
        assert promote(site, "nox", 2)["live"] == "nox@2"
        expected[2] = pool.predict("nox", windows).values
        assert rollback(site, "nox", "smells")["live"] == "nox@1"
        assert pool.predict("nox", windows).version == 1
        ticks.stop.set()
        ticks.join(30)
    assert ticks.failed == []
    versions = [said.version for said in ticks.said]
    assert {1, 2} == set(versions)
    assert versions[-1] == 1
    for said in ticks.said:
        assert np.abs(said.values - expected[said.version]).max() <= 1e-4
    who = getpass.getuser()
    told = [{k: v for k, v in row.items() if k not in ("id", "at")} for row in audit(site)]
    common = {"model": "nox", "who": who}
    assert told == [
        common | {"action": "deploy", "from": None, "to": 1, "snapshot": "S1", "why": ""},
        common | {"action": "promote", "from": 1, "to": 2, "snapshot": "S2", "why": f"the gate says: {PASSED['why']}"},
        common | {"action": "rollback", "from": 2, "to": 1, "snapshot": "S1", "why": "smells"},
    ]


def test_only_what_the_gate_let_pass_is_promoted_unasked(site: Site) -> None:
    site.deploy("nox", 2)
    with pytest.raises(Refused, match=r"nox@3: was not judged by the gate; .* penstock promote nox@3"):
        promote(site, "nox")
    site.models.note("nox", 3, "gate", KEPT)
    with pytest.raises(Refused, match=r"no better than nox@2 \(p = 0.4\)"):
        promote(site, "nox")
    assert site.models.champion("nox") == 2
    assert promote(site, "nox", 3)["live"] == "nox@3"
    assert audit(site)[-1]["why"] == f"the gate says: {KEPT['why']}"
    with pytest.raises(ModelError, match="is live already"):
        promote(site, "nox", 3)


def test_a_roll_back_needs_something_to_go_back_to(site: Site) -> None:
    with pytest.raises(ModelNotFound, match="is not live"):
        rollback(site, "nox")
    site.deploy("nox", 2)
    with pytest.raises(ModelNotFound, match="nothing answered before nox@2"):
        rollback(site, "nox")
    with pytest.raises(ModelNotFound, match="Did you mean 'nox'"):
        audit(site, "noxx")
    site.undeploy("nox")
    assert [(row["action"], row["from"], row["to"]) for row in audit(site, "nox")] == [
        ("deploy", None, 2),
        ("undeploy", 2, None),
    ]


def test_the_commands_say_the_same(site: Site) -> None:
    def penstock(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock", *words, "--site", str(site.folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    site.deploy("nox", 1)
    run = penstock("promote", "nox@2", "--why", "agreed", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1])["before"] == 1
    assert penstock("rollback", "nox").returncode == 0
    refused = penstock("promote", "nox")
    assert refused.returncode == 1
    assert "was not judged" in refused.stderr
    told = json.loads(penstock("audit", "--json").stdout.splitlines()[-1])["moves"]
    assert [(row["action"], row["why"]) for row in told] == [("deploy", ""), ("promote", "agreed"), ("rollback", "")]
    assert "agreed" in penstock("audit", "nox").stdout
