"""`penstock apply` on a site that nothing runs on: changed whole or not at all, whenever it is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from demo_runs import penstock
from typer.testing import CliRunner

from penstock import applying
from penstock.cli import app
from penstock.data.models import Draft, Golden
from penstock.data.plants.editions import Editions
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelNotFound, PlantError, QueryError, SiteError
from penstock.site import Site

PLANT = """
[plant]
name = "yard"
period = "1s"
[tags]
file = "tags.csv"
SUM = { expr = "T1 + T2" }
"""
TAGS = "name,unit,low,high,aliases\nT1,degC,0,90,\nT2,degC,,,\n"
RENAMED = "name,unit,low,high,aliases\nHEAT,degC,0,90,T1\nT2,degC,,,\nT3,bar,,,\n"
ROWS = "time,T1,T2\n2026-05-04T10:00:00Z,1.5,2.5\n2026-05-04T10:00:01Z,3.5,4.5\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site with two readings of each tag, and a plant beside it with a renamed tag and a new one."""
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "tags.csv").write_text(TAGS)
    (tmp_path / "rows.csv").write_text(ROWS)
    with Site.create(tmp_path / "site", tmp_path / "plant.toml") as site:
        site.load(str(tmp_path / "rows.csv"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "plant.toml").write_text(PLANT.replace("T1 + T2", "HEAT + T2"))
    (tmp_path / "new" / "tags.csv").write_text(RENAMED)
    return tmp_path


def kinds(answer: dict) -> list[tuple[str, str]]:
    return [(c["kind"], c["what"]) for c in answer["changes"]]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("plant.toml", "tags.csv")}


WANTED = [("tag renamed", "HEAT"), ("tag added", "T3")]


def test_a_plant_is_applied_kept_and_told(folder: Path) -> None:
    with Site.open(folder / "site") as site:
        assert site.apply(folder / "new" / "plant.toml", dry_run=True)["applied"] is None
        assert bytes_of(folder / "site") == bytes_of(folder)
        done = site.apply(folder / "new" / "plant.toml", why="a new transmitter")
        assert (kinds(done), done["refused"], done["applied"], done["running"]) == (WANTED, 0, 2, {})
        assert bytes_of(folder / "site") == bytes_of(folder / "new")
        assert site.registry.ids(["T1", "HEAT", "T2", "T3"]).tolist() == [0, 0, 1, 2]
        again = site.apply(folder / "new" / "plant.toml")
        assert (again["changes"], again["applied"]) == ([], None)
        rows = applying.history(site.editions)
    assert [(r["number"], r["why"], len(r["changes"])) for r in rows] == [
        (1, "as it was made", 0),
        (2, "a new transmitter", 2),
    ]
    assert bytes_of(folder / "site" / "plants" / "1") == bytes_of(folder)


def test_the_files_of_the_site_itself_may_be_edited_and_applied(folder: Path) -> None:
    for name, content in bytes_of(folder / "new").items():
        (folder / "site" / name).write_bytes(content)
    with Site.open(folder / "site") as site:
        done = site.apply()
        assert (kinds(done), done["applied"]) == (WANTED, 2)
        (folder / "site" / "plant.toml").write_text((folder / "new" / "plant.toml").read_text() + "# a word\n")
        assert kinds(site.apply()) == [("text", "plant.toml")]
        (folder / "site" / "tags.csv").write_text(RENAMED + "T4,bar,,,\n")
        site.apply(folder / "new" / "plant.toml")  # what was edited in between is kept too
        assert [row["why"] for row in applying.history(site.editions)][2:] == ["", "edited in place", ""]
        assert b"T4" in site.editions.files(4)["tags.csv"]


def test_what_is_refused_changes_nothing(folder: Path) -> None:
    (folder / "new" / "tags.csv").write_text("name,dtype,aliases\nT1,float64,\nNEW,float32,\nT2,float32,\n")
    (folder / "new" / "plant.toml").write_text(PLANT)
    before = bytes_of(folder / "site")
    with Site.open(folder / "site") as site:
        names = site.registry.names()
        done = site.apply(folder / "new" / "plant.toml", agreed=lambda changes: pytest.fail("asked"))
        assert (done["refused"], done["applied"]) == (1, None)
        (folder / "new" / "plant.toml").write_text(PLANT.replace('"1s"', '"2 parsecs"').replace("T2", "T9"))
        with pytest.raises(PlantError) as told:
            site.apply(folder / "new" / "plant.toml")
        assert len(told.value.mistakes) == 2
        assert (bytes_of(folder / "site"), site.registry.names(), site.editions.newest()) == (before, names, 1)


