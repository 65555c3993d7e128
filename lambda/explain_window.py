"""One window for people: its columns, its rows with their times, and what became of the readings behind each value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from penstock.data.block import Block, Flag
from penstock.data.durations import duration_text
from penstock.data.plant import PrepareStep
from penstock.data.prepare import inputs
from penstock.data.window_spec import Feature, WindowSpec, look_back
from penstock.data.windows import Windows

Told = dict[str, Any]


def window_told(spec: WindowSpec, block: Block, cut: Windows, time: Callable[[int], str]) -> Told:
    """`columns` and `rows` of the only window in `cut`; `block`: the rows that it was cut from."""
    x, flags = cut.take(np.array([0]))[0], inputs(spec, block).flags
    made = int(cut.ends[0])
    ticks = [made - (spec.length - 1 - i) * spec.stride for i in range(spec.length)]
    rows = [
        {
            "time": time(tick),
            "values": [float(value) for value in x[i]],
            "flags": [_flags(spec, f, flags[:, j], tick - block.first) for j, f in enumerate(spec.features)],
        }
        for i, tick in enumerate(ticks)
    ]
    return {"columns": [_column(spec, feature) for feature in spec.features], "rows": rows}


def _column(spec: WindowSpec, feature: Feature) -> Told:
    expr = next((tag.expr for tag in spec.derived if tag.name == feature.tag), None)
    return {
        "name": feature.name, "tag": feature.tag, "unit": feature.unit, "derived": expr,
        "past_target": feature.past_target, "lag_ticks": feature.lag, "steps": [_step(step) for step in feature.steps],
    }  # fmt: skip


def _step(step: PrepareStep) -> str:
    """As plant.toml writes it."""
    match step.name:
        case "lag":
            return f"lag {'-' if step.span_ns < 0 else ''}{duration_text(abs(step.span_ns))}"
        case "mean" | "min" | "max" | "std":
            return f"{step.name} {duration_text(step.span_ns)}"
        case "deadband":
            return f"deadband {step.low:g} {duration_text(step.span_ns)}"
        case "clip":
            return f"clip {step.low:g} {step.high:g}"
        case "expr":
            return f"expr {step.text}"
        case _:
            return step.name


def _flags(spec: WindowSpec, feature: Feature, column: np.ndarray[Any, np.dtype[np.uint16]], row: int) -> list[str]:
    """Of all the readings that the value in this row rests on."""
    delays = feature.lag + sum(look_back(s, spec.period_ns, spec.stride) for s in feature.steps if s.name == "lag")
    begin, end = row - feature.look_back(spec.period_ns, spec.stride), row - delays + 1
    found = int(np.bitwise_or.reduce(column[max(0, begin) : max(0, end)], initial=0))
    return [flag.name or "" for flag in Flag if found & flag]
