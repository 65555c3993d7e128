"""Where a newcomer stumbles: what is said is true, names the next step, and nothing is started in vain."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from rich.console import Console

from penstock.data.journal import ClockDecision, Entry
from penstock.errors import ModelError, SourceError
from penstock.screen import query_table, tags_table
from penstock.serving.external import Heard, heard
from penstock.serving.triton import Triton
from penstock.site import Site
from penstock.standing import external

PLANT = """
[plant]
name = "meter"
period = "1min"
[tags]
T = { unit = "degC" }
N = { dtype = "float64", kind = "counter" }
[model.t]
target = "T"
inputs = ["N"]
step = "1min"
window = "4min"
every = "1min"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Ten minutes of a temperature and a meter, imported."""
    (tmp_path / "plant.toml").write_text(PLANT)
    with Site.create(tmp_path / "site", tmp_path / "plant.toml") as opened:
        times = pd.date_range("2024-01-01", periods=10, freq="min", tz="UTC")
        opened.load(pd.DataFrame({"time": times, "T": np.arange(10.0), "N": 123_456_789.25 + np.arange(10)}))
        yield opened


def closed(site: Site, tick: int) -> None:
    """The stream's clock says that ticks below `tick` are closed."""
    site.journal.append(
        [
            Entry(
                source="clock",
                source_offset=0,
                parts={},
                clock=ClockDecision(closed=tick, reason="watermark", state={}),
            )
        ]
    )


def test_a_tick_that_is_not_closed_is_no_hole(site: Site) -> None:
    """Minutes  0 1 2 3 4 5 6 7 | 8 9: the stream has closed eight of ten; of two nobody could know yet."""
    whole = site.query("t", start="2024-01-01")
    assert (whole.sizes["time"], whole.attrs["open"]) == (10, 0)
    newest = site.readings.head().span[1]
    closed(site, newest - 2)
    answer = site.query("t", start="-3min")
    assert list(answer["time"].values) == list(pd.date_range("2024-01-01T00:05", periods=3, freq="min").values)
    assert answer.attrs["open"] == 2
    asked = site.query("t", start="2024-01-01", end="2024-01-01T00:10")  # who names an end gets it
    assert (asked.sizes["time"], asked.attrs["open"]) == (10, 0)


def test_a_query_says_what_is_still_open() -> None:
    rows = pd.DataFrame(
        {"time": pd.to_datetime(["2024-01-01"]), "target": ["P"], "truth": [101_325.4], "prediction": [99_870.6],
         "layer": ["live"], "version": [1], "reason": ["OK"]}
    )  # fmt: skip
    shown = printed(query_table(rows, "UTC", open_ticks=2))
    assert "2 newer ticks have no answer yet" in shown
    assert "101325  99871" in shown  # 1.013e+05 is nothing to read
    assert "newer" not in printed(query_table(rows, "UTC"))


def test_a_counter_is_shown_to_its_last_digit(site: Site) -> None:
    shown = printed(tags_table(site.newest()), width=60)
    assert "123456798.25" in shown
    assert " 9 " in shown  # and a float32 in as few as it has


def test_a_table_in_a_pipe_is_not_cut(tmp_path: Path) -> None:
    name = "a_tag_with_a_name_that_is_longer_than_any_screen_is_wide_and_goes_on_and_on_and_on_and_on"
    (tmp_path / "plant.toml").write_text(PLANT.replace("T = {", f"{name} = {{ }}\nT = {{"))
    run(tmp_path, "init", "site", "--plant", "plant.toml")
    assert name in run(tmp_path, "tags", "--site", "site").stdout


def test_a_plant_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nix\.toml: no such file; give the path of a plant\.toml, or a built-in"):
        Site.create(tmp_path / "site", "nix.toml")
    with pytest.raises(SourceError, match="Did you mean 'gas-turbine'"):
        Site.create(tmp_path / "site", "gas-turbin")


