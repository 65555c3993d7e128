"""The supervisor, over small real processes: what it starts, hears, starts again, and ends in which order.

The parts here are scripts of a few lines, with the same end of the pipe (`penstock.up.child`) as Triton, Dask,
stream and page have.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from penstock.errors import SiteError, Unavailable
from penstock.up import record
from penstock.up.part import Part, Plan
from penstock.up.processes import LOG_BYTES, last_line, reason, rotate
from penstock.up.record import PartRecord, Record, State
from penstock.up.restarts import BACKOFF_S, STEADY_S, Course
from penstock.up.rows import rows
from penstock.up.supervisor import Supervisor

DEADLINE_S = 60.0
SCRIPT = """
import json, sys, threading
from penstock.up.child import Child
order = json.loads(sys.argv[1])
child = Child(order["pipe"], order["parent"])
child.heed()
with open(order["trace"], "a") as trace:
    print("start", order["part"], json.dumps(order["needs"]), order["before"], file=trace, flush=True)
    if order.get("fail"):
        print("a word in the log", flush=True)
        sys.exit(3)
    if order.get("work"):
        child.say(ended=True, what="all done")
        sys.exit(0)
    child.say(up=order["before"] or order["address"], what="at work")
    child.stop.wait(60)
    print("end", order["part"], file=trace, flush=True)
