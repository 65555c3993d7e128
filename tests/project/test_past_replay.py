"""The past of a site said again, on a real Triton: what the live run gave, and what another version would have said.

tick   0 ......... 60 ........... 160 ........... 260
       imported    live, flow@1   live, flow@2
                   90..99 are missing, and are imported after 160, with a second reading of A at 120
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from penstock.batch.history import Source, past
from penstock.data.archive.archiver import drain
from penstock.data.frame import Frame
from penstock.data.journal import Entry
from penstock.data.models import Artifact, Draft
from penstock.data.past import Order
from penstock.data.views.speed_view import SaidRows
from penstock.data.windows import Reason, WindowSpec
from penstock.errors import ModelNotFound, QueryError
from penstock.replay import Said, said_again
from penstock.replay_pieces import plan
from penstock.replay_report import judged, report
from penstock.serving.pool import Pool
from penstock.site import Site

PLANT = """
[plant]
name = "pipe"
period = "1s"
[tags]
A = { max_gap = "2s" }
B = {}
Y = {}
Z = {}
[model.flow]
target = "Y"
inputs = ["A", "B"]
past_target = true
window = "4s"
"""
BEGIN = pd.Timestamp("2024-05-01", tz="UTC")
FIRST = int(BEGIN.timestamp())
LIVE, DEPLOY, END = 60, 160, 260
MISSING = range(90, 100)
TWICE = 120
"""Its second reading, with a later time in the same cell, replaces the first one in the archive."""
LENGTH = 4


def rows(first: int, last: int, *, without: range = range(0)) -> pd.DataFrame:
    at = np.array([k for k in range(first, last) if k not in without])
    values = np.random.default_rng(8).normal(20, 5, (END, 3)).round(2)[at]
    return pd.DataFrame({"time": BEGIN + pd.to_timedelta(at, "s"), **dict(zip("ABY", values.T, strict=True))})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, make_artifact: Callable[..., Artifact]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("replay")
    (folder / "plant.toml").write_text(PLANT)
    Site.create(folder / "site", folder / "plant.toml").close()
    (folder / "site" / "site.toml").write_text("dask.workers = 1\njournal.segment_mb = 16\n")
    with Site.open(folder / "site") as opened:
        for seed in (1, 2, 3):
            opened.models.save(draft(opened, make_artifact("flow", inputs=3, length=LENGTH, seed=seed)))
        opened.load(rows(0, LIVE))
        opened.deploy("flow", 1)
        assert opened.stream(rows(LIVE, DEPLOY, without=MISSING))["ticks"] == DEPLOY - LIVE
        opened.load(rows(MISSING.start, MISSING.stop))
        again = rows(TWICE, TWICE + 1)[["time", "A"]]
        opened.load(again.assign(time=again["time"] + pd.Timedelta("300ms"), A=again["A"] + 9))
        opened.deploy("flow", 2)
        opened.stream(rows(DEPLOY, END))
        yield opened


def draft(site: Site, made: Artifact) -> Draft:
    """The network under the plant's own description."""
    spec = WindowSpec.of(site.plant.model("flow"), site.plant)
    card = {"spec": spec.to_json(), "units": list(spec.target_units), "metrics": {}}
    trained = {"start": "2024-01-01", "end": "2024-02-01", "snapshot": "none", "first": 0, "last": 1}
    return Draft(
        name="flow", kind="lstm", card={**card, "trained": trained}, keras=b"", golden=made.golden, serving=made.serving
    )


def digests(folder: Path) -> dict[str, str]:
    """Every file of the site but SQLite's own scratch beside its databases."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm"))]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class Asking:
    """Somebody who asks the site's own Triton for `flow` all the while."""

    def __init__(self, endpoint: str) -> None:
        self.said: set[tuple[float, int]] = set()
        self.asked = 0
        self._endpoint, self._stop = endpoint, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _ask(self) -> None:
        window = np.linspace(10, 30, LENGTH * 3, dtype=np.float32).reshape(1, LENGTH, 3)
        with Pool(self._endpoint, deadline_s=20.0) as pool:
            while not self._stop.wait(0.05):
                answer = pool.predict("flow", window)
                self.said.add((float(answer.values[0, 0]), answer.version))
                self.asked += 1


def generation(endpoint: str) -> int:
    with Pool(endpoint, deadline_s=20.0) as pool:
        return int(pool.admin({"do": "health"})["generation"])


@pytest.fixture(scope="module")
def replayed(site: Site) -> dict[str, list[Said]]:
    """The versions that spoke, and flow@3, in one go; the site and its Triton are watched meanwhile."""
    (endpoint,) = site.parts.endpoints()
    spoke = plan(site, BEGIN + pd.Timedelta("40s"), None, [])
    other = plan(site, BEGIN + pd.Timedelta("200s"), None, ["flow@3"])
    before, generations = digests(site.folder), generation(endpoint)
    with Asking(endpoint) as asking:
        found = list(said_again(site, [*spoke, *other]))
    assert digests(site.folder) == before, "a replay changed the site"
    assert generation(endpoint) == generations
    assert asking.asked > 5
    assert len(asking.said) == 1, "the live model said something else meanwhile"
    assert {version for _, version in asking.said} == {2}
    return {"spoke": found[: len(spoke)], "other": found[len(spoke) :]}


