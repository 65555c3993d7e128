"""Backups of a site beside a running stream: none acknowledged reading is missing, and the copy goes on by itself.

1. A stream replays 300 ticks slowly on two Dask workers; meanwhile backups are taken, into one folder and into a tar,
   and the speed view is pruned.
2. Each backup is restored: checksums hold, the counts are those acknowledged before it began or more, archive and what
   was said are those of the source's.
3. A stream on the copy goes on from there to the same end: each reading once, each tick said as by one run.
4. A damaged object is named, and no folder appears; a backup or a restore that is killed leaves nothing whole behind.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import tarfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import small_site as small
from test_service import SEED, TICKS, assert_said

from penstock import vault
from penstock.backup import restore
from penstock.cluster import local_cluster
from penstock.data.archive import Archive
from penstock.data.grid import Cells
from penstock.data.journal import Journal
from penstock.data.views.speed_view import SpeedView
from penstock.errors import SiteError
from penstock.site import Site
from penstock.speed.clock import SourceClock
from penstock.speed.service import Service, Setup
from penstock.speed.sources.replay import Replay

PLANT = """
[plant]
name = "small"
period = "1s"
[tags]
A = {}
B = {}
C = {}
D = {}
E = {}
"""
SITE = """
[retention]
keep_said = "100s"
[sources.plc]
url = "mqtts://broker"
password_file = "secrets/plc"
"""
DEADLINE_S = 120.0
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["penstock.site"])


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(2) as client:
        yield client.scheduler.address


def made(folder: Path) -> Path:
    folder.mkdir()
    (folder / "plant.toml").write_text(PLANT)
    with Site.create(folder / "site", folder / "plant.toml", site_text=SITE) as site:
        (site.folder / "secrets").mkdir()
        (site.folder / "secrets" / "plc").write_text("hush")
        return site.folder


def setup(site: Path, scheduler: str, rate: float | None) -> Setup:
    source = Replay("replay", lambda: [small.rows(0, TICKS, SEED)], rate=rate, group=8, moments=TICKS)
    return Setup(
        site=site, grid=small.GRID, layout=lambda: small.LAYOUT, resolve=small.resolve,
        sources=[(source, SourceClock())], scoring=small.Means(), scheduler=scheduler, commit_every_s=0.3,
    )  # fmt: skip


def run(given: Setup) -> None:
    async def main() -> None:
        await Service(given).run(signals=False)

    asyncio.run(main())


def acknowledged(site: Path) -> int:
    journal = Journal.open(site / "journal")
    try:
        return sum(t.accepted for t in journal.totals().values())
    finally:
        journal.close()


def said(site: Path) -> np.ndarray:
    view = SpeedView.open(site / "views" / "speed.sqlite")
    try:
        return view.read("near", -10, TICKS + 10).ticks
    finally:
        view.close()


def whole() -> Cells:
    expected = Cells.empty(0, TICKS, 5)
    expected.put(small.rows(0, TICKS, SEED), small.GRID, np.arange(5, dtype=np.int32), None)
    return expected


def check(site: Path, scheduler: str) -> None:
    """It goes on to the end, counts each reading once and says what an uninterrupted run says."""
    run(setup(site, scheduler, None))
    assert acknowledged(site) == len(small.rows(0, TICKS, SEED))
    got = Archive.open(site / "archive").read(np.arange(5, dtype=np.int32), 0, TICKS)
    assert got.values.tobytes() == whole().values.tobytes()
    assert got.quality.tobytes() == whole().quality.tobytes()
    view = SpeedView.open(site / "views" / "speed.sqlite")
    since = view.forgotten() or 0
    assert view.last_tick() == TICKS - 1
    view.close()
    assert_said(site, since=since)


def test_a_running_site_is_backed_up_and_its_copies_go_on(scheduler: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "home")
    stream = threading.Thread(target=run, args=(setup(folder, scheduler, 25.0),))
    stream.start()
    taken: list[tuple[Path, str | None, int, int]] = []
    try:
        with Site.open(folder) as site:
            until = time.monotonic() + DEADLINE_S
            for number, least in enumerate((40, 120, 220)):
                while (site.journal.clock() is None or site.journal.clock().closed < least) and stream.is_alive():
                    assert time.monotonic() < until
                    time.sleep(0.02)
                before = acknowledged(folder)
                to = tmp_path / ("copy.tar" if number == 1 else "copies")
                told = site.backup(to)
                assert told["not_copied"] == ["secrets/plc"]
                assert told["acknowledged"] >= before
                stamp = None if number == 1 else vault.stamps(to)[-1]
                taken.append((to, stamp, told["acknowledged"], told["new_bytes"]))
                site.prune()
    finally:
        stream.join(DEADLINE_S)
    assert not (folder / ".backup").exists()
    assert len(vault.stamps(tmp_path / "copies")) == 2
    check(folder, scheduler)
    for number, (to, stamp, least, _) in enumerate(taken):
        copy = tmp_path / f"again-{number}"
        restore(to, copy, stamp=stamp)
        assert not (copy / "secrets").exists()
        assert acknowledged(copy) == least
        with vault.opened(to, stamp) as found:
            names = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}
            assert set(found.listed.files) <= names
            for name in ("plant.toml", "site.toml", "site.json"):
                assert (copy / name).read_bytes() == (folder / name).read_bytes()
        with Site.open(copy) as site:
            assert site.desk().newest() > 0
        check(copy, scheduler)
    _damaged(tmp_path)


def _damaged(tmp_path: Path) -> None:
    """Each of some objects in turn, then the list, then a torn tar."""
    folder = tmp_path / "copies"
    with vault.opened(folder) as found:
        names = random.Random(1).sample(sorted(found.listed.files), 4)
        for name in names:
            entry = found.listed.files[name]
            path = folder / "objects" / entry.sha256[:2] / entry.sha256
            good = path.read_bytes()
            path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]) if good else b"x")
            with pytest.raises(SiteError, match=f"{name}.*is damaged"):
                restore(folder, tmp_path / "bad")
            path.unlink()
            with pytest.raises(SiteError, match=f"{name}.*is missing"):
                restore(folder, tmp_path / "bad")
            path.write_bytes(good)
    assert not (tmp_path / "bad").exists()
    assert not list(tmp_path.glob(".bad*"))
    newest = folder / f"{vault.stamps(folder)[-1]}.json"
    newest.write_bytes(newest.read_bytes().replace(b"plant.toml", b"plant.tomm", 1))
    with pytest.raises(SiteError, match="checksum differs"):
        restore(folder, tmp_path / "bad")
    raw = (tmp_path / "copy.tar").read_bytes()
    (tmp_path / "torn.tar").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(SiteError, match="no whole backup"):
        restore(tmp_path / "torn.tar", tmp_path / "bad")
    with tarfile.open(tmp_path / "copy.tar") as tar:
        assert tar.getnames()[-1] == "backup.json"
    with pytest.raises(SiteError, match="is there already"):
        restore(folder, tmp_path / "home")


def back_up(folder: Path, to: Path, say: Connection) -> None:
    with Site.open(folder) as site:
        say.send("begun")
        site.backup(to)
        say.send("done")


def bring_back(source: Path, folder: Path, say: Connection) -> None:
    say.send("begun")
    restore(source, folder)
    say.send("done")


def killed(program: object, one: Path, two: Path, seconds: float) -> None:
    hear, say = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=program, args=(one, two, say))  # type: ignore[arg-type]
    process.start()
    say.close()
    assert hear.poll(DEADLINE_S), "it says nothing"
    time.sleep(seconds)
    process.kill()
    process.join(30)
    hear.close()


def test_a_kill_leaves_no_half_backup_and_no_half_site(tmp_path: Path) -> None:
    folder, to, dice = made(tmp_path / "home"), tmp_path / "copies", random.Random(3)
    journal = Journal.open(folder / "journal")
    small.append_all(journal, small.unruly(np.random.default_rng(1), 60, late=True), 3.0)
    journal.close()
    counted = acknowledged(folder)
    for _ in range(5):
        killed(back_up, folder, to, dice.uniform(0, 0.15))
        for stamp in vault.stamps(to):
            restore(to, tmp_path / "copy", stamp=stamp)
            assert acknowledged(tmp_path / "copy") == counted
            (tmp_path / "copy").rename(tmp_path / f"seen-{stamp}-{dice.random()}")
    with Site.open(folder) as site:
        site.backup(to, keep=1)
        assert len(vault.stamps(to)) == 1
        with vault.opened(to) as found:
            wanted = {entry.sha256 for entry in found.listed.files.values()}
        assert {p.name for p in (to / "objects").glob("*/*")} == wanted, "what kills left has gone"
        assert site.backup(to)["new_bytes"] < 300_000, "the second one has little to store"
    for number in range(5):
        again = tmp_path / f"again-{number}"
        killed(bring_back, to, again, dice.uniform(0, 0.1))
        if again.exists():
            assert acknowledged(again) == counted
        else:
            restore(to, again)
        assert not list(tmp_path.glob(f".again-{number}*"))
