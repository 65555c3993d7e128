"""`penstock init --from mqtt://...`: a real mosquitto is listened to, and what is written reads it as it stands."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mqtt_peer import Broker
from source_peers import free_port, take
from typer.testing import CliRunner

import penstock
from penstock.cli import app
from penstock.data.plants.plant_file import load_plant
from penstock.overheard import Message, overheard, template_of
from penstock.site_toml import read_settings
from penstock.sources import live_sources
from penstock.speed.formats.arrow import long_batch, payload

SECOND = 10**9
AT = 1_700_000_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"))
    made.start()
    yield made
    made.kill()


def init(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["init", *words])
    return done.exit_code, done.output if done.exception is None else f"{done.output}{done.exception}"


def body(value: object, second: int) -> bytes:
    return json.dumps({"value": value, "time": AT + second}).encode()


def test_a_broker_becomes_a_plant_that_reads_it(broker: Broker, tmp_path: Path) -> None:
    url, folder, stop = f"mqtt://127.0.0.1:{broker.port}", tmp_path / "hall", threading.Event()

    def talk() -> None:
        second = 0
        while not stop.wait(0.05):
            second += 2
            messages = [(f"hall/{u}/te/value", body(20 + math.sin(second), second)) for u in ("u1", "u2")]
            messages.append(("hall/u1/on/value", body(second % 4 > 1, second)))
            both = {"flow": second * 0.5, "press [bar]": 3, "time": AT + second}
            broker.publish([*messages, ("hall/pump", json.dumps(both).encode()), ("hall/note", b"all is well")])

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        words = ["--topics", "hall/+/+/value", "--topics", "hall/pump", "--topics", "hall/note", "--listen", "2s"]
        code, said = init(str(folder), "--from", url, *words, "--json")
    finally:
        stop.set()
        talking.join()
    assert code == 0, said
    answer = json.loads(said.splitlines()[-1])
    assert (answer["tags"], answer["next"]) == (5, f"penstock stream --site {folder}")
    assert any("are no numbers; the last: no JSON" in note for note in answer["notes"])

    with (folder / "tags.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"u1_te", "u2_te", "u1_on", "flow", "press"}
    assert rows["u1_on"]["kind"] == "state"
    assert rows["press"]["unit"] == "bar"
    assert float(rows["u1_te"]["low"]) < 15 < 25 < float(rows["u1_te"]["high"])
    assert rows["u1_te"]["max_gap"] == "6s"

    plant = load_plant(folder / "plant.toml")
    source = plant.sources["mqtt"]
    assert plant.period_ns == 2 * SECOND
    assert (source.topics, source.tag) == (("hall/+/+/value", "hall/pump", "hall/note"), "{2}_{3}")
    assert source.columns == {"press [bar]": "press"}
    assert read_settings(folder / "site.toml").sources["mqtt"].url == url
    with penstock.open(folder) as site:
        ((made, _),) = live_sources(site)

        async def main() -> list[object]:
            taking = asyncio.create_task(take(made, 3))
            while not made.link.up:  # type: ignore[union-attr]
                await asyncio.sleep(0.02)
            pump = json.dumps({"flow": 1.0, "press [bar]": 4, "time": AT}).encode()
            await asyncio.to_thread(broker.publish, [("hall/u2/te/value", body(21.5, 0)), ("hall/pump", pump)])
            return list(await taking)

        found = asyncio.run(main())
        names = site.registry.names()
        got = {(names[t], v) for d in found for t, v in zip(d.readings.tags, d.readings.values, strict=True)}  # type: ignore[attr-defined]
        assert made.link is not None
        assert made.link.unmapped == {}
    assert got == {("u2_te", 21.5), ("flow", 1.0), ("press", 4.0)}


def test_what_cannot_be_listened_to_makes_no_site(broker: Broker, tmp_path: Path) -> None:
    url, folder = f"mqtt://127.0.0.1:{broker.port}", tmp_path / "none"
    (tmp_path / "empty.pem").write_text("no certificate")
    for words, why in [
        ([f"mqtt://127.0.0.1:{free_port()}"], "cannot be reached"),
        (["http://plant"], "cannot be looked at"),
        ([url, "--topics", "quiet/#", "--listen", "200ms"], "nothing came on quiet/# within 200ms"),
        ([url, "--listen", "soon"], "--listen is 'soon'"),
        ([url.replace("mqtt", "mqtts"), "--ca-file", str(tmp_path / "empty.pem")], "certificates cannot be read"),
        ([url, "--password-file", str(tmp_path / "secret")], "cannot be read"),
    ]:
        code, said = init(str(folder), "--from", *words)
        assert code != 0
        assert why in " ".join(said.replace("│", " ").split()), said
        assert not folder.exists()


@pytest.mark.parametrize(
    ("topics", "template"),
    [
        (["plant/a/value", "plant/b/value"], "{2}"),
        (["p/u1/te", "p/u1/pe", "p/u2/te"], "{2}_{3}"),
        (["p/u1/te"], "{3}"),
        (["p/u1/te", "p/te"], ""),
        ([], ""),
    ],
)
def test_topics_are_told_apart_by_the_levels_in_which_they_differ(topics: list[str], template: str) -> None:
    assert template_of(topics) == template


def said_at(topic: str, moments: list[float], values: list[float]) -> list[Message]:
    return [
        Message(topic=topic, body=json.dumps({"value": v, "time": AT + t}).encode(), arrival_ns=0)
        for t, v in zip(moments, values, strict=True)
    ]


def test_rates_kinds_and_quiet_tags() -> None:
    rng = np.random.default_rng(5)
    heard = said_at("p/fast", list(range(60)), rng.normal(50, 1, 60).tolist())
    heard += said_at("p/quick", list(range(60)), rng.normal(50, 1, 60).tolist())
    heard += said_at("p/slow", list(range(0, 60, 10)), rng.normal(50, 1, 6).tolist())
    heard += said_at("p/count", list(range(60)), np.cumsum(rng.integers(1, 9, 60)).tolist())
    heard += said_at("p/valve", [1, 2, 3, 40], [0.3, 0.5, 0.1, 0.4])
    heard += said_at("p/once", [3], [7.0])
    found = overheard(heard)
    cells = {tag.source: tag.cells for tag in found.tags}
    assert found.period_ns == SECOND
    assert cells["fast"]["max_gap"] == "3s"
    assert cells["slow"]["max_gap"] == "30s"
    assert cells["count"]["kind"] == "counter"
    assert {name for name in cells if cells[name].get("reports") == "on change"} == {"valve", "once"}
    assert any("heard once, or when they change: valve, once" in note for note in found.notes)


def test_a_name_on_several_topics_is_told() -> None:
    bodies = [json.dumps({"te": 1.5, "time": AT + i}).encode() for i in range(4)]
    found = overheard([Message(topic=f"p/u{i % 2}", body=body, arrival_ns=0) for i, body in enumerate(bodies)])
    assert [tag.source for tag in found.tags] == ["te"]
    assert any(note.startswith("come on several topics, and would be one tag: te") for note in found.notes)


def test_arrow_messages_are_known_as_such() -> None:
    times = (AT + np.arange(8)) * SECOND
    bodies = [
        payload(long_batch(times[i : i + 1], np.array([0]), ["T1"], np.array([20.0 + i], np.float32))) for i in range(8)
    ]
    found = overheard([Message(topic="p", body=body, arrival_ns=0) for body in bodies])
    assert (found.format, found.template, found.period_ns) == ("arrow", "", SECOND)
    assert [tag.source for tag in found.tags] == ["T1"]
