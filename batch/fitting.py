"""Fitting a network on a sample: epochs, early stopping, the best weights kept.

Same sample, settings and seed give the same weights, whether the network was
built just now or has fitted another model before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from penstock.batch import network
from penstock.batch.network import Network, Shape
from penstock.batch.passes import passes_of
from penstock.batch.sample import Sample
from penstock.data.plant import LstmSpec
from penstock.errors import ModelError

Float32 = NDArray[np.float32]
Order = NDArray[np.intp]
Report = Callable[[int, float], None]
"""Called after each epoch with its number (from 1) and the validation loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How a fit went."""

    epochs: int
    """Epochs run."""
    best_epoch: int
    """0: what a ridge began with was never surpassed."""
    loss: float
    """Mean squared error of the validation part at the best epoch, in units of the change's variance."""


@lru_cache(maxsize=8)
def compiled(shape: Shape) -> Network:
    """The network of that shape, built once per process, as it is traced once: that costs seconds."""
    built = network.lstm(shape)
    built.raw.compile(optimizer=keras.optimizers.Adam(clipnorm=1.0), loss="mse", jit_compile=True)
    built.raw.optimizer.build(built.raw.trainable_variables)  # variables made inside the trace cost a second one
    return built


def renew(net: Network, settings: LstmSpec) -> None:
    """Begin again from the seed: fresh weights, an optimiser that remembers nothing."""
    network.reset(net, settings.seed)
    for variable in net.raw.optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    net.raw.optimizer.learning_rate = settings.learning_rate


def fit(net: Network, sample: Sample, settings: LstmSpec, report: Report | None = None) -> Fitted:
    """Fit `net.raw` in place; its scaling must be set. Ends with the weights of the best epoch.

    Raises ModelError when the loss is not a number.
    """
    scale, shift, _ = net.model.get_layer("out").get_weights()
    train = ((sample.change(sample.train) - shift) / scale).astype(np.float32)
    held_out = ((sample.change(sample.validation) - shift) / scale).astype(np.float32)
    size = min(settings.batch, len(sample.train))
    order = np.random.default_rng(settings.seed)
    pass_over, judge = _ways(net, sample, train, size)
    best, best_epoch, kept, epoch = np.inf, 0, net.raw.get_weights(), 0
    if settings.ridge > 0:  # what it begins with is an answer already, and perhaps the best one
        best = float(np.mean((judge() - held_out) ** 2))
    for epoch in range(1, settings.epochs + 1):
        pass_over(order.permutation(len(sample.train)))
        loss = float(np.mean((judge() - held_out) ** 2))
        if not np.isfinite(loss):
            raise ModelError(
                f"the fit diverged in epoch {epoch}; lower lstm.learning_rate ({settings.learning_rate:g})"
            )
        if report is not None:
            report(epoch, loss)
        if loss < best:
            best, best_epoch, kept = loss, epoch, net.raw.get_weights()
        elif epoch - best_epoch >= settings.patience:
            break
    net.raw.set_weights(kept)
    return Fitted(epochs=epoch, best_epoch=best_epoch, loss=best)


def _ways(
    net: Network, sample: Sample, wanted: Float32, size: int
) -> tuple[Callable[[Order], None], Callable[[], Float32]]:
    """How to pass over the training part in an order, and how to say the validation part.

    The few windows of the last short batch wait for another pass's order. A network of the user's may have a
    training step of its own: Keras runs it.
    """
    if network.is_ours(net.model):
        ours = passes_of(net.raw, size)
        return (
            lambda order: ours.fit(sample.x, wanted, sample.train, order),
            lambda: ours.said(sample.x, sample.validation),
        )

    def pass_over(order: Order) -> None:
        for start in range(0, len(order) - size + 1, size):
            part = order[start : start + size]
            net.raw.train_on_batch(sample.x[sample.train[part]], wanted[part])

    return pass_over, lambda: predict(net.raw, sample.x, sample.validation, size)


def predict(model: Any, x: NDArray[np.float32], at: NDArray[np.intp], size: int = 256) -> NDArray[np.float32]:
    """[len(at), O] predictions for the windows at positions `at`.

    Every batch has `size` rows, the last one padded, so that one compiled shape serves all.
    """
    parts = []
    for start in range(0, len(at), size):
        part = np.resize(at[start : start + size], size)
        parts.append(np.asarray(model.predict_on_batch(x[part])))
    if not parts:
        return np.zeros((0, model.output_shape[-1]), np.float32)
    result: NDArray[np.float32] = np.concatenate(parts)[: len(at)].astype(np.float32, copy=False)
    return result
