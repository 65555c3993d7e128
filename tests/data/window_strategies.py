"""Plants, models and readings for property tests of windows, in this and other layers.

`import window_strategies` works in every test (pytest's `pythonpath`). Durations are small
multiples of one period, so that every rule bites within a few dozen ticks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from penstock.data.frame import BAD, GOOD, UNCERTAIN
from penstock.data.grid import LATE, PRESENT, Cells
from penstock.data.plant import ModelSpec, Plant, PrepareStep, Tag

PERIOD_NS = 60_000_000_000
LEVELS = np.array([0.0, 0.1, 1.0, 1.5, 2.0, 3.0, 7.25, 40.0, -3.0, 1e9])
"""Few values, so that readings repeat; some lie outside of every range, some jump."""


@st.composite
def tags(draw: st.DrawFn, name: str, dtype: str | None = None) -> Tag:
    """A stored tag with any mixture of rules."""
    ticks = st.integers(0, 4)
    kind = draw(st.sampled_from(["value", "value", "value", "state", "counter"]))
    heartbeat = draw(st.sampled_from([None, None, 2 * PERIOD_NS, 5 * PERIOD_NS // 2]))
    plain = kind == "value" and heartbeat is None
    join = draw(st.sampled_from(["last", "last", "nearest", "linear"])) if plain else "last"
    return Tag(
        name=name,
        unit="kW",
        kind=kind,
        dtype=dtype or draw(st.sampled_from(["float32", "float64"])),
        range=draw(st.sampled_from([None, (-1.0, 10.0), (0.1, 40.0)])),
        rate=draw(st.sampled_from([None, 1.0 / 60, 5.0 / 60])),
        flat_after_ns=draw(st.sampled_from([None, PERIOD_NS, 3 * PERIOD_NS // 2, 4 * PERIOD_NS])),
        max_gap_ns=draw(ticks) * PERIOD_NS + draw(st.sampled_from([0, PERIOD_NS // 2])),
        substitute=draw(st.sampled_from([None, None, 0.1])),
        truth_delay_ns=draw(st.sampled_from([0, 0, PERIOD_NS, 5 * PERIOD_NS // 2])),
        heartbeat_ns=heartbeat,
        join=join,
        join_delay_ns=0 if join == "last" else draw(st.integers(1, 3)) * PERIOD_NS,
    )


def steps() -> st.SearchStrategy[PrepareStep]:
    """One step of a preparation."""
    span = st.integers(1, 8).map(lambda halves: halves * PERIOD_NS // 2)
    return st.one_of(
        st.just(PrepareStep(name="difference")),
        st.just(PrepareStep(name="log")),
        st.just(PrepareStep(name="clip", low=0.5, high=5.0)),
        st.sampled_from(["x ** 2 / 3", "where(x > 1, exp(-x), sqrt(x))", "1 / x"]).map(
            lambda text: PrepareStep(name="expr", text=text)
        ),
        st.builds(PrepareStep, name=st.sampled_from(["lag", "mean", "min", "max", "std"]), span_ns=span),
        st.builds(PrepareStep, name=st.just("deadband"), span_ns=span, low=st.sampled_from([0.5, 2.0])),
    )


@st.composite
def models(draw: st.DrawFn, name: str, inputs: list[str], target: str) -> ModelSpec:
    """A model over some of `inputs`, each with a preparation of its own."""
    chosen = draw(st.lists(st.sampled_from(inputs), min_size=1, max_size=len(inputs), unique=True))
    return ModelSpec(
        name=name,
        targets=(target,),
        inputs=tuple(chosen),
        prepare={i: tuple(draw(st.lists(steps(), max_size=2))) for i in chosen},
        past_target=draw(st.booleans()),
        step_ns=draw(st.integers(1, 3)) * PERIOD_NS,
        window=draw(st.integers(1, 5)),
        every_ns=draw(st.integers(1, 3)) * PERIOD_NS,
        horizon_ns=draw(st.integers(0, 3)) * PERIOD_NS,
        when=draw(st.sampled_from([None, "A > 0.5", "A < 2 or B == 1"])),
    )


@st.composite
def plants(draw: st.DrawFn) -> Plant:
    """Stored tags A, B (perhaps valid at times only), C, a derived tag D of A and B, and two models on them.

    They differ in step and prepare.
    """
    stored = {name: draw(tags(name)) for name in "ABC"}
    stored["B"] = replace(stored["B"], valid=draw(st.sampled_from([None, None, "A > 0.5", "C < A"])))
    derived = Tag(name="D", unit="kW", expr="A / B", range=(-5.0, 5.0))
    both = [draw(models(name, ["A", "B", "D"], "C")) for name in ("first", "second")]
    return Plant(name="small", period_ns=PERIOD_NS, tags=stored | {"D": derived}, models={m.name: m for m in both})


@st.composite
def cells(draw: st.DrawFn, k: int, dtypes: list[str], first: int | None = None) -> Cells:
    """k ticks of readings per dtype, with missing, bad, uncertain, NaN, flat and spiky ones, as float64 cells.

    A column of a float32 tag holds values that float32 holds, as the archive does.
    """
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    first = draw(st.integers(-50, 50)) if first is None else first
    m = len(dtypes)
    values = LEVELS[random.integers(0, draw(st.integers(2, len(LEVELS))), (k, m))]
    stay = random.random((k, m)) < draw(st.sampled_from([0.0, 0.5, 0.9]))
    for i in range(1, k):
        values[i] = np.where(stay[i], values[i - 1], values[i])
    values += np.where(random.random((k, m)) < draw(st.sampled_from([0.0, 0.7])), random.normal(size=(k, m)), 0)
    values[random.random((k, m)) < 0.03] = np.nan
    present = random.random((k, m)) >= draw(st.sampled_from([0.0, 0.1, 0.6]))
    status = random.choice([GOOD, UNCERTAIN, BAD], (k, m), p=[0.9, 0.05, 0.05])
    quality = np.where(present, status | PRESENT | np.where(random.random((k, m)) < 0.1, LATE, 0), 0)
    narrow = np.array([d == "float32" for d in dtypes])
    values = np.where(narrow, values.astype(np.float32).astype(np.float64), values)
    return Cells(
        first=first,
        values=np.where(present, values, np.nan),
        quality=quality.astype(np.uint16),
        offset=np.where(present & (random.random((k, m)) < 0.8), random.integers(0, 2**32, (k, m)), 0).astype(
            np.uint32
        ),
    )