def test_it_gives_what_the_live_run_gave(site: Site, replayed: dict[str, list[Said]]) -> None:
    said = replayed["spoke"]
    assert [(s.piece.first - FIRST, s.piece.last - FIRST, s.version) for s in said] == [
        (40, LIVE, 2), (LIVE, DEPLOY, 1), (DEPLOY, END, 2),
    ]  # fmt: skip
    found = report(site, [s.piece for s in said], said)
    assert found.order == {Order.JOURNAL: END - LIVE, Order.ARCHIVE: 0, Order.STORED: LIVE - 40}
    (flow,) = found.models
    assert (flow["ticks"], flow["equal"], flow["not_said_live"]) == (END - 40, END - LIVE, LIVE - 40)
    assert found.unexplained == 0
    assert list(found.differences) == []
    withheld = len(MISSING) + LENGTH + 1 - 2  # A is carried for two ticks, but B and the past target are not
    live = found.rows[found.rows["verdict"] == "equal"]
    assert withheld - 2 <= (live["reason"] != "OK").sum() <= withheld + 2
    assert flow["apart"] == 0.0
    figures = flow["targets"]["Y"]
    assert figures["mae"] == figures["live_mae"] > 0


def test_another_version_says_what_it_would_have_said(site: Site, replayed: dict[str, list[Said]]) -> None:
    """Against what that version says when it is live, to windows as the batch layer cuts them."""
    (said,) = replayed["other"]
    assert set(said.again.versions) == {3}
    found = report(site, [said.piece], [said])
    assert found.models[0]["other_version"] == END - 200
    ids = [site.desk().ids[tag.name] for tag in said.spec.stored]
    source = Source(folder=site.readings.folder, snapshot=site.readings.head().snapshot)
    windows = past(source, said.spec, ids, FIRST + 200, FIRST + END).windows
    assert (windows.reason == Reason.OK).all()
    site.deploy("flow", 3)
    with Pool(site.parts.endpoints(), deadline_s=20.0) as pool:
        expected = pool.predict("flow", np.ascontiguousarray(windows.x), version=3).values
    np.testing.assert_allclose(said.again.values, expected, atol=1e-5 * float(said.scale[0]), rtol=0)
    assert np.abs(said.again.values - said.live.values).max() > 0.1


def forget_journal(site: Site) -> None:
    """So many readings of another tag come in, all in one tick, that the journal lets go of what was streamed."""
    (z,), many = site.registry.ids(["Z"]), 500_000
    more = Frame(
        times=np.full(many, site.readings.grid.time(FIRST + END + 9)), tags=np.full(many, z, np.int32),
        values=np.ones(many, np.float32), quality=np.zeros(many, np.uint8),
    )  # fmt: skip
    while site.journal.first == 0:
        site.journal.append([Entry(source="import:z", source_offset=1, parts=site.layout().split(more))])
        drain(site.journal, site.readings, site.layout())
        site.journal.trim(site.readings.head().position)


def test_with_the_journal_gone_the_late_list_tells_the_order(site: Site, tmp_path: Path) -> None:
    """`penstock replay`: only the windows that a replaced reading stood in differ, and the late reading is named."""
    forget_journal(site)
    words = ["replay", "--site", str(site.folder), "--from", str(BEGIN + pd.Timedelta("60s"))]
    words += ["--output", str(tmp_path / "said.parquet"), "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "penstock", *words], capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["order"] == {"journal": 0, "archive": END - LIVE, "as stored": 0}
    (flow,) = told["models"]
    assert (flow["late"], flow["unexplained"], flow["equal"]) == (LENGTH, 0, END - LIVE - LENGTH)
    (difference,) = told["differences"]
    assert difference["from"] == (BEGIN + pd.Timedelta(TWICE, "s")).isoformat()
    assert [r["readings"] for r in difference["late"]] == [1]
    saved = pd.read_parquet(tmp_path / "said.parquet")
    assert len(saved) == END - LIVE
    assert (saved["verdict"] == "late").sum() == LENGTH


def test_what_cannot_be_said_again_is_told_before_anything_is_started(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no version 9"):
        site.replay("2024-05-01", model="flow@9")
    with pytest.raises(ModelNotFound, match="Did you mean 'flow'"):
        site.replay("2024-05-01", model="flaw")
    with pytest.raises(QueryError, match=r"NAME@VERSION"):
        site.replay("2024-05-01", model="flow@x")
    with pytest.raises(QueryError, match="no tick of this span"):
        site.replay("2029-05-01", "2029-05-02")


def said_rows(values: list[float], *, version: int = 1, reason: int = 0, window: int = 7) -> SaidRows:
    n = len(values)
    return SaidRows(
        ticks=np.arange(n), values=np.array(values, np.float32)[:, None], versions=np.full(n, version, np.int32),
        reasons=np.full(n, reason, np.uint8), filled=np.zeros(n, bool), hashes=np.full(n, window, np.uint64),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("live", "touched", "verdict"),
    [
        (said_rows([2.0]), True, "equal"),
        (said_rows([2.00001]), False, "close"),
        (said_rows([2.1]), False, "unexplained"),
        (said_rows([2.1]), True, "late"),
        (said_rows([2.0], window=8), False, "unexplained"),
        (said_rows([2.0], version=2), True, "other_version"),
        (said_rows([np.nan], reason=Reason.NO_ANSWER), True, "no_answer_live"),
        (said_rows([np.nan], reason=Reason.OVERLOAD, window=0), False, "passed_over_live"),
        (said_rows([np.nan], reason=Reason.BAD_INPUT), False, "unexplained"),
        (said_rows([np.nan], version=0, reason=Reason.NO_MODEL), False, "not_said_live"),
    ],
)
def test_a_tick_is_judged(live: SaidRows, touched: bool, verdict: str) -> None:
    found = judged(said_rows([2.0]), live, np.array([5.0], np.float32), np.array([touched]))
    assert found.tolist() == [verdict]
