"""Keras models that are not ours: handed over ready made, or built by the plant's own file."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from penstock.batch import foreign, network
from penstock.batch.network import Shape
from penstock.data.models import ModelStore
from penstock.data.plant import LstmSpec
from penstock.errors import ModelError

WINDOWS = np.random.default_rng(1).normal(20, 5, (7, 6, 3)).astype(np.float32)
SCALE = np.ones(2, np.float32)
CARD = {"spec": {}, "created": "2020-01-01T00:00:00Z"}


def gru() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((6, 3)), keras.layers.GRU(4), keras.layers.Dense(2)])


def test_a_ready_made_model_is_served_as_it_stands(tmp_path: Path) -> None:
    model = gru()
    draft = foreign.draft_of(model, name="gru", card=CARD, windows=WINDOWS, scale=SCALE)
    artifact = ModelStore(tmp_path).save(draft)
    assert artifact.kind == "solo"
    with foreign.served(artifact.saved_model) as serve:
        np.testing.assert_allclose(serve(WINDOWS), model.predict(WINDOWS, verbose=0), atol=1e-5)
        assert serve(WINDOWS[:1]).shape == (1, 2), "any number of windows"
    np.testing.assert_array_equal(artifact.golden.predictions, model.predict(WINDOWS, verbose=0))


def test_one_of_ours_handed_back_stays_an_lstm() -> None:
    net = network.lstm(Shape(length=6, features=3, units=4, layers=1, outputs=2, linear=True))
    draft = foreign.draft_of(net.model, name="ours", card=CARD, windows=WINDOWS, scale=SCALE)
    assert draft.kind == "lstm"
    assert draft.serving is not None


def test_an_isolated_lstm_is_kept_as_its_saved_model_and_says_the_same() -> None:
    net = network.lstm(Shape(length=6, features=3, units=4, layers=1, outputs=2, linear=True))
    draft = foreign.draft_of(net.model, name="ours", card={**CARD, "isolate": True}, windows=WINDOWS, scale=SCALE)
    assert draft.kind == "solo"
    assert draft.saved_model is not None
    with foreign.served(draft.saved_model) as serve:
        np.testing.assert_allclose(serve(WINDOWS), draft.golden.predictions, atol=1e-5)


def test_a_model_that_says_no_number_is_refused() -> None:
    model = gru()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(ModelError, match="not finite"):
        foreign.draft_of(model, name="gru", card=CARD, windows=WINDOWS, scale=SCALE)


def test_a_model_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match="does not take windows"):
        foreign.draft_of(gru(), name="gru", card=CARD, windows=WINDOWS[:, :, :2], scale=SCALE)
    with pytest.raises(ModelError, match="one column per target"):
        foreign.draft_of(gru(), name="gru", card=CARD, windows=WINDOWS, scale=SCALE[:1])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "no file"),
        ("def other(): pass", "has no function 'build'"),
        ("import nothing_like_this", "ModuleNotFoundError in the file"),
        ("def build(length, features, targets): return 3", "returned int; it must return a keras.Model"),
        ("def build(): pass", "raised TypeError"),
    ],
)
def test_what_is_wrong_with_a_network_file_is_told(tmp_path: Path, code: str | None, said: str) -> None:
    if code is not None:
        (tmp_path / "net.py").write_text(code)
    reference = f"{tmp_path / 'net.py'}:build"
    with pytest.raises(ModelError, match=said) as caught:
        foreign.built(reference, 6, 3, 2, LstmSpec())
    assert reference in str(caught.value)


def test_a_network_file_decides_its_own_optimiser_and_begins_from_the_seed(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import keras\n"
        "def build(length, features, targets):\n"
        "    x = keras.Input((length, features))\n"
        "    model = keras.Model(x, keras.layers.Dense(targets)(keras.layers.Flatten()(x)))\n"
        "    model.compile(optimizer=keras.optimizers.SGD(0.5), loss='mae')\n"
        "    return model\n"
    )
    reference = f"{tmp_path / 'net.py'}:build"
    one, two = (foreign.built(reference, 6, 3, 2, LstmSpec(seed=5)) for _ in range(2))
    assert isinstance(one.raw.optimizer, keras.optimizers.SGD)
    assert one.raw.loss == "mae"
    for a, b in zip(one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not network.is_ours(one.model)
    again = network.from_bytes(network.to_bytes(one.model))
    np.testing.assert_array_equal(again.predict(WINDOWS, verbose=0), one.model.predict(WINDOWS, verbose=0))