"""


# Arithmetic


def falls(count: int, up_s: float) -> tuple[Course, list[float]]:
    """So many falls, each after `up_s` seconds of being up; the pauses before the starts."""
    course, now, pauses = Course(), 0.0, []
    for _ in range(count):
        course = course.rose(now)
        now += up_s
        course = course.fell(now)
        pauses.append(course.not_before - now)
        now = course.not_before
    return course, pauses


def test_pauses_double_up_to_a_minute_and_never_end() -> None:
    pauses = falls(2000, up_s=1.0)[1]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[6:]) == {BACKOFF_S[1]}
    assert all(a <= b for a, b in pairwise(pauses))


def test_a_minute_of_steadiness_makes_the_next_fall_a_first_one() -> None:
    assert set(falls(9, up_s=STEADY_S)[1]) == {BACKOFF_S[0]}
    assert falls(3, up_s=STEADY_S - 0.1)[1] == [1, 2, 4]


def test_one_that_never_comes_up_is_not_steady() -> None:
    course = Course().fell(0.0).fell(1000.0)
    assert course.falls == 2


# Processes


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "part.py"
    path.write_text(SCRIPT)
    return path


def plan(script: Path, name: str, needs: tuple[str, ...] = (), **order: object) -> Plan:
    trace = str(script.with_name("trace"))
    full = {"trace": trace, "address": f"127.0.0.1:{name}", **order}
    return Plan(name=name, order=full, needs=needs, stop_s=5.0, command=(sys.executable, str(script)))


@contextmanager
def running(folder: Path, plans: list[Plan]) -> Iterator[None]:
    """A supervisor in a thread, once all of its parts are up."""
    stop, up = threading.Event(), threading.Event()
    supervisor = Supervisor(folder, plans, told=lambda part: None)
    thread = threading.Thread(target=supervisor.run, args=(stop, lambda told: up.set()))
    thread.start()
    try:
        assert up.wait(DEADLINE_S)
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def told(folder: Path, name: str) -> PartRecord:
    found = record.read(folder)
    assert found is not None
    part = found.part(name)
    assert part is not None
    return part


def until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def trace(script: Path) -> list[str]:
    return script.with_name("trace").read_text().splitlines()


def test_a_part_waits_for_what_it_needs_and_is_told_where_that_is(script: Path, tmp_path: Path) -> None:
    with running(tmp_path, [plan(script, "stream", ("dask",)), plan(script, "dask")]):
        assert trace(script) == ["start dask {} None", 'start stream {"dask": "127.0.0.1:dask"} None']
        assert told(tmp_path, "stream").what == "at work"
    assert trace(script)[2:] == ["end stream", "end dask"], "in the order of the plans"
    assert record.read(tmp_path) is None
    assert not record.alive(tmp_path)


def test_a_killed_part_is_started_again_at_its_address_and_the_record_says_why(script: Path, tmp_path: Path) -> None:
    with running(tmp_path, [plan(script, "stream", ("dask",)), plan(script, "dask")]):
        first = told(tmp_path, "dask")
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: told(tmp_path, "dask").state is State.RESTING, "it rests")
        resting = told(tmp_path, "dask")
        assert (resting.why, resting.pid, resting.restarts) == ("killed by signal 9", None, 0)
        assert (resting.again_ns or 0) - (resting.last_ns or 0) == pytest.approx(BACKOFF_S[0] * 1e9)
        until(lambda: told(tmp_path, "dask").state is State.UP, "it is back")
        again = told(tmp_path, "dask")
        assert (again.restarts, again.address) == (1, "127.0.0.1:dask")
        assert again.pid != first.pid
        assert told(tmp_path, "stream").restarts == 0
    assert trace(script)[2] == "start dask {} 127.0.0.1:dask"
    assert len(trace(script)) == 5


def test_a_part_whose_need_has_moved_starts_anew(script: Path, tmp_path: Path) -> None:
    """1. It is asked to end. 2. It starts with the new address. 3. That is no fall of its own."""
    part = Part(plan(script, "stream", ("dask",)), tmp_path / "log")
    now = 0.0

    def look(needs: dict[str, str] | None) -> State:
        nonlocal now
        now += 0.1
        time.sleep(0.02)
        part.look(now, 0, needs)
        return part.told.state

    try:
        until(lambda: look({"dask": "a"}) is State.UP, "up")
        for _ in range(20):
            assert look(None) is State.UP, "a need that is away is waited for"
        until(lambda: look({"dask": "b"}) is State.UP and len(trace(script)) == 3, "up again")
    finally:
        part.end()
    assert [line for line in trace(script) if line.startswith("start")][
        -1
    ] == 'start stream {"dask": "b"} 127.0.0.1:stream'
    assert part.told.restarts == 0


def test_one_that_takes_too_long_to_start_is_killed_and_started_again(tmp_path: Path) -> None:
    slow = Plan(name="p", order={}, start_s=5.0, command=(sys.executable, "-c", "import time; time.sleep(60)"))
    part = Part(slow, tmp_path / "log")
    part.look(0.0, 0, {})
    part.look(4.9, 0, {})
    assert part.told.state is State.STARTING
    part.look(5.1, 0, {})
    until(lambda: part.look(5.2, 7, {}) or part.told.state is State.RESTING, "it has fallen")
    assert part.told.why == "not up within 5 s"
    part.look(6.0, 7, {})
    assert part.told.state is State.RESTING
    part.look(6.3, 7, {})
    part.look(6.4, 7, {})
    assert part.told.state is State.STARTING
    assert part.told.restarts == 1
    part.end()
    assert part.told.state is State.STOPPED


def test_work_that_is_done_is_not_done_again(script: Path, tmp_path: Path) -> None:
    with running(tmp_path, [plan(script, "stream", work=True), plan(script, "dask")]):
        time.sleep(0.5)
        stream = told(tmp_path, "stream")
        assert (stream.state, stream.what, stream.restarts) == (State.ENDED, "all done", 0)
    assert len(trace(script)) == 3


def test_a_part_that_does_not_come_up_ends_all_with_its_last_word(script: Path, tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, [plan(script, "a"), plan(script, "b", fail=True)], told=lambda part: None)
    with pytest.raises(Unavailable, match=r"b did not come up: exit code 3: a word in the log; see .*logs/b\.log"):
        supervisor.run(threading.Event(), lambda told: None)
    assert record.read(tmp_path) is None
    assert not [p for p in psutil.Process().children() if str(script) in p.cmdline()]


def test_one_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    part = Part(Plan(name="p", order={}, stop_s=0.2, command=(sys.executable, "-c", deaf)), tmp_path / "log")
    part.look(0.0, 0, {})
    until(lambda: last_line(tmp_path / "log") == "x", "it is deaf")
    part.end()
    assert "did not end within 0.2 s" in part.told.what


def test_a_second_supervisor_is_refused_with_the_pid_of_the_first(script: Path, tmp_path: Path) -> None:
    with (
        running(tmp_path, [plan(script, "a")]),
        pytest.raises(SiteError, match=rf"is up already \(pid {os.getpid()}\).*penstock down"),
    ):
        Supervisor(tmp_path, [plan(script, "b")], told=lambda part: None).run(threading.Event(), lambda told: None)
    assert [line.split()[1] for line in trace(script)] == ["a", "a"]


def test_parts_end_when_their_supervisor_is_killed_and_the_next_one_waits_for_them(
    script: Path, tmp_path: Path
) -> None:
    code = f"""