def test_a_retired_tag_stays_readable_and_comes_back_under_its_id(folder: Path) -> None:
    (folder / "new" / "tags.csv").write_text("name,unit\nT2,degC\n")
    (folder / "new" / "plant.toml").write_text(PLANT.replace('SUM = { expr = "T1 + T2" }', ""))
    with Site.open(folder / "site") as site:
        assert kinds(site.apply(folder / "new" / "plant.toml")) == [("tag retired", "T1"), ("tag retired", "SUM")]
        assert site.archive().tag.values.tolist() == ["T2"]
        whole = site.archive(retired=True)
        assert whole.tag.values.tolist() == ["T1", "T2"]
        np.testing.assert_array_equal(whole["value"].values[:, 0], np.float32([1.5, 3.5]))
        assert site.stored_tags(retired=True)[0].unit == "degC", "as plant.toml last said"
        site.export(folder / "all.csv", retired=True)
        assert (folder / "all.csv").read_text().splitlines()[0].split(",")[1:] == ["T1", "T2"]
        with pytest.raises(QueryError, match="--retired"):
            site.export(folder / "one.csv", tags="T1")
        back = site.apply(folder / "plant.toml")
        assert ("tag back", "T1") in kinds(back)
        assert site.registry.ids(["T1"]).tolist() == [0]
        assert site.editions.edition(back["applied"]).retired == {}


def test_a_renamed_tag_answers_to_both_names(folder: Path) -> None:
    with Site.open(folder / "site") as site:
        site.apply(folder / "new" / "plant.toml")
        for name, row in (("T1", "2026-05-04T10:00:02Z,5.5"), ("HEAT", "2026-05-04T10:00:03Z,6.5")):
            (folder / f"{name}.csv").write_text(f"time,{name}\n{row}\n")
            assert site.load(str(folder / f"{name}.csv"))["rejected"] == 0
            site.export(folder / f"as-{name}.csv", tags=name)
            assert [row["tag"] for row in site.newest(name)] == ["HEAT"]
        assert (folder / "as-T1.csv").read_text().startswith((folder / "as-HEAT.csv").read_text().splitlines()[0])
        value = site.archive()["value"].sel(tag="HEAT").values
        np.testing.assert_array_equal(value, np.float32([1.5, 3.5, 5.5, 6.5]))


def test_the_command_asks_tells_and_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SITE", str(folder / "site"))
    new, run = str(folder / "new" / "plant.toml"), partial(CliRunner().invoke, app)
    unasked = run(["apply", new])
    assert "--yes" in str(unasked.exception)
    dry = run(["apply", new, "--dry-run", "--json"])
    assert kinds(json.loads(dry.stdout)) == WANTED
    done = penstock("apply", new, "--yes", "--why", "shift 2")
    assert (done.returncode, "plant 2 holds" in done.stdout, "tag renamed" in done.stdout) == (0, True, True)
    listed = json.loads(run(["plants", "--json"]).stdout)["plants"]
    assert [row["why"] for row in listed] == ["as it was made", "shift 2"]
    (folder / "new" / "plant.toml").write_text((folder / "new" / "plant.toml").read_text().replace('"1s"', '"2s"'))
    refused = penstock("apply", new, "--yes")
    assert (refused.returncode, "REFUSED: a site keeps its period" in " ".join(refused.stdout.split())) == (1, True)
    assert "nothing has changed" in refused.stderr


KILLED = """
import os, signal, sys
from pathlib import Path
from penstock import applying
from penstock.site import Site

source = Path(sys.argv[1])
for number, folder in enumerate(sys.argv[2:]):
    if (child := os.fork()) == 0:
        site = Site.open(folder)
        for at, step in enumerate(applying.steps(site, source, applying.propose(site, source), "killed")):
            print(step, file=open(f"{folder}/steps", "a"), flush=True)
            if at == number:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
"""
STEPS = [
    "aside", "kept plant.toml", "kept tags.csv", "kept edition.json", "holds", "in place tags.csv",
    "in place plant.toml", "applied", "taken over",
]  # fmt: skip