def test_training_on_nothing_starts_nothing(tmp_path: Path) -> None:
    with Site.create(tmp_path / "site", "gas-turbine") as site:
        with pytest.raises(ModelError, match="no history to train on; bring it in: penstock import FILE"):
            site.train("nox")
        assert site.parts._client is None


def test_an_external_triton_is_asked(triton: Triton) -> None:
    with socket.socket() as taken:  # a port that nothing listens on
        taken.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{taken.getsockname()[1]}"
        there, gone = heard([triton.endpoint, away])
    assert (there.trouble, gone.members) == ("", 0)
    assert gone.trouble
    row = external([there, gone], champions=0)
    assert (row["state"], away in row["what"]) == ("wrong", True)
    assert "triton.endpoints in site.toml" in row["todo"]


def test_an_external_triton_without_the_models_is_not_well() -> None:
    empty = Heard(endpoint="a:8001", members=0, trouble="")
    assert external([empty], champions=0)["state"] == "ok"
    row = external([empty], champions=2)
    assert (row["state"], "penstock stream or deploy" in row["todo"]) == ("wrong", True)


def test_a_dask_scheduler_that_is_away_is_told_at_once(tmp_path: Path) -> None:
    """The command goes on waiting for minutes; it must not do so without a word."""
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "h.csv").write_text("time,T,N\n" + "".join(f"2024-01-01T00:{m:02}Z,{m},{m}\n" for m in range(60)))
    run(tmp_path, "init", "site", "--plant", "plant.toml")
    run(tmp_path, "import", "h.csv", "--site", "site")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (tmp_path / "site" / "site.toml").write_text(f'[dask]\nscheduler = "tcp://127.0.0.1:{port}"\n')
        words = [sys.executable, "-m", "penstock", "train", "t", "--site", "site"]
        with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE) as waiting:
            assert waiting.stderr is not None
            told = heard_within(waiting.stderr.fileno(), b"waiting up to", 100.0)
            waiting.kill()
    assert f"no Dask scheduler answers at tcp://127.0.0.1:{port}" in told
    assert "see dask.scheduler in site.toml" in told


def test_an_interrupt_while_workers_start_is_one_line(tmp_path: Path) -> None:
    """A terminal's Ctrl-C goes to the command and to all that it has started."""
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "h.csv").write_text("time,T,N\n" + "".join(f"2024-01-01T00:{m:02}Z,{m},{m}\n" for m in range(60)))
    run(tmp_path, "init", "site", "--plant", "plant.toml")
    run(tmp_path, "import", "h.csv", "--site", "site")
    words = [sys.executable, "-m", "penstock", "train", "t", "--site", "site"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as training:
        until = time.monotonic() + 100.0
        while not has_worker(training.pid) and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(training.pid, signal.SIGINT)
        _, said = training.communicate(timeout=100.0)
    assert (training.returncode, said) == (130, "penstock: interrupted; the same command goes on where it stopped\n")


def has_worker(pid: int) -> bool:
    """Whether a process has begun one of those that Dask spawns."""
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in word for word in child.cmdline()):
                return True
    return False


def heard_within(pipe: int, word: bytes, deadline_s: float) -> str:
    """What came until `word` did; fails where it does not in time."""
    os.set_blocking(pipe, False)
    until, said = time.monotonic() + deadline_s, b""
    while word not in said and time.monotonic() < until:
        try:
            said += os.read(pipe, 1 << 16)
        except BlockingIOError:
            time.sleep(0.1)
    assert word in said, said.decode()
    return said.decode()


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def printed(table: object, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_an_import_with_rejects_answers_machines_too(tmp_path: Path) -> None:
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "h.csv").write_text("time,T,N\n2024-01-01T00:00Z,Bad,1\n")
    run(tmp_path, "init", "site", "--plant", "plant.toml")
    told = json.loads(run(tmp_path, "import", "h.csv", "--site", "site", "--json").stdout)
    assert (told["accepted"], told["rejected"]) == (1, 1)
    assert "T,unparsable number,Bad" in Path(told["rejects"]).read_text()
