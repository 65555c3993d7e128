"""Who answers at an endpoint, asked of a real one: cards travel once."""

from __future__ import annotations

import pytest

from penstock.serving.pool import Pool
from penstock.serving.rosters import Rosters


class Recorded(Pool):
    """A pool that remembers which cards it was told."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, deadline_s=10.0)
        self.cards: list[set[str]] = []

    def admin(self, command, blob=None, *, at=None):
        told = super().admin(command, blob, at=at)
        self.cards.append({r["name"] for r in told.get("residents", ()) if "card" in r})
        return told


@pytest.fixture
def recorded(triton):
    with Recorded(triton.endpoint) as pool:
        yield pool


def named(rosters):
    return {m.name: m for m in rosters.members}


def test_a_card_is_told_once(deployer, recorded, make_artifact):
    first = make_artifact("first", seed=1)
    deployer.deploy(first)
    rosters = Rosters(recorded)
    rosters.ask_all()
    before = named(rosters)
    deployer.deploy(make_artifact("second", seed=2, inputs=2))
    rosters.ask_all()
    rosters.ask_all()  # nothing has moved
    now = named(rosters)
    assert recorded.cards == [{"first"}, {"second"}, set()]
    assert set(now) == {"first", "second"}
    assert now["first"].spec is before["first"].spec
    assert [len(now[name].spec.features) for name in ("first", "second")] == [3, 2]


def test_a_card_of_another_version_is_told_and_the_former_one_is_kept_for_a_while(deployer, recorded, make_artifact):
    old, new = make_artifact("moved", seed=1), make_artifact("moved", seed=2, inputs=4)
    rosters, seen = Rosters(recorded), []
    for artifact in (old, new, old):
        deployer.deploy(artifact)
        rosters.ask_all()
        seen.append(named(rosters)["moved"])
    assert [len(m.spec.features) for m in seen] == [3, 4, 3]
    assert seen[2].spec is seen[0].spec
    assert recorded.cards[:2] == [{"moved"}, {"moved"}]


def test_a_new_server_need_not_tell_again_what_is_known(deployer, recorded, make_artifact):
    deployer.deploy(make_artifact("stays", seed=1))
    rosters = Rosters(recorded)
    rosters.ask_all()
    rosters.ask(recorded.endpoints[0], afresh=True)
    assert recorded.cards == [{"stays"}, set()]
    assert set(named(rosters)) == {"stays"}


def test_specs_of_the_past_are_let_go_of_and_none_that_is_needed_is(deployer, recorded, make_artifact):
    rosters = Rosters(recorded)
    deployer.deploy(make_artifact("kept", seed=1))
    for seed in range(14):
        deployer.deploy(make_artifact("passing", seed=seed, inputs=1 + seed % 3))
        rosters.ask_all()
        assert set(named(rosters)) == {"kept", "passing"}
        assert len(named(rosters)["passing"].spec.features) == 1 + seed % 3
    assert all("kept" not in told for told in recorded.cards[1:])


def test_whoever_names_nothing_is_told_all_cards(deployer, pool, make_artifact):
    deployer.deploy(make_artifact("told", seed=1))
    residents = pool.admin({"do": "members"})["residents"]
    assert [r["card"]["spec"]["length"] for r in residents if r["live"]] == [12]
    digest = next(r["digest"] for r in residents if r["live"])
    known = pool.admin({"do": "members", "have": {"told": digest, "other": "x"}})["residents"]
    assert ["card" in r for r in known] == [False]
    stale = pool.admin({"do": "members", "have": {"told": "x"}})["residents"]
    assert ["card" in r for r in stale] == [True]
