"""Sinks on real brokers that are killed, stopped, away: every prediction arrives, and twice only as the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mqtt_peer import Broker
from sink_peers import Reader, mqtt, outlet, predictions, running, said, say, sink_spec, spoken, wait

from penstock.errors import SiteError
from penstock.speed.cursor import Cursor
from penstock.speed.link import Link
from penstock.speed.outlet import Outlet
from penstock.speed.sink import Message


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "broker")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def reader(broker: Broker) -> Iterator[Reader]:
    made = Reader(broker)
    yield made
    made.close()


def assert_all_came(reader: Reader, wanted: Sequence[Message]) -> None:
    """Each at least once; a topic and a time name one text."""
    reader.until(wanted)
    assert set(reader.heard) == set(wanted)


def test_what_is_said_arrives_and_is_not_sent_again(broker: Broker, reader: Reader, tmp_path: Path) -> None:
    spec = sink_spec()
    say(tmp_path, 0, 5)
    with running(first := outlet(mqtt(broker, spec), tmp_path, spec)):
        say(tmp_path, 5, 60)
        first.ring(59)
        reader.until(said(tmp_path, spec)[-1:])
        wait(lambda: first.told()["behind_ticks"] == 0)
        assert first.told()["behind_ns"] is None
        assert first.told()["up"]
    new = [m for tick in range(5, 60) for m in predictions(spec).messages(spoken(tick))]
    assert reader.heard == new, "a new sink begins with what is said from then on, in order, each once"
    say(tmp_path, 60, 70)
    with running(outlet(mqtt(broker, spec), tmp_path, spec)):
        reader.until(said(tmp_path, spec)[-1:])
    assert Counter(reader.heard).most_common(1)[0][1] == 1, "what was acknowledged is not sent again"
    late = Reader(broker, client="late")
    wait(lambda: len(late.retained) == 2)
    late.close()
    assert {m.topic: m for m in late.retained} == {m.topic: m for m in reader.heard}, "of each topic the newest"


def test_a_killed_broker_costs_nothing(broker: Broker, reader: Reader, tmp_path: Path) -> None:
    spec = sink_spec()
    with running(one := outlet(mqtt(broker, spec), tmp_path, spec)):
        for first in range(0, 400, 20):
            say(tmp_path, first, first + 20)
            one.ring(first + 19)
            if first in (100, 240):
                wait(lambda: one.told()["up"])
                broker.kill()
                wait(lambda: not one.told()["up"])
                broker.start()
        assert_all_came(reader, said(tmp_path, spec))
        assert one.told()["failures"] > 0
        assert one.told()["connects"] >= 3


class Stopped:
    """A broker that does not answer for a while."""

    def __init__(self, broker: Broker) -> None:
        assert broker._process is not None
        self._pid = broker._process.pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


def test_a_silent_broker_holds_up_no_other_sink(broker: Broker, reader: Reader, tmp_path: Path) -> None:
    other = Broker(tmp_path / "other")
    other.start()
    spec, fine = sink_spec(), sink_spec("fine")
    listener = Reader(other)
    slow, quick = outlet(mqtt(broker, spec, 0.5), tmp_path, spec), outlet(mqtt(other, fine), tmp_path, fine)
    try:
        with running(slow, quick):
            wait(lambda: slow.told()["up"] and quick.told()["up"])
            with Stopped(broker):
                say(tmp_path, 0, 100)
                slow.ring(99)
                quick.ring(99)
                listener.until(said(tmp_path, fine))
                wait(lambda: slow.told()["failures"] > 0)
                assert "for 0.5 s" in (slow.told()["trouble"] or "")
                assert slow.told()["behind_ticks"] > 0
                assert slow.told()["behind_ns"] is not None
            assert_all_came(reader, said(tmp_path, spec))
    finally:
        listener.close()
        other.kill()
    newest = {m.topic: m for m in said(tmp_path, spec)}
    late = Reader(broker, client="late")
    wait(lambda: len(late.retained) == len(newest))
    late.close()
    assert {m.topic: m for m in late.retained} == newest, "the old connection's messages come before the new one's"


class Moody:
    """Takes messages, and raises every other time: before, or after it has taken them."""

    name = "moody"

    def __init__(self) -> None:
        self.link, self.taken, self.asked = Link(), list[Message](), 0

    def connect(self) -> None:
        self.link.came_up()

    def send(self, messages: Sequence[Message]) -> None:
        self.asked += 1
        if self.asked % 4 == 1:
            raise RuntimeError("not today")
        self.taken += messages
        if self.asked % 4 == 3:
            raise OSError("taken, but not said so")

    def close(self) -> None:
        pass


def test_a_sink_that_raises_is_counted_and_asked_again(tmp_path: Path) -> None:
    spec, moody = sink_spec("moody"), Moody()
    with running(one := outlet(moody, tmp_path, spec)):
        say(tmp_path, 0, 500)
        one.ring(499)
        wait(lambda: one.told()["behind_ticks"] == 0 and one.told()["sent"] > 0)
        assert one.told()["failures"] >= 4
    wanted = said(tmp_path, spec)
    assert set(moody.taken) == set(wanted)
    first = dict.fromkeys(moody.taken)
    assert list(first) == wanted, "in order"


def test_after_an_outage_the_newest_alone(tmp_path: Path) -> None:
    """Of both models: the second one did not answer at the newest tick."""
    spec, moody = sink_spec("moody"), Moody()
    cursor = Cursor(tmp_path / "speed" / "sinks", "moody")
    cursor.move(9)
    cursor.keep()
    say(tmp_path, 0, 400)
    with running(one := outlet(moody, tmp_path, spec, "newest")):
        wait(lambda: one.told()["behind_ticks"] == 0)
        assert one.told()["skipped"] == 399 - 9 - 2
    wanted = [m for tick in (398, 399) for m in predictions(spec).messages(spoken(tick))]
    assert list(dict.fromkeys(moody.taken)) == wanted
    assert Cursor(tmp_path / "speed" / "sinks", "moody").tick == 399


def test_a_cursor_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("{")
    with pytest.raises(SiteError, match=r"out\.json: cannot be read .* remove it"):
        Cursor(tmp_path, "out")


SENDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from penstock.speed.link import Link
from penstock.speed.sinks.mqtt import Mqtt
from penstock.speed.source import Access
from sink_peers import outlet, say, sink_spec
site, spec = Path(sys.argv[1]), sink_spec()
one = outlet(Mqtt(spec, Access(url=f"mqtt://127.0.0.1:{sys.argv[2]}"), Link()), site, spec)
one.start()
print("begun", flush=True)
for tick in range(int(sys.argv[4]), int(sys.argv[4]) + 3000):
    say(site, tick, tick + 1)
    one.ring(tick)
"""


