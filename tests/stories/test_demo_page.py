"""A demo that is watched: its page is open before the replay, and stays for whoever sits at a terminal.

1. In a script: the page answers while the last hours pass slowly; the demo ends by itself, and the page with it.
2. The next commands that it prints can be pasted.
3. At a terminal: the page is still there after the report, until Ctrl-C, which is no failure.
"""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import TICKS, Demo

from penstock.courses import COURSES
from penstock.demo import WATCHED, WATCHED_S, pace
from penstock.site import Site

MORE = 12
"""Hours that are left to replay: three seconds at the pace of what is watched."""


@pytest.fixture(scope="module")
def copied(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished demo's site, to go on from."""
    return Path(shutil.copytree(demo.site, tmp_path_factory.mktemp("copy") / "site"))


def words(site: Path, ticks: int) -> list[str]:
    return [sys.executable, "-m", "penstock", "demo", "--site", str(site), "--ticks", str(ticks)]


def announced(process: subprocess.Popen[str], line: str) -> str:
    """The address in the line of standard error that begins, or goes on, with `line`."""
    assert process.stderr is not None
    for said in process.stderr:
        if line in said:
            return next(word for word in said.split() if word.startswith("http"))
    pytest.fail(f"{line!r} was never said")


def answers(address: str) -> bool:
    try:
        return b"gas-turbine - penstock" in urllib.request.urlopen(address, timeout=30).read()
    except urllib.error.URLError:
        return False


def test_in_a_script_it_shows_itself_and_ends(copied: Path) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words(copied, TICKS + MORE), text=True, **pipes) as run:  # type: ignore[call-overload]
        address = announced(run, "watch it:")
        assert answers(address)
        said, complaints = run.communicate(timeout=300)
    assert run.returncode == 0, complaints
    assert not answers(address)
    assert "lost 0" in " ".join(said.split())

    look, ask, judge = (line.strip() for line in said.splitlines()[-3:])
    assert " page --site " in look
    assert " compare nox " in judge
    pasted = subprocess.run(shlex.split(ask), capture_output=True, text=True, timeout=120)
    assert pasted.returncode == 0, pasted.stderr
    assert "NOX" in pasted.stdout


def test_at_a_terminal_the_page_stays_until_ctrl_c(copied: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        words(copied, TICKS + MORE), stdout=theirs, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        os.close(theirs)
        address = announced(run, "the page stays at")
        said = os.read(ours, 1 << 16).decode()
        assert "nothing was left to replay" in " ".join(said.split())
        assert answers(address)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all of its processes
        _, complaints = run.communicate(timeout=60)
    os.close(ours)
    assert run.returncode == 0, complaints
    assert "Traceback" not in complaints
    assert not answers(address)


def test_only_the_last_ticks_are_slow(copied: Path) -> None:
    with Site.open(copied) as site:
        course = COURSES["gas-turbine"]
        assert pace(site, course, 2000, None) == (3600 * WATCHED / WATCHED_S, 2000 - WATCHED)
        assert pace(site, course, 100, None)[1] == 0
        assert pace(site, course, None, None)[1] > 6000
        assert pace(site, course, 2000, 600.0) == (600.0, 0)
