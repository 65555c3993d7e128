"""Models written in plant.toml: one layered table (defaults, model, override) per model.

Everything that can be resolved from the file alone is resolved here: globs,
multiples of the period, expressions, preparation steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.data.durations import DURATION, duration_text
from penstock.data.expressions import names as names_in
from penstock.data.plant import LstmSpec, ModelSpec, PrepareStep, Tag
from penstock.data.plants.live_table import LIVE_KEYS, read_live
from penstock.data.plants.prepare_text import STEPS, parse_step
from penstock.data.plants.retrain_table import read_retrain
from penstock.data.plants.tables import Table, dotted, near_name
from penstock.data.plants.templates import Names, is_glob, matching
from penstock.data.plants.view_table import read_view
from penstock.errors import ExpressionError

MODEL_KEYS = (
    "target",
    "inputs",
    "prepare",
    "past_target",
    "step",
    "window",
    "every",
    "horizon",
    "when",
    "lstm",
    "network",
    "isolate",
    "retrain",
    "view",
    "for_each",
    *LIVE_KEYS,
)
LSTM_KEYS = tuple(LstmSpec.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a model may refer to."""

    folder: Path
    """Where plant.toml stands; `network` files are relative to it."""
    period_ns: int
    """0 where the file's period is wrong: then no multiple is checked."""
    tags: Mapping[str, Tag]
    names: Names
    needs: Mapping[str, frozenset[str]]
    """Per derived tag: every tag its value is computed from, at any depth."""
    timezone: str = "UTC"
    """Of times without an offset."""

    def feeds(self, tag: str, targets: tuple[str, ...]) -> bool:
        """Whether `tag` is a target or is computed from one."""
        return tag in targets or any(t in self.needs.get(tag, ()) for t in targets)


def read_model(name: str, table: Table, scope: Scope) -> ModelSpec:
    """One model from its layers; mistakes are noted and their keys left at the default."""
    table.close(MODEL_KEYS)
    period = scope.period_ns
    step = _multiple(table, "step", period, period, "the plant's period")
    window = _multiple(table, "window", step, step, "step", required=True)
    targets = _targets(table, scope)
    past_target = table.flag("past_target")
    inputs = _inputs(table, scope, targets, past_target)
    return ModelSpec(
        name=name,
        targets=targets,
        inputs=inputs,
        prepare=_prepare(table, scope, inputs, targets if past_target else ()),
        past_target=past_target,
        step_ns=step,
        window=window // step if step else 0,
        every_ns=_multiple(table, "every", step, period, "the plant's period"),
        horizon_ns=_multiple(table, "horizon", 0, period, "the plant's period", zero=True),
        when=_when(table, scope),
        lstm=_lstm(table.sub("lstm")),
        network=_network(table, scope),
        isolate=table.flag("isolate"),
        retrain=read_retrain(table.sub("retrain"), scope.timezone),
        view=read_view(table.sub("view")),
        live=read_live(table, len(targets)),
    )


def _multiple(
    table: Table, key: str, default: int, of_ns: int, what: str, *, required: bool = False, zero: bool = False
) -> int:
    """A duration that is a multiple of `of_ns` (0: unknown, not checked)."""
    if required and key not in table:
        table.wrong(key, f"{DURATION}, a multiple of {what}")
    span = table.duration(key)
    if span is None:
        return default
    if span == 0 and not zero:
        table.wrong(key, f"{DURATION}, longer than 0")
        return default
    if of_ns and span % of_ns:
        table.wrong(key, f"a multiple of {what} ({duration_text(of_ns)})")
        return default
    return span


def _known(table: Table, key: str, names: tuple[str, ...], scope: Scope) -> tuple[str, ...]:
    """Those of `names` that are tags; the others are noted."""
    for name in names:
        if name not in scope.names:
            now = next((tag.name for tag in scope.tags.values() if name in tag.aliases), None)
            near = now or near_name(name, scope.names.sorted)
            table.mistakes.add(table.place(key), f'unknown tag "{name}"', "a tag of [tags]", near)
    return tuple(name for name in names if name in scope.names)


def _targets(table: Table, scope: Scope) -> tuple[str, ...]:
    listed = table.texts("target", required=True)
    if len(set(listed)) < len(listed):
        table.wrong("target", "each target once")
    return _known(table, "target", tuple(dict.fromkeys(listed)), scope)


def _inputs(table: Table, scope: Scope, targets: tuple[str, ...], past_target: bool) -> tuple[str, ...]:
    """Names and globs in order, then what "!" takes away; a glob never brings what a target feeds."""
    chosen: dict[str, None] = {}
    patterns = table.texts("inputs", required=not past_target)
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        many = is_glob(bare, scope.names)
        if not many:
            found = list(_known(table, "inputs", (bare,), scope))
        elif not (found := scope.names.matching(bare)):
            near = near_name(bare.strip("*"), scope.names.sorted)
            table.mistakes.add(table.place("inputs"), f'"{pattern}", which matches no tag', "a glob over tags", near)
        if bare != pattern:
            for name in found:
                chosen.pop(name, None)
        elif many:
            chosen.update(dict.fromkeys(n for n in found if not scope.feeds(n, targets)))
        else:
            _refuse_leaks(table, scope, found, targets)
            chosen.update(dict.fromkeys(found))
    inputs = tuple(name for name in chosen if name not in targets)
    if patterns and not inputs and not past_target and not table.mistakes.found:
        table.wrong("inputs", "at least one tag besides the target")
    return inputs


