"""The archiver's process: the same archive as without it, its errors as they are, and no orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import small_site as small

from penstock.data.archive import Archive
from penstock.data.archiving import ArchivingProcess, Done, Gone, Work, carry_out
from penstock.data.journal import Entry, Journal
from penstock.errors import ArchiveBusy

DEADLINE_S = 30.0
TAGS = np.arange(5, dtype=np.int32)


@pytest.fixture
def process() -> Iterator[ArchivingProcess]:
    made = ArchivingProcess()
    yield made
    made.end(DEADLINE_S)
    assert made.pid is None


def work(site: Path, stop: int) -> Work:
    layout = small.LAYOUT
    return Work(
        site=site, segment_bytes=1 << 20, stop=stop, double=layout.double(), ahead=layout.ahead_of(),
        shards=layout.shards, aggregates=None,
    )  # fmt: skip


def site_of(folder: Path, ticks: int) -> tuple[Journal, Archive]:
    """A sequence per tick."""
    journal, archive = small.make_site(folder)
    for tick in range(ticks):
        append(journal, tick)
    return journal, archive


def append(journal: Journal, tick: int) -> None:
    journal.append(
        [Entry(source="s", source_offset=tick, parts=small.LAYOUT.split(small.rows(tick, tick + 1, seed=3)))]
    )


def test_it_writes_what_this_process_would(tmp_path: Path, process: ArchivingProcess) -> None:
    (ours, there), (theirs, here) = (site_of(tmp_path / name, 40) for name in ("there", "here"))
    for stop in (15, 40):
        assert process.carry_out(work(tmp_path / "there", stop)) == Done(None)
        carry_out(work(tmp_path / "here", stop))
        assert there.head().position == here.head().position == stop
    assert there.read(TAGS, 0, 40).values.tobytes() == here.read(TAGS, 0, 40).values.tobytes()
    ours.close()
    theirs.close()


def test_its_errors_come_as_they_are_and_it_goes_on(tmp_path: Path, process: ArchivingProcess) -> None:
    journal, archive = site_of(tmp_path, 3)
    with archive.committer(), pytest.raises(ArchiveBusy):
        process.carry_out(work(tmp_path, 3))
    pid = process.pid
    process.carry_out(work(tmp_path, 3))
    assert archive.head().position == 3
    assert process.pid == pid
    journal.close()


def test_killed_it_is_begun_anew_and_nothing_is_lost(tmp_path: Path, process: ArchivingProcess) -> None:
    journal, archive = site_of(tmp_path, 3)
    process.carry_out(work(tmp_path, 3))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    append(journal, 3)
    with pytest.raises(Gone, match="exit code -9"):
        process.carry_out(work(tmp_path, 4))
    process.carry_out(work(tmp_path, 4))
    assert archive.head().position == 4
    assert np.isfinite(archive.read(TAGS, 3, 4).values).any()
    journal.close()


OWNER = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_archiving import ArchivingProcess, site_of, work
site_of(Path(sys.argv[1]), 3)
process = ArchivingProcess()
process.carry_out(work(Path(sys.argv[1]), 3))
print(process.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_owner_however_that_ends(tmp_path: Path) -> None:
    folders = [str(Path(__file__).parent), str(Path(small.__file__).parent)]
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), *folders], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert owner.stdout is not None
    process = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    process.wait(DEADLINE_S)
