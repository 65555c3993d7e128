"""Whether what was said live is what Keras says to the windows that batch cuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penstock.batch import network
from penstock.batch.history import Source, past
from penstock.data.views.speed_view import SpeedView
from penstock.data.windows import Reason, WindowSpec, window_hash
from penstock.site import Site


def check_predictions(folder: Path, view: SpeedView, first: int, last: int) -> int:
    """Every tick first..last-1 was said, from the same windows bit for bit, within 1e-5; how many predictions."""
    checked = 0
    with Site.open(folder) as site:
        source = Source(folder=site.readings.folder, snapshot=site.readings.head().snapshot)
        for name in ("nox", "tey", "nox_ahead"):
            artifact, spec = site.artifact(name), WindowSpec.of(site.plant.model(name), site.plant)
            ids = [int(i) for i in site.registry.ids([t.name for t in spec.stored])]
            batch = past(source, spec, ids, first, last + spec.horizon)
            said = view.read(name, first, last)
            assert said.ticks.tolist() == batch.ends.tolist()
            assert said.reasons.tolist() == batch.windows.reason.tolist()
            fine = batch.windows.reason == Reason.OK
            windows = batch.windows.take(fine)
            assert np.array_equal(said.hashes[fine], window_hash(windows))
            expected = network.from_bytes(artifact.keras).predict_on_batch(windows)
            scale = artifact.card["target_scale"]
            assert (np.abs(said.values[fine] - expected) <= 1e-5 * np.array(scale)).all()
            checked += int(fine.sum())
    return checked
