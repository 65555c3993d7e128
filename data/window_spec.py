"""Everything that decides a window's bits, as one value.

A `WindowSpec` is made from the plant once, at training, and from then on
stands alone: in the artifact's card and on Triton. Whoever has it can cut the
windows again, from stored readings and nothing else, so it carries the rules
of every tag it reads. It knows how much history is needed, not how a window is
cut (`prepare.py`, `windows.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from penstock.data import window_json
from penstock.data.derived import derived_tags, stored_tags
from penstock.data.expressions import names
from penstock.data.plant import ModelSpec, Plant, PrepareStep, Tag
from penstock.data.rules import Rules
from penstock.errors import Mistake, PlantError


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column of the window."""

    name: str
    """As people read it; ``NOX (past)`` for a past target."""
    tag: str
    """The tag it is made from, stored or derived."""
    unit: str
    """Unit of the tag."""
    steps: tuple[PrepareStep, ...] = ()
    """Its preparation, in order."""
    lag: int = 0
    """Ticks by which a past target stands back; 0 for inputs."""
    past_target: bool = False
    """Row i holds the newest target known at row i's time."""

    def look_back(self, period_ns: int, stride: int) -> int:
        """Ticks before a row that its value depends on, counted from where it is read."""
        return self.lag + sum(look_back(step, period_ns, stride) for step in self.steps)

    def ahead(self, period_ns: int) -> int:
        """Ticks behind a row at which its tag is read: what all lags below 0 come to."""
        return sum(-step.span_ns // period_ns for step in self.steps if step.span_ns < 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpec:
    """How one model's windows, answers and targets are cut. All counts are in ticks of `period_ns`."""

    period_ns: int
    """Length of a tick."""
    length: int
    """T: rows per window."""
    stride: int
    """Ticks between two rows."""
    every: int
    """It answers at ticks that are a multiple of this."""
    horizon: int
    """It predicts the target at t + horizon."""
    when: str | None
    """Expression over tags; where false the model does not run."""
    targets: tuple[str, ...]
    """What it predicts, in order; may be derived tags."""
    target_units: tuple[str, ...]
    """One per target."""
    lags: tuple[int, ...]
    """Per target: at tick t the newest target known is that of t - lag."""
    features: tuple[Feature, ...]
    """F columns: inputs in order, then past targets."""
    base_tags: tuple[Tag, ...]
    """Stored tags that a prediction needs: inputs, `when`, past targets; derived tags resolved."""
    base_ahead: tuple[int, ...]
    """One per base tag: its column holds in row r the tag at r + ahead. One tag may stand for several columns."""
    truth_tags: tuple[Tag, ...]
    """Stored tags that the targets need; they may also be among `base_tags`."""
    derived: tuple[Tag, ...]
    """Derived tags of both, each after what it needs."""

    @classmethod
    def of(cls, model: ModelSpec, plant: Plant) -> WindowSpec:
        """The windows of `model`. Raises PlantError: times that do not fit the period, unknown tags."""
        step, horizon = _ticks(model, plant, "step"), _ticks(model, plant, "horizon")
        features = tuple(_input(name, model, plant.tags) for name in model.inputs)
        stored_tags(model.targets, plant.tags)  # that they exist, before they are looked up
        lags = tuple(_lag(plant.tags[name], model, plant) for name in model.targets)
        if model.past_target:
            features += tuple(_past(plant.tags[t], lag) for t, lag in zip(model.targets, lags, strict=True))
        read = _read(model, plant, features)
        wanted = [f.tag for f in features] + list(names(model.when) if model.when else ())
        return cls(
            period_ns=plant.period_ns,
            length=model.window,
            stride=step,
            every=_ticks(model, plant, "every"),
            horizon=horizon,
            when=model.when,
            targets=model.targets,
            target_units=tuple(plant.tags[name].unit for name in model.targets),
            lags=lags,
            features=features,
            base_tags=tuple(tag for tag, _ in read),
            base_ahead=tuple(ahead for _, ahead in read),
            truth_tags=stored_tags(model.targets, plant.tags),
            derived=derived_tags([*wanted, *model.targets], plant.tags),
        )

    @property
    def base(self) -> tuple[str, ...]:
        """Names of the columns of `base_tags`: the tags', and where they are read ahead by how much."""
        return tuple(column_name(t, a) for t, a in zip(self.base_tags, self.base_ahead, strict=True))

    @property
    def truth(self) -> tuple[str, ...]:
        """Names of `truth_tags`."""
        return tuple(t.name for t in self.truth_tags)

    @property
    def stored(self) -> tuple[Tag, ...]:
        """`base_tags`, then the `truth_tags` that are not among them: what training reads."""
        now = [t for t, ahead in zip(self.base_tags, self.base_ahead, strict=True) if not ahead]
        return self.base_tags + tuple(t for t in self.truth_tags if t not in now)

    @property
    def stored_ahead(self) -> tuple[int, ...]:
        """One per tag of `stored`; truth is never read ahead."""
        return self.base_ahead + (0,) * (len(self.stored) - len(self.base_tags))

    @property
    def look_ahead(self) -> int:
        """Ticks behind a window's own tick that it reads."""
        return max(self.base_ahead, default=0)

    @property
    def look_back(self) -> int:
        """Ticks before a window's first row that its preparation reads."""
        return max((f.look_back(self.period_ns, self.stride) for f in self.features), default=0)

    @property
    def reach(self) -> int:
        """Ticks of cells needed before the first row of the first window, quality included."""
        return self.look_back + Rules.of(self.stored, self.period_ns).reach

    @property
    def wait(self) -> int:
        """Ticks that must close behind a tick before it is answered: joined tags need readings from there."""
        return Rules.of(self.base_tags, self.period_ns).wait

    @property
    def depth(self) -> int:
        """Rows of an assessed block that one window needs; the last is the window's own tick."""
        return (self.length - 1) * self.stride + 1 + self.look_back

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold; `from_json` gives an equal spec back."""
        return window_json.dump(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What `to_json` made. Raises ModelError when it is of another format or damaged."""
        return window_json.load(cls, Feature, found)


def look_back(step: PrepareStep, period_ns: int, stride: int) -> int:
    """Ticks before a row that one step of its preparation reads.

    A difference is taken over one row of the window. A mean over a span has as many
    rows as the span has ticks, the row itself among them.
    """
    match step.name:
        case "difference":
            return stride
        case "lag":
            return max(0, -(-step.span_ns // period_ns))  # a negative one is in where the tag is read
        case "mean" | "min" | "max" | "std" | "deadband":
            return max(0, -(-step.span_ns // period_ns) - 1)
        case _:
            return 0


def column_name(tag: Tag, ahead: int) -> str:
    """What a tag's column is called in a block of rows."""
    return f"{tag.name} (+{ahead} ticks)" if ahead else tag.name


def _read(model: ModelSpec, plant: Plant, features: tuple[Feature, ...]) -> list[tuple[Tag, int]]:
    """Stored tags and how far ahead they are read: those of a row's own time first. Raises PlantError."""
    wanted: dict[int, list[str]] = {0: []}
    for feature in features:
        ahead = feature.ahead(plant.period_ns)
        if any(step.span_ns < 0 and step.span_ns % plant.period_ns for step in feature.steps):
            raise _mistake(model, "prepare", "a lag below 0", f"multiples of the period of {plant.period_ns} ns")
        wanted.setdefault(ahead, []).append(feature.tag)
    wanted[0] += names(model.when) if model.when else ()
    read = [(tag, ahead) for ahead in sorted(wanted) for tag in stored_tags(wanted[ahead], plant.tags)]
    for tag, ahead in read:
        if ahead * plant.period_ns > tag.ahead_ns:
            found = f"{tag.name!r} read {ahead} ticks ahead"
            raise _mistake(model, "prepare", found, f"a lag that the tag's `ahead` of {tag.ahead_ns} ns covers")
    return read


def _input(name: str, model: ModelSpec, tags: Mapping[str, Tag]) -> Feature:
    if name in model.targets:
        raise _mistake(model, "inputs", f"the target {name!r}", "other tags; past_target = true gives its past")
    stored_tags([name], tags)
    return Feature(name=name, tag=name, unit=tags[name].unit, steps=tuple(model.prepare.get(name, ())))


def _past(tag: Tag, lag: int) -> Feature:
    return Feature(name=f"{tag.name} (past)", tag=tag.name, unit=tag.unit, lag=lag, past_target=True)


def _lag(target: Tag, model: ModelSpec, plant: Plant) -> int:
    """Neither before it is known, nor later than one step before the predicted time.

    A derived target is known when the last of what it is computed from is. A joined one comes from readings up to
    its `join_delay` later, which must not be newer either.
    """
    stored = (target, *stored_tags([target.name], plant.tags))
    delay, joined = max(t.truth_delay_ns for t in stored), max(t.join_delay_ns for t in stored)
    return -(-(max(delay, model.step_ns - model.horizon_ns) + joined) // plant.period_ns)


def _ticks(model: ModelSpec, plant: Plant, key: str) -> int:
    span = int(getattr(model, f"{key}_ns"))
    ticks, rest = divmod(span, plant.period_ns)
    if rest or ticks < (0 if key == "horizon" else 1):
        raise _mistake(model, key, f"{span} ns", f"a multiple of the plant's period of {plant.period_ns} ns")
    return ticks


def _mistake(model: ModelSpec, key: str, found: str, allowed: str) -> PlantError:
    return PlantError([Mistake(file="plant.toml", key=f"model.{model.name}.{key}", found=found, allowed=allowed)])
