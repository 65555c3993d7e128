"""Templates (`for_each`, `{unit}`) and globs of plant.toml, as plain functions over text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from fnmatch import translate

_RANGE = re.compile(r"(\D*)(\d+)\.\.(\D*)(\d+)", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
RANGE = 'text such as "U001..U100"'


def expand_range(text: str) -> tuple[str, ...]:
    """The names from "U001..U100", both ends included, as wide as the first number.

    Raises ValueError when the text is no range, or runs backwards.
    """
    match = _RANGE.fullmatch(text)
    if match is None or match[1] != match[3] or int(match[2]) > int(match[4]):
        raise ValueError(f"{text!r} is not {RANGE}")
    width = len(match[2])
    return tuple(f"{match[1]}{number:0{width}d}" for number in range(int(match[2]), int(match[4]) + 1))


def substituted(value: object, asset: str, name: str) -> object:
    """`value` with ``{asset}`` replaced by `name` in all its texts, keys included, at any depth."""
    match value:
        case str():
            return value.replace("{" + asset + "}", name)
        case list():
            return [substituted(v, asset, name) for v in value]
        case Mapping():
            return {str(substituted(k, asset, name)): substituted(v, asset, name) for k, v in value.items()}
    return value


def is_glob(text: str, known: Container[str] = ()) -> bool:
    """Whether the text has a wildcard, and is not itself one of the `known` names: units stand in [brackets]."""
    return _GLOB.search(text) is not None and text not in known


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that match a glob, in their order."""
    fits = re.compile(translate(pattern)).match
    return [name for name in names if fits(name)]


class Names:
    """Known names, in file order, found by glob quickly however many there are."""

    def __init__(self, names: Sequence[str]) -> None:
        self.position = {name: i for i, name in enumerate(names)}
        self.sorted = sorted(self.position)

    def __contains__(self, name: object) -> bool:
        return name in self.position

    def matching(self, pattern: str) -> list[str]:
        """Names that match, in file order; only those with the glob's literal beginning are looked at."""
        match = _GLOB.search(pattern)
        begin = pattern[: match.start()] if match else pattern
        first = bisect_left(self.sorted, begin)
        last = bisect_left(self.sorted, begin + "\U0010ffff", lo=first)
        return sorted(matching(pattern, self.sorted[first:last]), key=self.position.__getitem__)