def test_a_killed_stream_sends_the_rest_with_the_same_bytes(broker: Broker, reader: Reader, tmp_path: Path) -> None:
    spec, here = sink_spec(), str(Path(__file__).parent)
    for life in range(3):
        begin, before = life * 3000, len(reader.heard)
        command = [sys.executable, "-c", SENDER, str(tmp_path), str(broker.port), here, str(begin)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            wait(lambda before=before: len(reader.heard) > before + 40)  # type: ignore[misc]
            child.kill()
    with running(outlet(mqtt(broker, spec), tmp_path, spec)):
        assert_all_came(reader, said(tmp_path, spec))
    assert len(reader.heard) > len(set(reader.heard)), "some came twice, or nobody was killed in the middle"


def test_a_sink_that_hangs_holds_up_no_end(tmp_path: Path) -> None:
    """It is left to itself at the end."""
    forever = threading.Event()

    class Hanging(Moody):
        def send(self, messages: Sequence[Message]) -> None:
            self.asked += 1
            forever.wait()

    hanging = Hanging()
    one: Outlet = outlet(hanging, tmp_path, sink_spec("moody"))
    one.start()
    say(tmp_path, 0, 1)
    one.ring(0)
    wait(lambda: hanging.asked > 0)
    one.last()
    one.end(0.2)
    forever.set()
