"""One training job on one worker: archive -> windows -> fit -> judged draft, returned by value."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.batch import fitting, foreign, network
from penstock.batch.baselines import fit_ridge, metrics
from penstock.batch.fitting import Fitted, Report
from penstock.batch.history import Past, past, touches
from penstock.batch.network import Network, Scaling, Shape
from penstock.batch.plan import Job, Warm
from penstock.batch.sample import (
    Dropped,
    Sample,
    demand,
    input_scaling,
    output_scaling,
    split,
    target_scale,
)
from penstock.data.drift import Trained
from penstock.data.libraries import library_versions
from penstock.data.models import Draft
from penstock.data.window_spec import WindowSpec
from penstock.data.windows import Reason
from penstock.errors import ModelError
from penstock.version import VERSION

Float32 = NDArray[np.float32]

GOLDEN_WINDOWS = 32


def train(job: Job, report: Report | None = None) -> Draft:
    """Run one job.

    Raises ModelError naming the model: too few windows, a fit that diverged, a network that fails.
    """
    return _draft(*fitted(job, report))


def fitted(job: Job, report: Report | None = None) -> tuple[Job, Network, Sample, Fitted]:
    """The job with the span that was read, its network with the weights of the best epoch, and what it was fitted on.

    The network is one per shape and process: the next job of that shape takes it. Raises what `train` raises.
    """
    job, history = read(job)
    sample = sampled(job, history)
    scaling = _scaling(job, sample)
    net = _network(job)
    network.set_scaling(net.model, scaling)
    job = replace(job, warm=warmed(net, job))
    if job.lstm.ridge > 0 and job.warm is None and network.is_ours(net.model):
        network.begin_linear(net.model, *linear_start(sample, scaling, job.lstm.ridge))
    return job, net, sample, fitting.fit(net, sample, job.lstm, report)


def read(job: Job) -> tuple[Job, Past]:
    """The job's windows, and the job with the span that they need.

    Where it wants the newest `rows` good windows, as much is read as holds them: twice as much until it does.
    """
    if job.rows is None:
        return job, past(job.history.source, job.spec, job.ids, job.first, job.last, job.shelf)
    ticks = 2 * job.rows * job.spec.every
    while True:
        first = max(job.first, job.last - ticks)
        history = past(job.history.source, job.spec, job.ids, first, job.last)
        at = np.flatnonzero(countable(job, history))
        if len(at) >= job.rows or first == job.first:
            oldest = int(history.ends[at[-job.rows :][0]]) if len(at) else first
            return replace(job, first=oldest), history
        ticks *= 2


def countable(job: Job, history: Past) -> NDArray[np.bool_]:
    """[a] which windows are good, have a good truth and touch no span that is left out."""
    good: NDArray[np.bool_] = (history.windows.reason == Reason.OK) & history.usable.all(axis=1)
    return good & ~touches(job.spec, history.ends, job.left_out)


def warmed(net: Network, job: Job) -> Warm | None:
    """Give the network what the job is to begin with; None, and nothing done, where that is of another shape."""
    warm = job.warm
    if warm is None or (warm.spec.features, warm.spec.targets) != (job.spec.features, job.spec.targets):
        return None
    weights = network.from_bytes(warm.keras).get_weights()
    if [w.shape for w in weights] != [w.shape for w in net.model.get_weights()]:
        return None
    net.model.set_weights(weights)
    return warm


def sampled(job: Job, history: Past) -> Sample:
    """Which windows are fitted on and which judge.

    Raises ModelError when too few are left, saying why.
    """
    spec = job.spec
    good = countable(job, history)
    if job.rows is not None:
        good[np.flatnonzero(good)[: -job.rows]] = False
    gap = spec.depth + max(spec.horizon, spec.look_ahead) + max(spec.lags)
    train_at, validate_at, tick = split(history.ends, good, job.lstm.validation, gap)
    demand(len(train_at), len(validate_at), _dropped(job, history), job.name)
    _, past_columns = relations(job)
    relative = np.zeros(len(spec.features), np.float32)
    relative[past_columns] = 1
    base = history.windows.x[:, -1, :][:, past_columns] if len(past_columns) else np.zeros_like(history.y)
    return Sample(
        ends=history.ends,
        x=history.windows.x,
        y=history.y,
        base=base,
        relative=relative,
        persistence=history.newest if _knows_truth(spec) else np.full_like(history.y, np.nan),
        train=train_at,
        validation=validate_at,
        split=tick,
    )


def relations(job: Job) -> tuple[Float32, list[int]]:
    """`last` [F, O], and the column of each target's past when the model says a change, else none."""
    spec, change = job.spec, job.lstm.change_from_last
    last = np.zeros((len(spec.features), len(spec.targets)), np.float32)
    past_of = {f.tag: i for i, f in enumerate(spec.features) if f.past_target}
    if not (_knows_truth(spec) if change is None else change):
        return last, []
    if not _knows_truth(spec):
        raise ModelError(
            f"model {job.name!r}: lstm.change_from_last needs past_target = true: "
            "without it nobody knows what the change is from"
        )
    columns = [past_of[target] for target in spec.targets]
    last[columns, np.arange(len(columns))] = 1
    return last, columns