def _refuse_leaks(table: Table, scope: Scope, found: list[str], targets: tuple[str, ...]) -> None:
    for name in found:
        if name in targets:
            table.mistakes.add(
                table.place("inputs"),
                f'the target "{name}"',
                "tags other than the target; past_target = true gives it as old as it is known",
            )
        elif scope.feeds(name, targets):
            table.mistakes.add(
                table.place("inputs"),
                f'"{name}", which is derived from the target',
                "tags that do not hold it",
            )


def _when(table: Table, scope: Scope) -> str | None:
    text = table.text("when")
    if not text:
        return None
    try:
        read = names_in(text)
    except ExpressionError as error:
        table.wrong("when", f'an expression over tags, such as "TEY > 75" ({error})')
        return None
    _known(table, "when", read, scope)
    return text


def _prepare(
    table: Table, scope: Scope, inputs: tuple[str, ...], past: tuple[str, ...]
) -> dict[str, tuple[PrepareStep, ...]]:
    """Steps per input. An exact name beats a glob, a later glob an earlier one; past targets only by name."""
    steps = table.sub("prepare")
    globs: dict[str, tuple[PrepareStep, ...]] = {}
    exact: dict[str, tuple[PrepareStep, ...]] = {}
    for pattern in steps.names():
        parsed = _steps(steps, pattern, scope.period_ns)
        if is_glob(pattern, scope.names):
            globs.update(dict.fromkeys(matching(pattern, inputs), parsed))
        elif pattern in inputs or pattern in past:
            exact[pattern] = parsed
        elif not table.mistakes.found:
            near = near_name(pattern, sorted((*inputs, *past)))
            steps.mistakes.add(steps.place(pattern), f'"{pattern}"', "an input of this model, or a glob", near)
    found = {name: exact.get(name, globs.get(name, ())) for name in inputs} | {
        name: exact[name] for name in past if name in exact
    }
    for name, listed in found.items():
        _check_ahead(table, name, listed, scope)
    return found


def _check_ahead(table: Table, name: str, steps: tuple[PrepareStep, ...], scope: Scope) -> None:
    """A lag below 0 needs that all that the input comes from may be known so far ahead."""
    ahead_ns = sum(-step.span_ns for step in steps if step.span_ns < 0)
    for part in sorted({name, *scope.needs.get(name, ())} if ahead_ns else ()):
        tag = scope.tags.get(part)
        if tag is not None and tag.expr is None and tag.ahead_ns < ahead_ns:
            place = dotted(table.place("prepare"), name)
            allowed = (
                f'ahead = "{duration_text(ahead_ns)}" or more at tag "{part}"; it has "{duration_text(tag.ahead_ns)}"'
            )
            table.mistakes.add(place, f"a lag of -{duration_text(ahead_ns)}", allowed)


def _steps(table: Table, pattern: str, period_ns: int) -> tuple[PrepareStep, ...]:
    parsed = []
    for text in table.texts(pattern):
        try:
            step = parse_step(text)
        except ValueError as error:
            near = near_name(text.split(" ")[0], STEPS)
            table.mistakes.add(table.place(pattern), f'"{text}"', str(error), near)
            continue
        if period_ns and step.span_ns % period_ns:
            allowed = f"a span that is a multiple of the plant's period ({duration_text(period_ns)})"
            table.mistakes.add(table.place(pattern), f'"{text}"', allowed)
        parsed.append(step)
    return tuple(parsed)


def _lstm(table: Table) -> LstmSpec:
    table.close(LSTM_KEYS)
    base = LstmSpec()

    def share(key: str, default: float, allowed: str, fits: Callable[[float], bool]) -> float:
        value = table.number(key)
        if value is not None and not fits(value):
            table.wrong(key, allowed)
            return default
        return default if value is None else value

    return LstmSpec(
        units=table.whole("units", base.units),
        layers=table.whole("layers", base.layers),
        change_from_last=table.flag("change_from_last") if "change_from_last" in table else None,
        linear=table.flag("linear", base.linear),
        ridge=share("ridge", base.ridge, "a number, 0 or more", lambda v: v >= 0),
        epochs=table.whole("epochs", base.epochs),
        patience=table.whole("patience", base.patience, 0),
        batch=table.whole("batch", base.batch),
        learning_rate=share("learning_rate", base.learning_rate, "a number above 0", lambda v: v > 0),
        validation=share("validation", base.validation, "a number between 0 and 1", lambda v: 0 < v < 1),
        seed=table.whole("seed", base.seed, 0),
    )


def _network(table: Table, scope: Scope) -> str | None:
    text = table.text("network")
    if not text:
        return None
    file, _, function = text.partition(":")
    if not file.endswith(".py") or not function.isidentifier():
        table.wrong("network", 'text such as "networks/nox.py:build"')
    elif not (scope.folder / file).is_file():
        table.wrong("network", f"a file beside plant.toml: {file} is missing")
    return text
