"""Preparation steps as plant.toml writes them: "difference", "lag 2h", "mean 10min", "clip 0 100"."""

from __future__ import annotations

from penstock.data.durations import parse_duration
from penstock.data.expressions import names as names_in
from penstock.data.plant import PrepareStep
from penstock.errors import ExpressionError

STEPS = ("difference", "lag", "mean", "min", "max", "std", "deadband", "log", "clip", "expr")
ALLOWED = (
    '"difference", "lag 2h" (or "lag -2h"), "mean 10min" (or min, max, std), "deadband 0.5 10min", "log", "clip 0 100" '
    'or "expr x * 2"'
)


def parse_step(text: str) -> PrepareStep:
    """One step from its text.

    Raises ValueError that says what is allowed.
    """
    name, *words = text.split()
    try:
        match name, words:
            case (("difference" | "log"), []):
                return PrepareStep(name=name)
            case "lag", [first, *rest] if first.startswith("-"):
                if span_ns := parse_duration(" ".join([first[1:], *rest])):
                    return PrepareStep(name="lag", span_ns=-span_ns)
            case (("lag" | "mean" | "min" | "max" | "std"), [_, *_]):
                span_ns = parse_duration(" ".join(words))
                if span_ns:
                    return PrepareStep(name=name, span_ns=span_ns)
            case "deadband", [band, _, *_] if 0 < float(band) < float("inf"):
                span_ns = parse_duration(" ".join(words[1:]))
                if span_ns:
                    return PrepareStep(name="deadband", span_ns=span_ns, low=float(band))
            case "clip", [low, high] if float(low) < float(high):
                return PrepareStep(name="clip", low=float(low), high=float(high))
            case "expr", [_, *_]:
                body = " ".join(words)
                if set(names_in(body)) <= {"x"}:
                    return PrepareStep(name="expr", text=body)
    except (ValueError, ExpressionError) as error:
        raise ValueError(f"{ALLOWED} ({error})") from None
    raise ValueError(ALLOWED)
