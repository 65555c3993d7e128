"""500 random members of random shapes: fused, each says what its own Keras model says, also right after changes.

The engine's own slots and ticks, without the server around them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest

from penstock.batch.network import Scaling, Shape, lstm, set_scaling, weights_of
from penstock.serving.backend.framing import pack
from penstock.serving.backend.slots import Slots
from penstock.serving.backend.tick import answer_tick

MEMBERS, SHAPES, CHANGES = 500, 8, 40
TOLERANCE = 1e-5
"""Of the target's scale, which is 1 here."""


@dataclass
class Member:
    name: str
    shape: int
    weights: list
    scaling: Scaling
    version: int = 1
    slot: int = -1


class Crowd:
    """Members on slots, and the Keras model of each shape, which takes a member's weights to answer for it."""

    def __init__(self, folder):
        self.random = np.random.default_rng(11)
        self.slots = Slots(folder / "state", folder / "models", MEMBERS + CHANGES)
        self.shapes = [self._shape(k) for k in range(SHAPES)]
        self.networks = [lstm(shape).model for shape in self.shapes]
        self.members = [self._member(f"m{k:03d}") for k in range(MEMBERS)]
        for member in self.members:
            self.deploy(member)

    def _shape(self, k):
        length, features, outputs = (int(self.random.integers(1, high)) for high in (30, 20, 4))
        return Shape(
            length=length, features=features, units=int(self.random.integers(1, 40)), layers=1 + k % 2,
            outputs=outputs, linear=k % 3 != 0,
        )  # fmt: skip

    def _member(self, name):
        shape = int(self.random.integers(SHAPES))
        member = Member(name, shape, [], None)
        self.renew(member)
        return member

    def renew(self, member):
        """Other weights, as a new version has them."""
        shape, draw = self.shapes[member.shape], self.random
        trained = self.networks[member.shape].trainable_weights
        member.weights = [draw.normal(0, 0.4, w.shape).astype(np.float32) for w in trained]
        member.scaling = Scaling(
            relative=draw.integers(0, 2, shape.features).astype(np.float32),
            mean=draw.normal(0, 1, shape.features).astype(np.float32),
            inv=draw.uniform(0.5, 1, shape.features).astype(np.float32),
            scale=draw.uniform(0.2, 1, shape.outputs).astype(np.float32),
            shift=draw.normal(0, 1, shape.outputs).astype(np.float32),
            last=draw.normal(0, 0.1, (shape.features, shape.outputs)).astype(np.float32),
        )

    def keras(self, member, windows):
        """What its own model says, and the model, its weights put in."""
        model = self.networks[member.shape]
        for weight, value in zip(model.trainable_weights, member.weights, strict=True):
            weight.assign(value)
        set_scaling(model, member.scaling)
        return np.asarray(model.predict_on_batch(windows), np.float32), model

    def windows(self, member, count):
        shape = self.shapes[member.shape]
        return self.random.normal(0, 1, (count, shape.length, shape.features)).astype(np.float32)

    def deploy(self, member):
        windows = self.windows(member, 2)
        said, model = self.keras(member, windows)
        golden = {"windows": windows, "predictions": said, "scale": np.ones(said.shape[1], np.float32)}
        header = {"name": member.name, "version": member.version, "kind": "lstm", "digest": "", "card": {}}
        old = member.slot
        frame = pack(header, {"serving": _npz(weights_of(model)), "golden": _npz(golden)})
        member.slot = self.slots.write(frame).slot
        self.slots.publish(member.name, member.slot)
        if old >= 0:
            self.slots.free(old)

    def check(self, asked):
        """One tick that asks each (member, windows), windows of one member side by side or not."""
        slots = np.concatenate([np.full(len(w), m.slot, np.int32) for m, w in asked])
        shapes = np.array([w.shape[1:] for _, w in asked for _ in w], np.int32)
        rows = np.concatenate([w.reshape(-1) for _, w in asked])
        answer = answer_tick(self.slots.view, slots, shapes, rows, lambda: False)
        assert answer.versions.tolist() == [m.version for m, w in asked for _ in w]
        begin = 0
        for member, windows in asked:
            wanted, _ = self.keras(member, windows)
            found = answer.values[begin : begin + wanted.size].reshape(wanted.shape)
            assert np.abs(found - wanted).max() <= TOLERANCE, member
            begin += wanted.size


def _npz(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    return Crowd(tmp_path_factory.mktemp("engine"))


def test_every_member_says_what_its_own_keras_model_says(crowd):
    order = crowd.random.permutation(MEMBERS)
    crowd.check([(crowd.members[k], crowd.windows(crowd.members[k], 1)) for k in order])


def test_any_mixture_of_members_and_numbers_of_windows(crowd):
    for _ in range(6):
        chosen = crowd.random.integers(0, MEMBERS, 40)
        depths = crowd.random.choice([1, 2, 3, 5, 16, 17], 40)
        crowd.check(
            [(m, crowd.windows(m, int(n))) for m, n in zip((crowd.members[k] for k in chosen), depths, strict=True)]
        )


def test_right_after_each_change_of_a_slot(crowd):
    for _ in range(CHANGES):
        changed = crowd.members[crowd.random.integers(MEMBERS)]
        changed.version += 1
        crowd.renew(changed)
        crowd.deploy(changed)
        beside = [crowd.members[k] for k in crowd.random.integers(0, MEMBERS, 10)]
        crowd.check([(m, crowd.windows(m, 1)) for m in (changed, *beside)])


def test_a_start_finds_all_of_them_again(crowd):
    folder = crowd.slots.folder
    crowd.slots = Slots(folder, folder.parent / "models", MEMBERS + CHANGES)
    assert crowd.slots.broken == {}
    crowd.check([(m, crowd.windows(m, 1)) for m in crowd.members])
