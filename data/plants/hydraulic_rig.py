"""The hydraulic test rig's recorded data: 17 sensors at 1 Hz, found, never downloaded.

The publisher has the channels at their own rates (100, 10 and 1 Hz); the file
read here holds their one-second means, and no address of it is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from penstock.data.durations import SECOND_NS
from penstock.data.plants.datasets import places_of
from penstock.data.plants.spans import Span
from penstock.errors import SourceError

FILE = "hydraulic_1hz.csv.gz"
START_NS = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp()) * SECOND_NS
"""Time of the first row. Assumed: the data carry seconds only."""
SENSORS = (
    "PS1", "PS2", "PS3", "PS4", "PS5", "PS6", "EPS1", "FS1", "FS2", "TS1", "TS2", "TS3", "TS4", "VS1", "CE", "CP", "SE",
)  # fmt: skip


def hydraulic_rig(span: Span, path: Path | None = None) -> pa.Table:
    """The rows of `span`: `time` (timestamp[ns, UTC]) and a float64 column per sensor, in the plant's units.

    `path` None: found. Raises SourceError when there is no file, it is another one, or the span holds no row.
    """
    path = path or hydraulic_rig_file()
    try:
        table = pacsv.read_csv(path)
        seconds = table["t_s"].to_numpy().astype(np.int64) * SECOND_NS
        columns = [table[name].cast(pa.float64()) for name in SENSORS]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise SourceError(f"{path}: not the rig's one-second means ({error}); put the right {FILE} there") from error
    wanted = seconds >= span.first_ns
    if span.last_ns is not None:
        wanted &= seconds < span.last_ns
    if not wanted.any():
        raise SourceError(
            f"{path}: holds no row of that span; its {len(seconds)} rows end {seconds[-1] / 1e9:.0f} s in"
        )
    times = pa.array(seconds + START_NS, pa.timestamp("ns", "UTC"))
    return pa.table([times, *columns], names=["time", *SENSORS]).filter(pa.array(wanted))


def hydraulic_rig_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The file, where it is found. Raises SourceError that says where was looked and what to do."""
    places = places_of("hydraulic_rig", environ)
    for place in places:
        if (place / FILE).is_file():
            return place / FILE
    looked = ", ".join(str(place) for place in places)
    raise SourceError(
        f"hydraulic-rig data: {FILE} is not in {looked}, and no download of it is known;"
        " put it into hydraulic_rig/ and set PENSTOCK_DATASETS to its parent (docs/data.md tells its columns)"
    )
