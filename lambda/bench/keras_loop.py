"""The peer of `bench train`: what a data scientist writes first, a loop that builds and fits one Keras model each time.

Same layers, first weights, windows, batch size, learning rate and epochs as ours, and TensorFlow with its own choice
of threads. It is given its windows ready made in memory and saves nothing: neither is counted.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penstock.batch.fleet import quiet_tensorflow
from penstock.batch.plan import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Looped:
    """What a loop over some jobs came to."""

    import_s: float
    """TensorFlow's import, once."""
    seconds: tuple[float, ...]
    """Build and fit, per model."""
    losses: tuple[float, ...]
    """Smallest validation loss, per model, in units of the change's variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The version that a model is held against, and on which windows."""

    keras: bytes = field(repr=False)
    first: int
    last: int
    """Windows end, and their truths lie, at ticks first..last-1."""


def loop(jobs: Sequence[Job], judged: Mapping[str, Before] | None = None) -> Looped:
    """Build and fit each; runs in a process of its own, so that nothing is warm but what the loop itself warms.

    `judged`: by model, what each is held against afterwards.
    """
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "0", "TF_NUM_INTEROP_THREADS": "0"}  # 0: TensorFlow's choice
    begun = time.perf_counter()
    quiet_tensorflow()
    import keras

    import_s = time.perf_counter() - begun
    seconds, losses = [], []
    for job in jobs:
        keras.utils.set_random_seed(job.lstm.seed)
        spent, loss, net = _fitted(job)
        seconds.append(spent + (0.0 if judged is None else _judged(job, net, judged[job.name])))
        losses.append(loss)
    return Looped(import_s=import_s, seconds=tuple(seconds), losses=tuple(losses))


def _judged(job: Job, net: Any, before: Before) -> float:
    """Seconds to load the one before, and to ask both for the newest windows, which are given ready made."""
    import keras

    from penstock.batch.history import past

    windows = past(job.history.source, job.spec, job.ids, before.first, before.last)
    x = np.ascontiguousarray(windows.windows.x)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "before.keras"
        path.write_bytes(before.keras)
        old = keras.saving.load_model(path, compile=False)
    for model in (net, old):
        np.nanmean((model.predict(x, batch_size=256, verbose=0) - windows.y) ** 2)
    return time.perf_counter() - begun


def _fitted(job: Job) -> tuple[float, float, Any]:
    """(seconds, validation loss) of one model, and the model."""
    import keras

    from penstock.batch import network
    from penstock.batch.history import past
    from penstock.batch.sample import input_scaling, output_scaling
    from penstock.batch.training import relations, sampled

    sample = sampled(job, past(job.history.source, job.spec, job.ids, job.first, job.last))
    mean, inv = input_scaling(sample)
    scale, shift = output_scaling(sample)
    parts = [(sample.x[at], (sample.change(at) - shift) / scale) for at in (sample.train, sample.validation)]
    shape = network.Shape(
        length=job.spec.length, features=len(job.spec.features), units=job.lstm.units, layers=1, outputs=1, linear=True
    )
    begun = time.perf_counter()
    net = network.lstm(shape)
    network.reset(net, job.lstm.seed)
    last, _ = relations(job)
    network.set_scaling(
        net.model,
        network.Scaling(relative=sample.relative, mean=mean, inv=inv, scale=scale, shift=shift, last=last),
    )
    net.raw.compile(optimizer=keras.optimizers.Adam(job.lstm.learning_rate, clipnorm=1.0), loss="mse")
    told = net.raw.fit(
        *parts[0], validation_data=parts[1], batch_size=job.lstm.batch, epochs=job.lstm.epochs, verbose=0
    )
    return time.perf_counter() - begun, float(min(told.history["val_loss"])), net.model
