"""The sessions of `penstock bench page`: they watch a real page as browsers do, and the one that is to stall does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from page_site import Voice, make

from penstock.bench.sessions import SEEN, await_ready
from penstock.page_process import PageProcess


def test_three_sessions_one_stalls(tmp_path: Path) -> None:
    site = make(tmp_path)
    voice = Voice(site)
    try:
        with PageProcess(site) as page:
            words = [sys.executable, "-m", "penstock.bench.sessions", page.address, "3", "1"]
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sessions:
                await_ready(sessions)
                time.sleep(3)
                said, _ = sessions.communicate(timeout=20)
        assert sessions.returncode == 0
    finally:
        voice.end()
    stalled, second, third = (json.loads(line) for line in said.splitlines())
    assert stalled["stalled"]
    assert stalled["patches"] == SEEN
    assert [second["model"], third["model"]] == ["speed", "flow"]
    for each in (second, third):
        assert not each["stalled"]
        assert each["patches"] > SEEN
