"""A page beside another process: it says where it is, ends with it, and says why it cannot start."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from page_site import make

from penstock.errors import SiteError
from penstock.page_process import PageProcess

HOLDER = """
import sys, time
from pathlib import Path
from penstock.page_process import PageProcess
page = PageProcess(Path(sys.argv[1]))
print(page.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("site"))


def gone(pid: int, deadline_s: float = 20.0) -> bool:
    until = time.monotonic() + deadline_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_it_answers_and_ends_with_the_block(site: Path) -> None:
    with PageProcess(site) as page:
        assert urllib.request.urlopen(page.address, timeout=20).status == 200
    assert gone(page.pid, 1.0)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(page.address, timeout=20)


def test_it_ends_with_its_killed_parent(site: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(site)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        assert psutil.pid_exists(pid)
        holder.kill()
    assert gone(pid)


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="is no site"):
        PageProcess(tmp_path)
