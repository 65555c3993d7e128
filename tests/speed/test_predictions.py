"""A prediction is a tag like any other: what a sink sends, a source reads; and topics that would go in a circle."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import paho.mqtt.client as paho
import pytest
import small_site as small
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt_peer import Broker
from sink_peers import mqtt, outlet, running, say, sink_spec, spec_of, spoken
from source_peers import cells_of, take

from penstock.data.frame import BAD, GOOD, UNCERTAIN, Frame
from penstock.data.grid import Grid
from penstock.data.importing.source_tags import SourceTags
from penstock.data.plant import Plant, SourceSpec, Tag
from penstock.data.registry import Registry
from penstock.data.views.adjusted import Adjusted
from penstock.data.views.speed_view import Spoken
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.speed.formats.arrow import Frames, batches
from penstock.speed.formats.json_text import Messages
from penstock.speed.formats.names import Names
from penstock.speed.formats.predictions import Predictions, iso
from penstock.speed.link import Link
from penstock.speed.source import Access
from penstock.speed.sources.mqtt import Mqtt
from penstock.speed.topics import filled, may_meet

TAGS = {name: Tag(name=name) for name in ("near.E", "far.E")}
OTHER = Plant(name="other", period_ns=small.SECOND, tags=TAGS, models={})
AHEAD = 90 * small.SECOND
GRID = Grid(period_ns=small.SECOND // 8)


def ahead(name: str, version: int) -> WindowSpec | None:
    """`far` predicts 90 s ahead."""
    spec = spec_of(name, version)
    return replace(spec, horizon=90) if spec is not None and name == "far" else spec


def names_of(registry: Registry) -> Names:
    return Names(SourceTags(OTHER, registry, {}), Link())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    made = Registry.open(tmp_path_factory.mktemp("other") / "tags.sqlite")
    made.register(list(TAGS.values()))
    return made


def expected(said: Spoken) -> tuple[list[int], list[int], list[float], list[int]]:
    """Times, tag ids, values and quality, from the row itself."""
    begin = GRID.time(said.tick)
    times = [begin + (AHEAD if name == "far" else 0) for name, _ in said.members]
    ok = said.reasons == Reason.OK
    quality = np.where(ok, np.where(said.filled, UNCERTAIN, GOOD), BAD).tolist()
    return times, [0 if name == "near" else 1 for name, _ in said.members], said.values.tolist(), quality


def adjusted(values: np.ndarray) -> Adjusted:
    return Adjusted(
        corrections=np.full_like(values, 0.5), lows=values - 1, highs=values + 3, chances=np.full_like(values, np.nan)
    )


@settings(deadline=None)
@given(
    tick=st.integers(-(10**9), 10**10), together=st.booleans(), form=st.sampled_from(["json", "arrow"]),
    beside=st.booleans(),
)  # fmt: skip
def test_a_source_reads_what_a_sink_sends(
    registry: Registry, tick: int, together: bool, form: Any, beside: bool
) -> None:
    spec = sink_spec(format=form, topic="all" if together else "p/{model}/{target}")
    said = spoken(tick if tick >= 0 else -tick)
    said = replace(said, adjusted=adjusted(said.values)) if beside else said
    made = Predictions(spec, "small", GRID, ahead, pytest.fail)
    messages = made.messages(said)
    assert messages == Predictions(spec, "small", GRID, ahead, pytest.fail).messages(said), "the same bytes again"
    assert len(messages) == (1 if together else len(said.members))
    frames = []
    for message in messages:
        if form == "arrow":
            frames += [Frames(names_of(registry)).read(batch) for batch in batches(message.payload)]
        else:
            reads = Messages(names_of(registry))
            reads.add(message.payload, message.topic, None)
            frames.append(reads.take())
    assert sum(rejected for _, rejected in frames) == 0
    found = [frame for frame, _ in frames if isinstance(frame, Frame)]
    times, tags, values, quality = expected(said)
    assert np.concatenate([f.times for f in found]).tolist() == times
    assert np.concatenate([f.tags for f in found]).tolist() == tags
    got = np.concatenate([f.values for f in found]).astype(np.float32)
    assert got.tobytes() == np.array(values, np.float32).tobytes(), "bit for bit"
    assert np.concatenate([f.quality for f in found]).tolist() == quality


def test_what_a_message_says() -> None:
    said = Spoken(
        tick=8 * 1_777_888_800, members=(("far", 1), ("near", 1)), values=np.array([61.5, np.nan], np.float32),
        versions=np.array([3, 4], np.int32), reasons=np.array([0, Reason.BAD_INPUT], np.uint8),
        filled=np.array([False, False]), hashes=np.zeros(2, np.uint64), position=1,
    )  # fmt: skip
    made = Predictions(sink_spec(), "a/b", GRID, ahead, pytest.fail).messages(said)
    assert [m.topic for m in made] == ["out/a%2Fb/far/E", "out/a%2Fb/near/E"]
    assert json.loads(made[0].payload) == {
        "tag": "far.E", "value": 61.5, "time": "2026-05-04T10:01:30Z", "quality": "good",
        "said": "2026-05-04T10:00:00Z", "model": "far", "version": 3, "target": "E", "unit": "", "reason": "OK",
    }  # fmt: skip
    withheld = json.loads(made[1].payload)
    assert (withheld["value"], withheld["quality"], withheld["reason"]) == (None, "bad", "BAD_INPUT")


def test_what_was_said_beside_is_sent_where_it_was_said() -> None:
    said = Spoken(
        tick=8 * 1_777_888_800, members=(("far", 1), ("near", 1)), values=np.array([61.1, np.nan], np.float32),
        versions=np.array([3, 4], np.int32), reasons=np.array([0, Reason.BAD_INPUT], np.uint8),
        filled=np.array([False, False]), hashes=np.zeros(2, np.uint64), position=1,
    )  # fmt: skip
    said = replace(said, adjusted=adjusted(said.values))
    made = Predictions(sink_spec(), "a/b", GRID, ahead, pytest.fail).messages(said)
    told = json.loads(made[0].payload)
    assert (told["value"], told["corrected"], told["low"], told["high"]) == (61.1, 61.6, 60.1, 64.1)
    assert "chance" not in told
    assert not {"corrected", "low", "high"} & json.loads(made[1].payload).keys()
    spec = sink_spec(format="arrow", topic="all")
    (batch,) = batches(Predictions(spec, "a/b", GRID, ahead, pytest.fail).messages(said)[0].payload)
    assert batch.column("corrected").to_pylist()[0] == np.float32(61.6)
    assert np.isnan(batch.column("chance").to_pylist()).all()


def test_a_model_whose_card_is_gone_is_counted_and_costs_the_others_nothing() -> None:
    said, refused = spoken(10), list[str]()
    made = Predictions(sink_spec(), "p", GRID, lambda n, v: None if n == "far" else ahead(n, v), refused.append)
    assert [m.topic for m in made.messages(said)] == ["out/p/near/E"]
    assert refused == ["far@4: its card is gone, or another's: its predictions cannot be sent"]


def test_only_the_models_asked_for_are_sent() -> None:
    made = Predictions(sink_spec(models=("*", "!ne*")), "p", GRID, ahead, pytest.fail)
    assert [m.topic for m in made.messages(spoken(10))] == ["out/p/far/E"]
    assert made.messages(spoken(11)) == []


@given(st.integers(-(2**62), 2**62))
def test_times_keep_their_nanoseconds(ns: int) -> None:
    text = iso(ns)
    assert int(np.datetime64(text[:-1], "ns").astype(np.int64)) == ns
    assert not text.rstrip("Z").endswith(".")


levels = st.sampled_from(["a", "b", "out", "+"])
names = st.sampled_from(["a", "b", "x/y", "nox", "#", "+", "50%"])


@given(
    topic=st.lists(st.sampled_from(["a", "b", "out", "{plant}", "{model}", "m-{model}", "{target}"]), min_size=1),
    wanted=st.lists(levels, min_size=1),
    rest=st.booleans(),
    shared=st.booleans(),
    parts=st.fixed_dictionaries({"plant": st.sampled_from(["a", "b"]), "model": names, "target": names}),
)
def test_no_topic_goes_round_unseen(topic: Any, wanted: Any, rest: bool, shared: bool, parts: Any) -> None:
    """Whatever a broker would bring is foreseen: paho's own comparison is the judge."""
    sub = "/".join([*wanted, *(["#"] if rest else [])])
    template = "/".join(topic)
    said = filled(template, parts, topic=True)
    foreseen = may_meet(template, parts["plant"], f"$share/g/{sub}" if shared else sub)
    if paho.topic_matches_sub(sub, said):
        assert foreseen
    if not {"{model}", "m-{model}", "{target}"} & set(topic):
        assert foreseen == paho.topic_matches_sub(sub, said)


