"""Rows that are answered give what the whole window gives; any other row is answered with a wish for the window.

The engine's own slots, ticks and banks, without the server around them.
"""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from callers import gone_after_a_piece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.serving.backend.bank import STREAMS, Banks
from penstock.serving.backend.forward import BLOCK
from penstock.serving.backend.framing import pack
from penstock.serving.backend.host import Stopped
from penstock.serving.backend.slots import Slots
from penstock.serving.backend.streamed import Streamed
from penstock.serving.backend.tick import WANTED, answer_tick
from penstock.serving.deployable import parts_of

SHAPES = (
    {"inputs": 3, "length": 12, "units": 8}, {"inputs": 3, "length": 12, "units": 8},
    {"inputs": 5, "length": 7, "units": 9, "layers": 2}, {"inputs": 2, "length": 1, "units": 4},
)  # fmt: skip
VERSIONS = 3
RELATIVE = "relative"
"""The member whose inputs change with the newest row: it has no state."""


class Engine:
    """Members of several shapes, one of them with relative inputs, and what each is asked for."""

    def __init__(self, folder, make_artifact):
        self.slots = Slots(folder / "state", folder / "models", 128)
        self.shapes = {f"m{k}": shape for k, shape in enumerate(SHAPES)} | {RELATIVE: SHAPES[0]}
        self.names = list(self.shapes)
        self.held = {}
        self.versions = {
            name: itertools.cycle([
                make_artifact(f"bank.{name}", seed=v, relative=int(name == RELATIVE), **self.shapes[name])
                for v in range(VERSIONS)
            ])
            for name in self.names
        }  # fmt: skip
        for name in self.names:
            self.deploy(name)

    def deploy(self, name):
        """Other weights in another slot."""
        parts, header = parts_of(next(self.versions[name]))
        slot = self.slots.write(pack(header | {"name": name}, parts)).slot
        self.slots.publish(name, slot)
        if name in self.held:
            self.slots.free(self.held[name])
        self.held[name] = slot

    def shape(self, name):
        return self.shapes[name]["length"], self.shapes[name]["inputs"]

    def ask(self, entries, banks=None, stop=lambda: False):
        """Entries (name, numbers [n, F], tick) -> (version, values) of each."""
        slots = np.array([self.held[name] for name, _, _ in entries], np.int32)
        shapes = np.array([x.shape for _, x, _ in entries], np.int32)
        numbers = np.concatenate([x.reshape(-1) for _, x, _ in entries])
        streamed = banks and Streamed(ticks=np.array([t for _, _, t in entries]), banks=banks)
        told = answer_tick(self.slots.view, slots, shapes, numbers, stop, streamed)
        ends = np.cumsum(told.widths)
        parts = [told.values[end - width : end] for end, width in zip(ends, told.widths, strict=True)]
        return list(zip(told.versions.tolist(), parts, strict=True))


@pytest.fixture(scope="module")
def engine(tmp_path_factory, make_artifact):
    return Engine(tmp_path_factory.mktemp("engine"), make_artifact)