import threading
from pathlib import Path
from penstock.up.part import Plan
from penstock.up.supervisor import Supervisor
order = {{"trace": {str(script.with_name("trace"))!r}, "address": "1"}}
plan = Plan(name="a", order=order, command=({sys.executable!r}, {str(script)!r}))
Supervisor(Path({str(tmp_path)!r}), [plan], told=print).run(threading.Event(), lambda told: print("ready", flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        until(lambda: "ready" in (first.stdout.readline() if first.stdout else ""), "it is ready")
        orphan = told(tmp_path, "a").pid
        first.kill()
    assert orphan is not None
    assert not record.alive(tmp_path)
    until(lambda: not psutil.pid_exists(orphan), "the part has ended by itself")
    assert record.address(tmp_path, "a", 1.0) is None, "what a dead supervisor wrote is not believed"


# What others read

PART = PartRecord(
    name="dask", state=State.UP, pid=7, address="tcp://127.0.0.1:1", what="2 workers", restarts=0, last_ns=None,
    why="", again_ns=None, log="/site/logs/dask.log",
)  # fmt: skip
RECORD = Record(pid=5, started_ns=1, ready=True, parts=(PART,))


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record.write(tmp_path, RECORD)
    assert record.read(tmp_path) == RECORD
    (tmp_path / record.FILE).write_text("{")
    assert record.read(tmp_path) is None


def test_an_address_is_waited_for_and_only_a_living_supervisor_is_believed(tmp_path: Path) -> None:
    record.write(tmp_path, RECORD)
    assert record.address(tmp_path, "dask", 1.0) is None
    with record.held(tmp_path):
        assert record.address(tmp_path, "dask", 1.0) == PART.address
        assert record.address(tmp_path, "triton", 1.0) is None
        record.write(tmp_path, replace(RECORD, parts=(replace(PART, state=State.STARTING),)))
        with pytest.raises(Unavailable, match=r"dask of .* is not up after 0\.2 s"):
            record.address(tmp_path, "dask", 0.2)


def row(part: PartRecord) -> dict[str, str]:
    (found,) = rows("site", "Europe/Berlin", replace(RECORD, parts=(part,)), True, [])
    return found


def test_status_says_what_happened_and_what_to_do() -> None:
    assert row(PART) == {"part": "dask", "state": "ok", "what": "tcp://127.0.0.1:1, 2 workers", "todo": ""}
    fell = {"restarts": 2, "last_ns": 1_740_823_200_000_000_000, "why": "killed by signal 9"}
    assert row(replace(PART, **fell))["what"].endswith(
        "2 workers; restarted 2 times, last at 2025-03-01 11:00:00+0100 (killed by signal 9)"
    )
    resting = row(replace(PART, **fell, state=State.RESTING, again_ns=1_740_823_201_000_000_000))
    assert (resting["state"], resting["todo"]) == ("wrong", "see /site/logs/dask.log")
    assert resting["what"].startswith("killed by signal 9; is started again at 2025-03-01 11:00:01+0100")


def test_status_joins_a_part_s_own_row_and_tells_of_a_supervisor_that_has_gone() -> None:
    own = [{"part": "dask", "state": "ok", "what": "mine", "todo": "t"}]
    again = replace(PART, restarts=1, last_ns=0, why="w")
    (joined,) = rows("site", "UTC", replace(RECORD, parts=(again,)), True, own)
    assert joined == {**own[0], "what": "mine; restarted 1 time, last at 1970-01-01 00:00:00+0000 (w)"}
    *_, gone = rows("site", "UTC", RECORD, False, own)
    assert (gone["part"], gone["state"], gone["todo"]) == ("up", "wrong", "penstock up --site site")
    assert rows("site", "UTC", None, False, own) == own


# Logs


def test_a_long_log_is_put_aside_and_one_old_one_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "dask.log"
    for content in ("first", "second"):
        rotate(log)
        log.write_text(content)
        os.truncate(log, LOG_BYTES + 1)
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "logs" / "dask.log.1").read_bytes().startswith(b"second")


def test_the_last_line_is_that_of_this_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_text("old\n")
    start = log.stat().st_size
    assert last_line(log, start) == ""
    log.write_text("old\nnew é\n\n")
    assert last_line(log, start) == "new é"


def test_reasons_are_short() -> None:
    assert reason(-9, "whatever") == "killed by signal 9"
    assert reason(1, "penstock: no") == "exit code 1: penstock: no"
    assert json.dumps(reason(1, ""))


def test_parts_come_go_and_start_anew_with_the_plant(script: Path, tmp_path: Path) -> None:
    """1. Plant 1 has a page and a schedule. 2. Plant 2 has a stream and no schedule. 3. The record says who is over."""
    number = [1]
    page = replace(plan(script, "page", ("dask",)), anew=True)
    of = {
        1: [plan(script, "schedule"), page, plan(script, "dask")],
        2: [plan(script, "stream"), page, plan(script, "dask")],
    }
    stop, up = threading.Event(), threading.Event()
    supervisor = Supervisor(
        tmp_path, of[1], told=lambda part: None, plant=lambda: number[0], planned=lambda: of[number[0]]
    )
    thread = threading.Thread(target=supervisor.run, args=(stop, lambda told: up.set()))
    thread.start()
    try:
        assert up.wait(DEADLINE_S)
        found = record.read(tmp_path)
        assert found is not None
        assert found.plant == 1
        number[0] = 2
        until(lambda: (record.read(tmp_path) or found).plant == 2, "all have gone over")
        found = record.read(tmp_path)
        assert found is not None
        assert [part.name for part in found.parts] == ["stream", "page", "dask"]
        assert {(part.state, part.restarts) for part in found.parts} == {(State.UP, 0)}
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    lines = [line.split()[:2] for line in trace(script)]
    assert lines.count(["start", "page"]) == 2, "it does not look for a new plant itself"
    assert lines.count(["start", "dask"]) == lines.count(["start", "schedule"]) == 1
    assert ["end", "schedule"] in lines
    assert '"plant": "2"' in next(line for line in reversed(trace(script)) if line.startswith("start page"))