def _knows_truth(spec: WindowSpec) -> bool:
    return any(f.past_target for f in spec.features)


def _dropped(job: Job, history: Past) -> Dropped:
    reasons = history.windows.reason
    counts = {r.name: int(np.count_nonzero(reasons == r)) for r in Reason if r != Reason.OK}
    bad_truth = (reasons == Reason.OK) & ~history.usable.all(axis=1)
    counts |= {
        "truth missing or bad": int(np.count_nonzero(bad_truth)),
        "left out": int(np.count_nonzero(touches(job.spec, history.ends, job.left_out))),
    }
    return Dropped(total=len(reasons), counts=counts)


def _scaling(job: Job, sample: Sample) -> Scaling:
    last, _ = relations(job)
    mean, inv = input_scaling(sample)
    scale, shift = output_scaling(sample)
    return Scaling(relative=sample.relative, mean=mean, inv=inv, scale=scale, shift=shift, last=last)


def linear_start(sample: Sample, scaling: Scaling, penalty: float) -> tuple[Float32, Float32]:
    """`kernel` [F, O] and `bias` [O] of the linear path: a ridge fit of the scaled change on the scaled last row."""
    z = sample.x[sample.train, -1, :].astype(np.float64)
    z = (z * (1 - scaling.relative) - scaling.mean) * scaling.inv
    wanted = (sample.change(sample.train).astype(np.float64) - scaling.shift) / scaling.scale
    centre, middle = z.mean(axis=0), wanted.mean(axis=0)
    z -= centre
    gram = z.T @ z / len(z) + penalty * np.eye(z.shape[1])
    kernel = np.linalg.solve(gram, z.T @ (wanted - middle) / len(z))
    return kernel.astype(np.float32), (middle - centre @ kernel).astype(np.float32)


def _network(job: Job) -> Network:
    spec, settings = job.spec, job.lstm
    features, outputs = len(spec.features), len(spec.targets)
    if job.network is not None:
        return foreign.built(job.network, spec.length, features, outputs, settings)
    shape = Shape(
        length=spec.length,
        features=features,
        units=settings.units,
        layers=settings.layers,
        outputs=outputs,
        linear=settings.linear,
    )
    net = fitting.compiled(shape)
    fitting.renew(net, settings)
    return net


def _draft(job: Job, net: Network, sample: Sample, fitted: Fitted) -> Draft:
    chosen = np.sort(np.concatenate([sample.train, sample.validation]))
    count = min(GOLDEN_WINDOWS, len(chosen))
    golden = np.random.default_rng(job.lstm.seed).choice(chosen, count, replace=False)
    scale = target_scale(sample)
    card = _card(job, sample, fitted, scale) | {"metrics": _judged(job, net, sample)}
    return foreign.draft_of(
        net.model, name=job.name, card=card, windows=np.ascontiguousarray(sample.x[golden]), scale=scale
    )


def _judged(job: Job, net: Network, sample: Sample) -> dict[str, dict[str, float | int]]:
    """Per target, on the validation part: the model, persistence and ridge on the same rows."""
    at = sample.validation
    said = fitting.predict(net.model, sample.x, at)
    ridge = fit_ridge(sample.batches(sample.train))
    linear = np.concatenate([ridge(x) for x, _ in sample.batches(at)]) + sample.base[at]
    truth, persistence = sample.y[at], sample.persistence[at]
    return {
        target: metrics(truth[:, o], said[:, o], {"persistence": persistence[:, o], "ridge": linear[:, o]})
        for o, target in enumerate(job.spec.targets)
    }


def _card(job: Job, sample: Sample, fitted: Fitted, scale: Float32) -> dict[str, Any]:
    grid, spec = job.history.grid, job.spec
    start, end = (str(np.datetime64(grid.time(tick), "ns")) + "Z" for tick in (job.first, job.last))
    return {
        "created": job.created,
        "run": job.run,
        "spec": spec.to_json(),
        "units": list(spec.target_units),
        "target_scale": [float(s) for s in scale],
        "trained": {
            "start": start,
            "end": end,
            "first": job.first,
            "last": job.last,
            "split": sample.split,
            "snapshot": job.history.source.snapshot,
            "n_train": len(sample.train),
            "n_validation": len(sample.validation),
            "seed": job.lstm.seed,
            "rows": job.rows,
            "left_out": [list(span) for span in job.left_out],
            "warm": None if job.warm is None else job.warm.version,
            "inputs": Trained.of([f.name for f in spec.features], sample.x[:, -1, :][sample.train]).to_json(),
        },
        "lstm": asdict(job.lstm) | {"network": job.network},
        "isolate": job.isolate,
        "fit": asdict(fitted),
        "code_version": VERSION,
        "libraries": library_versions(),
    }
