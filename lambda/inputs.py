"""What a user may name as a source of history: a file, a table in memory, or a built-in data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.data.plants.datasets import builtin_plants, gas_turbine
from penstock.errors import SourceError, nearest

_DATA_SET = re.compile(r"([A-Za-z][\w-]*)(?::(\d{4})(?:-(\d{4}))?)?")


def parts(source: Any) -> Iterator[tuple[str, Any]]:
    """(name, readable) pairs of `source`, in order of time: a data set comes year by year.

    A text is a path, or a data set such as ``gas-turbine``, ``gas-turbine:2014``,
    ``gas-turbine:2011-2013``. Raises SourceError where it is neither.
    """
    if not isinstance(source, (str, Path)):
        yield type(source).__name__, source
        return
    path = Path(source)
    if path.exists():
        yield path.name, path
        return
    match = _DATA_SET.fullmatch(str(source))
    if match is None or match[1] not in builtin_plants():
        near = nearest(match[1], builtin_plants()) if match else None
        hint = f" Did you mean {near!r}?" if near else ""
        raise SourceError(f"{source}: no such file, and no built-in data set ({', '.join(builtin_plants())}).{hint}")
    first, last = match[2], match[3] or match[2]
    years = range(int(first), int(last) + 1) if first else None
    for year in gas_turbine(years):
        yield f"{match[1]}:{year.year}", year.table()