def test_a_kill_after_any_step_leaves_the_old_plant_or_the_new_one_and_the_next_apply_finishes(folder: Path) -> None:
    """The steps are enumerated: the last child runs to its end."""
    old, new = bytes_of(folder), bytes_of(folder / "new")
    sites = [folder / f"site{number}" for number in range(len(STEPS) + 1)]
    for site in sites:
        shutil.copytree(folder / "site", site)
    words = [sys.executable, "-c", KILLED, str(folder / "new" / "plant.toml"), *map(str, sites)]
    subprocess.run(words, check=True, timeout=300)
    for number, site in enumerate(sites):
        seen = (site / "steps").read_text().split("\n")[:-1]
        assert seen == STEPS[: number + 1]
        holds = "holds" in seen
        with Site.open(site) as opened:  # any command that opens it puts in place what holds
            assert bytes_of(site) == (new if holds else old), seen
            assert set(opened.plant.tags) == ({"HEAT", "T2", "T3", "SUM"} if holds else {"T1", "T2", "SUM"})
            assert opened.edition == (2 if holds else 1)
            np.testing.assert_array_equal(opened.archive()["value"].values[:, 0], np.float32([1.5, 3.5]))
            done = opened.apply(folder / "new" / "plant.toml")
            assert (done["applied"] is None) == holds
            assert bytes_of(site) == new
            assert opened.registry.ids(["T1", "HEAT", "T2", "T3"]).tolist() == [0, 0, 1, 2]
            assert not list((site / "plants").glob(".*"))


def test_a_reader_never_sees_half_of_it(folder: Path) -> None:
    """Between two files that are put in place a reader waits."""
    with Site.open(folder / "site") as site:
        proposal = applying.propose(site, folder / "new" / "plant.toml")
        steps = applying.steps(site, folder / "new" / "plant.toml", proposal, "")
        while next(steps) != "in place tags.csv":
            pass
        words = [
            sys.executable,
            "-c",
            "import sys; from penstock.site import Site; print(*Site.open(sys.argv[1]).plant.tags)",
        ]
        reader = subprocess.Popen([*words, str(folder / "site")], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(3.0)
        for _ in steps:
            pass
        assert reader.communicate(timeout=60)[0].split() == ["HEAT", "T2", "T3", "SUM"]


def test_who_reads_is_waited_for(folder: Path) -> None:
    """No file is put in place under somebody who reads the others."""
    source, seen = folder / "new" / "plant.toml", []
    with Site.open(folder / "site") as site:
        steps = applying.steps(site, source, applying.propose(site, source), "")
        writer = threading.Thread(target=lambda: [seen.append(step) for step in steps])
        with Editions(folder / "site").reading():
            writer.start()
            until = time.monotonic() + 60
            while "holds" not in seen and time.monotonic() < until:
                time.sleep(0.01)
            writer.join(0.5)
            assert seen[-1] == "holds"
            assert bytes_of(folder / "site") == bytes_of(folder)
        writer.join(60)
        assert seen[-1] == "taken over"
        assert bytes_of(folder / "site") == bytes_of(folder / "new")


def test_two_at_once_are_told_apart(folder: Path) -> None:
    with Site.open(folder / "site") as one, Site.open(folder / "site") as other:
        proposal = applying.propose(one, folder / "new" / "plant.toml")
        other.apply(folder / "new" / "plant.toml")
        with pytest.raises(SiteError, match="another plant was applied"):
            list(applying.steps(one, folder / "new" / "plant.toml", proposal, ""))
        assert one.apply(folder / "new" / "plant.toml")["changes"] == []


def test_a_live_version_answers_by_its_own_card(folder: Path) -> None:
    """What plant.toml says since holds from the next version on, in `query` too."""
    (folder / "new" / "tags.csv").write_text("name\nIN0\nOUT0\n")
    model = '[model.nox]\ntarget = "OUT0"\ninputs = ["IN0"]\nwindow = "12s"\n'
    text = PLANT.replace('SUM = { expr = "T1 + T2" }', "") + model
    (folder / "new" / "plant.toml").write_text(text)
    nothing = np.zeros((1, 1), np.float32)
    golden = Golden(windows=nothing[None], predictions=nothing, scale=nothing[0])
    with Site.create(folder / "with", folder / "new" / "plant.toml") as site:
        own = WindowSpec.of(site.plant.models["nox"], site.plant)
        card = {"spec": own.to_json(), "trained": {}}
        site.models.save(Draft(name="nox", kind="lstm", card=card, golden=golden, serving={"w": nothing}))
        site.models.record("nox", 1, "deploy", "me")
        (folder / "new" / "plant.toml").write_text(text.replace("12s", "24s"))
        assert kinds(site.apply(folder / "new" / "plant.toml")) == [("model windows", "nox")]
        assert site.spec("nox") == own
        site.models.record("nox", 1, "undeploy", "me")
        assert site.spec("nox").length == 24
        with pytest.raises(ModelNotFound):
            site.spec("nax")
