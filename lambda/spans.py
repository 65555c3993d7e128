"""Spans of time as people write them: "2014", "2014-03-01 12:00", "-48h", "now-2d"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from penstock.data.durations import parse_duration
from penstock.errors import QueryError

Moment = str | int | np.datetime64 | pd.Timestamp | None


def moment_ns(text: Moment, *, timezone: str, newest_ns: int) -> int:
    """A moment as ns since 1970 UTC.

    A date stands for its beginning, in the plant's time zone unless it carries
    its own; a leading minus counts back from `newest_ns`.
    Raises QueryError where the text is no moment.
    """
    if isinstance(text, (int, np.integer)):
        return int(text)
    try:
        if isinstance(text, str) and text.lstrip().startswith("-"):
            return newest_ns - parse_duration(text.strip()[1:])
        stamp = pd.Timestamp(text)  # type: ignore[arg-type]
        if stamp.tzinfo is None:
            stamp = stamp.tz_localize(timezone)
        return int(stamp.tz_convert("UTC").as_unit("ns").value)
    except (ValueError, TypeError) as error:
        raise QueryError(
            f"{text!r} is no moment: write 2014, 2014-03-01, '2014-03-01 12:00' or -48h ({error})"
        ) from None


def span_ns(start: Moment, end: Moment, *, timezone: str, first_ns: int, newest_ns: int) -> tuple[int, int]:
    """[start, end) in ns UTC; None stands for the ends of what there is.

    Raises QueryError for an empty or reversed span.
    """
    begin = first_ns if start is None else moment_ns(start, timezone=timezone, newest_ns=newest_ns)
    stop = newest_ns if end is None else moment_ns(end, timezone=timezone, newest_ns=newest_ns)
    if begin >= stop:
        raise QueryError(
            f"the span is empty: it begins {pd.Timestamp(begin, tz='UTC')} and ends {pd.Timestamp(stop, tz='UTC')}"
        )
    return begin, stop