AN_ENTRY = st.sampled_from(["row", "row", "row", "row", "kept", "kept", "window", "skipped", "ahead", "behind"])
A_TICK = st.tuples(
    st.lists(AN_ENTRY, min_size=5, max_size=5),
    st.sampled_from(["", "", "", "", "stopped", "restart", "deploy", "another stream"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(A_TICK, min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_a_row_is_answered_as_its_window_or_not_at_all(engine, ticks, seed):
    random = np.random.default_rng(seed)
    banks, stream = Banks(), 1
    past = {name: random.normal(0, 1, engine.shape(name)).astype(np.float32) for name in engine.names}
    newest = dict.fromkeys(engine.names, -1)  # the tick of the newest row that the engine has been given
    for number, (entries, event) in enumerate(ticks, start=1):
        match event:
            case "restart":
                banks = Banks()
            case "deploy":
                engine.deploy(engine.names[random.integers(len(engine.names))])
            case "another stream":
                stream = int(random.integers(1, STREAMS + 2))
        asked, known = [], {}
        for name, entry in zip(engine.names, entries, strict=True):
            row = random.normal(0, 1, (1, engine.shape(name)[1])).astype(np.float32)
            past[name] = np.concatenate([past[name][1:], row])
            tick = 100 * number
            if entry in ("row", "ahead", "behind"):
                tick = newest[name] + {"row": 1, "ahead": 2, "behind": 0}[entry]
                known[name] = entry == "row"
                if tick >= 0:
                    asked.append((name, row, tick))
            elif entry != "skipped":
                asked.append((name, past[name].copy(), tick if entry == "kept" else -1))
            if entry == "kept" or (entry == "row" and tick >= 0):
                newest[name] = tick
            else:
                newest[name] = -1000 * number  # nobody knows this window's past: no row may follow it
        if not asked:
            continue
        if event == "stopped":
            with contextlib.suppress(Stopped):  # nothing is computed where no row is known
                engine.ask(asked, banks.of(stream, engine.slots.view.hosts), lambda: True)
        told = engine.ask(asked, banks.of(stream, engine.slots.view.hosts))
        wanted = engine.ask([(name, past[name], -1) for name, _, _ in asked])
        for (name, x, _), (version, values), (right, expected) in zip(asked, told, wanted, strict=True):
            if len(x) == 1 and engine.shape(name)[0] > 1 and version == WANTED:
                newest[name] = -1000 * number
                continue
            assert version == right
            assert known.get(name, True) or len(past[name]) == 1, "a row of another tick was taken"
            assert np.array_equal(values, expected), name


def test_rows_go_on_for_longer_than_a_window(engine):
    banks, random = Banks(), np.random.default_rng(3)
    names = [name for name in engine.names if name != RELATIVE]
    past = {name: random.normal(0, 1, engine.shape(name)).astype(np.float32) for name in names}
    engine.ask([(name, past[name], 0) for name in names], banks.of(1, engine.slots.view.hosts))
    for tick in range(1, 40):
        rows = {name: random.normal(0, 1, (1, engine.shape(name)[1])).astype(np.float32) for name in names}
        past = {name: np.concatenate([past[name][1:], rows[name]]) for name in names}
        told = engine.ask([(name, rows[name], tick) for name in names], banks.of(1, engine.slots.view.hosts))
        right = engine.ask([(name, past[name], -1) for name in names])
        assert [version for version, _ in told] == [version for version, _ in right]
        for (_, values), (_, expected) in zip(told, right, strict=True):
            assert np.array_equal(values, expected)


def test_members_without_a_state_say_so_and_one_slot_is_named_once(engine):
    banks = Banks()
    past = np.ones(engine.shape(RELATIVE), np.float32)
    hosts = engine.slots.view.hosts
    assert engine.ask([(RELATIVE, past, 5)], banks.of(1, hosts))[0][0] > 0
    assert engine.ask([(RELATIVE, past[:1], 6)], banks.of(1, hosts))[0][0] == WANTED
    with pytest.raises(ValueError, match="names a slot twice"):
        engine.ask([("m0", past, 7), ("m0", past, 7)], banks.of(1, hosts))


def test_a_row_of_the_group_that_another_member_has_left_holds_no_state_for_the_next(engine):
    banks, hosts = Banks(), engine.slots.view.hosts
    past = {name: np.full(engine.shape(name), k, np.float32) for k, name in enumerate(("m0", "m1"))}
    engine.ask([(name, x, 5) for name, x in past.items()], banks.of(1, hosts))
    for name in past:  # the second one gets the row that the first one has left
        engine.deploy(name)
    hosts = engine.slots.view.hosts
    told = engine.ask([(name, x[:1], 6) for name, x in past.items()], banks.of(1, hosts))
    assert [version for version, _ in told] == [WANTED, WANTED]


def test_who_goes_away_in_the_middle_leaves_no_state_that_has_moved_behind(engine):
    names = [f"crowd{k}" for k in range(3 * BLOCK)]
    for name in names:
        engine.shapes[name], engine.versions[name] = SHAPES[0], engine.versions["m0"]
        engine.deploy(name)
    banks, random = Banks(), np.random.default_rng(4)
    past = {name: random.normal(0, 1, engine.shape(name)).astype(np.float32) for name in names}
    hosts = engine.slots.view.hosts
    engine.ask([(name, past[name], 0) for name in names], banks.of(1, hosts))
    rows = {name: random.normal(0, 1, (1, engine.shape(name)[1])).astype(np.float32) for name in names}
    with pytest.raises(Stopped):
        engine.ask([(name, rows[name], 1) for name in names], banks.of(1, hosts), gone_after_a_piece())
    told = engine.ask([(name, rows[name], 1) for name in names], banks.of(1, hosts))
    assert {version for version, _ in told} == {WANTED}
