"""A scratch site for benchmarks: a simulated station at one tick a second, and models that were never trained.

All models are one small network with random weights: what a page, a deploy or a
stream costs does not depend on what the weights say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from penstock.data.durations import SECOND_NS
from penstock.data.models import Draft, Golden
from penstock.data.plants.simulated import simulated_plant
from penstock.data.simulator_station import SYSTEMS, Station
from penstock.data.windows import WindowSpec
from penstock.site import Site

MODELS_PER_UNIT = 2
MODELS = """
[defaults.model]
for_each = "unit"
step = "1s"
window = "24s"
every = "1s"
past_target = true
prepare = { "*" = ["difference"] }
lstm = { units = 16, layers = 1, change_from_last = true }

[model.power]
target = "{unit}.POWER"
inputs = ["{unit}.FUEL", "{unit}.IGV", "{unit}.AMBIENT_T", "{unit}.AMBIENT_P"]

[model.nox]
target = "{unit}.NOX"
inputs = ["{unit}.FLAME_T", "{unit}.WATER", "{unit}.SPLIT", "{unit}.HUMIDITY"]
"""


def make_site(folder: Path, models: int) -> Site:
    """The site, without readings and models yet. `models` is rounded up to whole units."""
    units = -(-models // MODELS_PER_UNIT)
    station = Station(units=units, tags=len(SYSTEMS), period_ns=SECOND_NS)
    text = simulated_plant(station).partition("[defaults.model]")[0] + MODELS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plant.toml"
    path.write_text(text)
    return Site.create(folder / "site", path)


def store_models(site: Site, client: Client) -> None:
    """Version 1 of every model of the plant: one network's weights under every name, recorded as live."""
    specs = {name: WindowSpec.of(model, site.plant) for name, model in site.plant.models.items()}
    first = next(iter(specs.values()))
    arrays, golden = client.submit(random_network, first.length, len(first.features), pure=False).result(timeout=180)
    head = {"start": "2023-12-01", "end": "2023-12-31", "snapshot": "none", "first": 0, "last": 1}
    for name, spec in specs.items():
        card = {"spec": spec.to_json(), "units": list(spec.target_units), "trained": head, "metrics": {}}
        site.models.save(Draft(name=name, kind="lstm", card=card, keras=b"", golden=Golden(**golden), serving=arrays))
        site.models.record(name, 1, "deploy", "bench")


def random_network(length: int, features: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(serving arrays, golden windows and what Keras says to them) of an LSTM of 16 units; runs on a worker."""
    from penstock.batch.network import Scaling, Shape, lstm, set_scaling, weights_of

    random = np.random.default_rng(0)
    model = lstm(Shape(length=length, features=features, units=16, layers=1, outputs=1, linear=True)).model
    model.set_weights([random.normal(0, 0.1, w.shape).astype(np.float32) for w in model.get_weights()])
    ones, last = np.ones(features, np.float32), np.zeros((features, 1), np.float32)
    past = features - 1  # the past target is the last column
    last[past] = 1
    relative = (np.arange(features) == past).astype(np.float32)
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    set_scaling(model, Scaling(relative=relative, mean=0 * ones, inv=ones, scale=one, shift=none, last=last))
    windows = random.normal(0, 1, (4, length, features)).astype(np.float32)
    said = np.asarray(model.predict_on_batch(windows), np.float32)
    return weights_of(model), {"windows": windows, "predictions": said, "scale": one}