def test_a_filter_that_no_topic_reaches_is_none() -> None:
    assert not may_meet("penstock/{plant}/{model}", "mill", "penstock/other/#")
    assert not may_meet("p/m-{model}", "mill", "p/nox")
    assert may_meet("p/m-{model}", "mill", "p/m-nox")


def test_another_site_reads_the_predictions_as_tags(registry: Registry, tmp_path: Path) -> None:
    """Through a real broker: the other site's own source, that is away at first and knows only its tags."""
    broker, spec = Broker(tmp_path / "broker"), sink_spec()
    broker.start()
    source = SourceSpec(
        name="upstream", kind="mqtt", lateness_ns=0, idle_ns=10**9, skew_ns=10**9, topics=("out/small/+/E",)
    )
    access = Access(url=f"mqtt://127.0.0.1:{broker.port}", client="penstock-other")
    reads = Mqtt(source, access, names_of(registry), ZoneInfo("UTC"))
    withheld_too = sum(len(spoken(tick).members) for tick in range(40))

    async def main() -> list[Any]:
        taking = asyncio.create_task(take(reads, withheld_too))
        while not reads.link.up:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(send)
        return await taking

    def send() -> None:
        with running(one := outlet(mqtt(broker, spec), tmp_path, spec)):
            say(tmp_path, 0, 40)
            one.ring(39)

    try:
        found = asyncio.run(main())
    finally:
        broker.kill()
    assert sum(d.rejected for d in found) == 0
    cells = cells_of([d.readings for d in found], 40)
    for tick in range(40):
        said = spoken(tick)
        for i, (name, _) in enumerate(said.members):
            column = 0 if name == "near" else 1
            got = cells.values[tick, column]
            assert got == said.values[i] or (np.isnan(got) and said.reasons[i] != Reason.OK)
