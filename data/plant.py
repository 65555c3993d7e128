"""What a plant *is*, as values: tags and models after parsing.

`plant_file.py` turns plant.toml into these; everything else reads only these.
Durations are integer nanoseconds here (`*_ns`), text only in files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from penstock.errors import ModelNotFound, nearest

HOUR_NS = 3_600_000_000_000
MODEL_NAME = "letters, digits, '_', '-' and '.' only, not beginning with '.' or '-', and not \"engine\""
"""What a model may be called: its name is a folder of the store and a model on Triton, beside the engine."""
_USABLE = re.compile(r"(?!engine$)[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def usable_name(name: str) -> bool:
    """Whether a model may be called so, see MODEL_NAME."""
    return _USABLE.fullmatch(name) is not None


Join = Literal["last", "nearest", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A sensor, counter or state, or a quantity derived from them."""

    name: str
    unit: str = ""
    description: str = ""
    """What it measures, in words."""
    kind: Literal["value", "counter", "state"] = "value"
    dtype: Literal["float32", "float64"] = "float32"
    range: tuple[float, float] | None = None
    """Plausible values, inclusive; outside is flagged RANGE and bad."""
    rate: float | None = None
    """Largest believable change per second."""
    flat_after_ns: int | None = None
    """Bit-equal readings for this long are flagged FLAT and bad."""
    max_gap_ns: int = 0
    """How far the last good value may be carried forward; 0: not at all."""
    substitute: float | None = None
    """Stands in when the gap is longer; None: a window that needs it is withheld."""
    truth_delay_ns: int = 0
    """How long after its event time a reading of this tag is known."""
    ahead_ns: int = 0
    """How far before its event time a reading may be known: a schedule, a forecast; 0: not before."""
    join: Join = "last"
    """How readings come onto the ticks: the last one of the tick's period, the nearest, the line between two."""
    join_delay_ns: int = 0
    """For nearest and linear: how far from the tick a reading may be, and how much later ticks are answered."""
    heartbeat_ns: int | None = None
    """Reported on change, at the latest this often: its last value holds until then."""
    scale: float = 1.0
    offset: float = 0.0
    """Raw source readings become ``raw * scale + offset``."""
    expr: str | None = None
    """Derived: an expression over tag names; never stored, computed by batch and speed alike."""
    valid: str | None = None
    """Of a stored tag: an expression over others; where it does not hold, the value is flagged INVALID and bad."""
    aliases: tuple[str, ...] = ()
    """Former names; they keep the same id."""

    @property
    def needs(self) -> str | None:
        """The expression that its values rest on besides its own readings; None: nothing else."""
        return self.expr if self.expr is not None else self.valid


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareStep:
    """One step of an input's preparation: a name of `windows.STEPS` and its arguments."""

    name: Literal["difference", "lag", "mean", "min", "max", "std", "deadband", "log", "clip", "expr"]
    span_ns: int = 0
    """For lag, mean, min, max, std, deadband: how far back; a lag below 0 looks ahead."""
    low: float = 0.0
    high: float = 0.0
    """For clip. For deadband `low` is the band."""
    text: str = ""
    """For expr: an expression over ``x``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmSpec:
    """Shape and fitting of the network."""

    units: int = 32
    layers: int = 1
    change_from_last: bool | None = None
    """Predict the change from the newest known target; None: yes where past_target is given."""
    linear: bool = True
    """A linear path from the last row beside the LSTM."""
    ridge: float = 0.0
    """More than 0: the linear path begins at a ridge fit of the last row with this penalty."""
    epochs: int = 30
    patience: int = 4
    batch: int = 256
    learning_rate: float = 2e-3
    validation: float = 0.15
    """The newest share of the span, kept for early stopping."""
    seed: int = 1


JUDGE_SHARE = 0.15
"""Of the history that there is, what judges a retrained model where plant.toml does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSpec:
    """What of a model's drift has it trained again. A sensor's fault never has."""

    kinds: tuple[str, ...] = ("outside the trained range", "new regime", "slow ageing")
    """Of `drift.Kind`."""
    cron: str = "0 2 * * *"
    """When the schedule looks, in the plant's time zone."""
    over_ns: int = 30 * 24 * HOUR_NS
    """The newest so much is looked at."""
    pause_ns: int = 7 * 24 * HOUR_NS
    """Not again so soon after the last retrain of any reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSpec:
    """When and on what a model is trained again, and who decides what becomes of it."""

    cron: str | None = None
    """Five fields, in the plant's time zone; None: only when somebody asks."""
    span_ns: int | None = None
    """The newest so much of the history."""
    start_ns: int | None = None
    """Nothing before it, UTC. With `end_ns` a fixed span, without it an expanding one."""
    end_ns: int | None = None
    """Nothing from then on."""
    rows: int | None = None
    """At most so many good windows, the newest ones."""
    leave_out: tuple[tuple[int, int], ...] = ()
    """[begin, end) in ns UTC: windows that touch these spans are neither trained on nor judged."""
    judge_ns: int | None = None
    """The newest so much of the history judges, and is not trained on; None: JUDGE_SHARE of it."""
    warm: bool = False
    """Begin with the champion's weights and scaling, where its shape is the same."""
    promote: Literal["auto", "manual"] = "manual"
    live_ns: int | None = None
    """What passes the gate is scored beside the champion for so long, and judged again; None: it is not."""
    drift: DriftSpec | None = None
    """None: drift is told and has nothing trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """What is kept recomputed of a model's answers, and when it is brought up."""

    history_ns: int | None = None
    """The newest so much is what the live version says; older answers stay. None: all of the history."""
    cron: str | None = None
    """Five fields, in the plant's time zone; None: only when somebody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectSpec:
    """How what a model says is corrected by the truths known since."""

    by: Literal["bias", "ewm", "slope"]
    """The mean residual of the truths of the last `over`, one whose weights fade with it, or a line through them."""
    over_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSpec:
    """What is said beside a live prediction, from the truths that came for earlier ones."""

    correct: CorrectSpec | None = None
    interval: float | None = None
    """Share of truths that low and high are to enclose; None: no interval is said."""
    limits: tuple[float | None, ...] = ()
    """Per target: above it the target is not wanted; none: there is no limit."""

    @property
    def wanted(self) -> bool:
        """Whether anything is to be said."""
        return self.correct is not None or self.interval is not None or any(v is not None for v in self.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model as plant.toml describes it, templates expanded, globs resolved, defaults filled."""

    name: str
    targets: tuple[str, ...]
    inputs: tuple[str, ...]
    """Tag names in order, globs resolved; the target itself only by `past_target`."""
    prepare: Mapping[str, tuple[PrepareStep, ...]] = field(default_factory=dict)
    """Steps per input name; every input has a (possibly empty) entry."""
    past_target: bool = False
    step_ns: int
    """Row spacing of the window, a multiple of the plant's period."""
    window: int
    """T: rows per window."""
    every_ns: int
    """How often it answers, a multiple of the period."""
    horizon_ns: int = 0
    when: str | None = None
    """Expression over tags; false means not trained, not scored: reason NOT_RUNNING."""
    lstm: LstmSpec = LstmSpec()
    network: str | None = None
    """``file.py:function`` that returns a Keras model, instead of the LSTM."""
    isolate: bool = False
    retrain: RetrainSpec = RetrainSpec()
    view: ViewSpec = ViewSpec()
    live: LiveSpec = LiveSpec()


