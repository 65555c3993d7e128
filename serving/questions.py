"""What a page asks of a site, and the answers as values.

The pages know no site: `penstock.page` hands these functions in. Each of them
reads files only and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One line to look at: a target of a model."""

    label: str
    """What the menu shows: the model's name, and the target's where there are several."""
    model: str
    column: int
    """Which of the model's targets."""
    target: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What does not change while a page is open."""

    plant: str
    zone: str
    """Time zone of everything on screen."""
    replay: bool
    """The plant's clock is a recording's."""
    simulated: bool
    """No plant is behind it: that is said on every page."""
    period_s: float
    beside: bool = False
    """Corrections or intervals are said of some model."""
    choices: tuple[Choice, ...]
    tags: tuple[tuple[str, str], ...]
    """(name, unit) of each stored tag."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """The newest rows of one model; n rising times, O targets."""

    times: NDArray[np.int64]
    """[n] ns UTC predicted for."""
    truth: NDArray[np.float32]
    """[n, O] NaN where there is none or it is bad."""
    faulty: NDArray[np.bool_]
    """[n, O] a reading of the truth came, and it is bad or filled."""
    prediction: NDArray[np.float32]
    """[n, O] NaN where withheld."""
    corrected: NDArray[np.float32]
    """[n, O] as it was said with its correction; NaN where there was none."""
    low: NDArray[np.float32]
    """[n, O] ends of the interval that was said; NaN where there was none."""
    high: NDArray[np.float32]
    """[n, O]"""
    persistence: NDArray[np.float32]
    """[n, O] the newest truth that was known when the prediction was made."""
    filled: NDArray[np.bool_]
    """[n] the window held a carried or substituted input."""
    versions: NDArray[np.int64]
    """[n] version that answered, 0: none."""
    reasons: NDArray[np.str_]
    """[n] name of a `windows.Reason`; OK where a prediction stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the stream stands. Times are ns UTC of the wall clock, ticks the plant's."""

    running: bool
    heard_ns: int | None
    """When the stream last told of itself; None: it never ran."""
    tick: int | None
    """The newest tick said."""
    tick_ns: int | None
    """Its time in the plant's data."""
    closed: int | None
    """Ticks below were closed when the stream last told of itself."""
    readings: int
    late: int
    refused: int
    """Rejected and quarantined. All three: of this run of the stream."""
    rate: float | None
    """Event seconds per wall second, as a running stream tells it; None: not known."""
    ended: bool
    """The stream has ended with its source: nothing more is to come."""
    trouble: str | None
    """Why nothing is said, in the stream's own words."""
    replay: bool = False
    """The stream reads recorded files, whatever the plant says of its clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the sheet: a target of a model at the newest tick."""

    choice: Choice
    version: int
    """The version that answered, 0: none."""
    deployed: int | None
    """The version that should answer, None: the model is not live."""
    trained: str
    """Last day of the training span; empty where the model has no card."""
    prediction: float
    """NaN where withheld."""
    reason: str
    filled: bool
    challenger: int | None = None
    """The version that is scored beside it, None: none is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """A tag's readings over a span, coarsened to k buckets where there are more ticks than buckets."""

    times: NDArray[np.int64]
    """[2k] ns UTC: each bucket's smallest and largest value, in the order in which they came."""
    values: NDArray[np.float32]
    """[2k] NaN: no usable reading in the bucket."""
    faults: NDArray[np.int64]
    """[f] ns UTC: begins of the buckets that hold a bad reading."""
    ticks_per_bucket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The functions a page is given."""

    face: Face
    trace: Callable[[str, int], Trace]
    """(model, at most so many rows) -> its newest rows; none where nothing was said."""
    standing: Callable[[], Standing]
    sheet: Callable[[], Sequence[Entry]]
    stretch: Callable[[str, int, int, int], Stretch]
    """(tag, from ns UTC, to ns UTC, at most so many buckets)"""
    span: Callable[[], tuple[int, int]]
    """[from, to) ns UTC of all readings; equal where there are none."""
