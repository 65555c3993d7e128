"""The record of deployments as an audit log: what a row says, what can never be changed, an older penstock's table."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.deployments import Deployment, Registry, answering, challenging, previous
from penstock.errors import ModelError


def moves(path: Path) -> list[tuple[int | None, int, str]]:
    return [(row.before, row.version, row.action) for row in Registry(path).history()]


def test_a_row_says_what_answered_before_on_which_data_and_why(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    registry.record("nox", 1, "deploy", "ana", None, snapshot="S1")
    registry.record("tey", 9, "deploy", "ana", None)
    registry.record("nox", 2, "promote", "retrain", None, snapshot="S2", why="the gate says: better")
    registry.record("nox", 2, "undeploy", "bo", None)
    registry.record("nox", 2, "deploy", "bo", None)
    told = registry.history("nox")
    assert [(row.before, row.version) for row in told] == [(None, 1), (1, 2), (2, 2), (None, 2)]
    assert (told[1].who, told[1].snapshot, told[1].why) == ("retrain", "S2", "the gate says: better")


def test_nobody_changes_or_removes_a_row(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    Registry(path).record("nox", 1, "deploy", "ana", None)
    with closing(sqlite3.connect(path)) as db:
        for statement in ("UPDATE deployments SET who = 'bo'", "DELETE FROM deployments"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                db.execute(statement)
    assert Registry(path).history()[0].who == "ana"


def test_the_table_of_an_older_penstock_is_read_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE deployments (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version INTEGER NOT "
            "NULL, action TEXT NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL DEFAULT '2026-01-01T00:00:00Z')"
        )
        db.execute("INSERT INTO deployments (name, version, action, who) VALUES ('nox', 3, 'deploy', 'ana')")
    (old,) = Registry(path).history()
    assert old == Deployment(id=1, name="nox", version=3, action="deploy", who="ana", at="2026-01-01T00:00:00Z")
    Registry(path).record("nox", 4, "promote", "bo", None, why="w")
    assert moves(path) == [(None, 3, "deploy"), (3, 4, "promote")]
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.IntegrityError, match="append only"):
        db.execute("DELETE FROM deployments")


def test_many_writers_each_see_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda v: Registry(path).record("nox", v, "deploy", "ana", None), range(1, 17)))
    told = Registry(path).history("nox")
    assert [row.before for row in told] == [None, *(row.version for row in told[:-1])]


def test_an_unknown_action_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="action 'delete'; allowed: deploy, promote, rollback, undeploy, challenge, dismiss"
    ):
        Registry(tmp_path / "r.sqlite").record("nox", 1, "delete", "ana", None)  # type: ignore[arg-type]


def rows(text: str) -> list[Deployment]:
    """ "d1 p2 r1 u1": deploy 1, promote 2, rollback 1, undeploy 1."""
    words = {
        "d": "deploy", "p": "promote", "r": "rollback", "u": "undeploy", "c": "challenge", "x": "dismiss",
    }  # fmt: skip
    return [
        Deployment(id=i, name="nox", version=int(w[1:]), action=words[w[0]], who="ana", at="")  # type: ignore[arg-type]
        for i, w in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("told", "target"),
    [
        ("", None),
        ("d1", None),
        ("d1 d1", None),
        ("d1 p2", 1),
        ("d1 p2 p3", 2),
        ("d1 p2 p3 r2", 1),
        ("d1 p2 p3 r2 r1", None),
        ("d1 p2 r1 p3", 1),
        ("d2 r1", 2),  # an older version was deployed that had never answered
        ("d1 p2 u2", None),
        ("d1 p2 u2 d3", None),
        ("d1 p2 u1", 1),  # what was taken off was no champion
    ],
)
def test_what_a_roll_back_goes_to(told: str, target: int | None) -> None:
    assert previous(rows(told)) == target


@pytest.mark.parametrize(
    ("told", "challenger", "champion"),
    [
        ("d1", None, 1),
        ("d1 c2", 2, 1),
        ("d1 c2 c3", 3, 1),
        ("d1 c2 x2", None, 1),
        ("d1 c2 c3 x2", 3, 1),  # what was dismissed was no challenger any more
        ("d1 c2 p2", None, 2),
        ("d1 c2 d2", None, 2),
        ("d1 c2 d3", 2, 3),
        ("d1 d2 c1 r1", None, 1),
        ("d1 c2 u1", None, None),
    ],
)
def test_who_is_scored_beside_the_champion(told: str, challenger: int | None, champion: int | None) -> None:
    assert challenging(rows(told)).get("nox") == challenger
    assert answering(rows(told)).get("nox") == champion


@given(st.lists(st.sampled_from("dprucx"), max_size=12), st.lists(st.integers(1, 4), min_size=12, max_size=12))
def test_challengers_move_no_champion(steps: list[str], versions: list[int]) -> None:
    log = [f"{step}{version}" for step, version in zip(steps, versions, strict=False)]
    champions = " ".join(word for word in log if word[0] not in "cx")
    assert answering(rows(" ".join(log))) == answering(rows(champions))
    assert previous(rows(" ".join(log))) == previous(rows(champions))


@given(st.lists(st.sampled_from("dpb"), max_size=30))
def test_roll_backs_walk_back_the_way_that_promotions_came(steps: list[str]) -> None:
    """Beside a stack: new versions are put on it, a roll-back takes one off."""
    stack: list[int] = []
    log: list[str] = []
    for version, step in enumerate(steps, start=1):
        if step != "b":
            stack.append(version)
            log.append(f"{step}{version}")
        elif (target := previous(rows(" ".join(log)))) is not None:
            stack.pop()
            log.append(f"r{target}")
        told = rows(" ".join(log))
        assert answering(told).get("nox") == (stack[-1] if stack else None)
        assert previous(told) == (stack[-2] if len(stack) > 1 else None)