SourceKind = Literal["mqtt", "opcua", "kafka", "tcp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Where readings come from while the plant runs. Addresses and secrets are the site's, not the plant's."""

    name: str
    kind: SourceKind
    lateness_ns: int
    """How far behind its newest event time a reading may be and still be on time."""
    idle_ns: int
    """Silent for this long, it no longer holds the others."""
    skew_ns: int
    """Readings dated further ahead of their arrival are quarantined."""
    format: Literal["json", "arrow"] = "json"
    """Of messages."""
    topics: tuple[str, ...] = ()
    """MQTT: filters; Kafka: topics."""
    tag: str = ""
    """MQTT, Kafka: the tag of a message that names none, from its topic's levels: "{2}/{3}"; empty: the whole topic."""
    nodes: tuple[str, ...] = ()
    """OPC UA: nodes to read; of folders and objects all variables below."""
    interval_ns: int = 1_000_000_000
    """OPC UA: publishing and sampling interval."""
    columns: Mapping[str, str | None] = field(default_factory=dict)
    """Name that the source uses -> tag of the plant; None leaves it out. Names not listed are tags' own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateSpec:
    """Statistics that are kept of every period."""

    periods_ns: tuple[int, ...] = ()
    """Ascending, each a multiple of the one before, the first of the plant's period; none: nothing is kept."""
    tags: tuple[str, ...] = ()
    """Stored tags, in the order of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSpec:
    """Where predictions or aggregates go while a stream runs. Addresses and secrets are the site's, not the plant's."""

    name: str
    kind: Literal["mqtt"]
    topic: str
    """With ``{plant}``, ``{model}``, ``{target}`` in it; predictions of one tick that share a topic share a message.

    Of aggregates: ``{plant}``, ``{tag}``, ``{period}``, ``{function}``; those of one period share one.
    """
    models: tuple[str, ...] = ("*",)
    """Names and globs, with ``!`` before those that are not sent."""
    tag: str = "{model}.{target}"
    """What a prediction or aggregate is called in the message, of the same parts."""
    format: Literal["json", "arrow"] = "json"
    retain: bool = True
    """The broker keeps a topic's last message for who comes later."""
    catch_up: Literal["all", "newest"] = "all"
    """What is sent after an outage: all that was said meanwhile, or what is newest."""
    feedback: bool = False
    """Whether a source of the same plant may read these topics."""
    aggregates: tuple[str, ...] = ()
    """The tags whose aggregates are sent, and no predictions."""
    periods_ns: tuple[int, ...] = ()
    """Of aggregates, ascending."""
    functions: tuple[str, ...] = ()
    """Of aggregates: count, mean, min, max, std."""

    def sends(self, model: str) -> bool:
        """Whether what `model` says is sent."""
        within = any(fnmatchcase(model, p) for p in self.models if not p.startswith("!"))
        return within and not any(fnmatchcase(model, p[1:]) for p in self.models if p.startswith("!"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """Tags, models, sources and sinks of one plant."""

    name: str
    period_ns: int
    timezone: str = "UTC"
    clock: Literal["live", "replay"] = "live"
    tags: Mapping[str, Tag]
    """By name, in the order of the file."""
    models: Mapping[str, ModelSpec]
    sources: Mapping[str, SourceSpec] = field(default_factory=dict)
    """Live ones, by name."""
    aggregates: AggregateSpec = AggregateSpec()
    sinks: Mapping[str, SinkSpec] = field(default_factory=dict)
    """By name."""

    @property
    def wait(self) -> int:
        """Ticks that its longest join waits for."""
        return max((tag.join_delay_ns for tag in self.tags.values()), default=0) // self.period_ns

    def model(self, name: str) -> ModelSpec:
        """The model called `name`.

        Raises ModelNotFound, with the nearest known name.
        """
        try:
            return self.models[name]
        except KeyError:
            near = nearest(name, list(self.models))
            hint = f" Did you mean {near!r}?" if near else f" This plant has: {', '.join(self.models) or 'no models'}."
            raise ModelNotFound(f"{self.name}: no model {name!r}.{hint}") from None
