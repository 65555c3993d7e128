"""Reading a settings table with care: every mistake is kept, none ends the reading.

A `Table` is one TOML table, or several laid over each other (defaults, the
table itself, an override); it remembers which layer a key came from, so that a
message names the place where the mistake stands. A getter that meets a wrong
value notes it and returns its default.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.data.durations import DURATION, RATE, parse_duration, parse_rate
from penstock.errors import Mistake, nearest

_MANY = 5_000
"""Above this many known names only those that begin alike are compared: difflib takes 20 us per name."""
_MOST = 200
"""So many mistakes of one file are kept; a broken table of 10^6 tags need not list a million."""


@dataclass(slots=True)
class Mistakes:
    """The mistakes found in one file, each place once."""

    file: str
    found: dict[tuple[str, str], Mistake] = field(default_factory=dict)
    dropped: int = 0

    def add(self, key: str, found: str, allowed: str, near: str | None = None) -> None:
        """Note a mistake at `key`; the same one at the same place is noted once."""
        if len(self.found) >= _MOST and (key, found) not in self.found:
            self.dropped += 1
            return
        self.found.setdefault((key, found), Mistake(file=self.file, key=key, found=found, allowed=allowed, near=near))

    def listed(self) -> list[Mistake]:
        """All of them in the order of finding; the last one says how many were left out."""
        rest = Mistake(file=self.file, key="...", found=f"{self.dropped} more mistakes", allowed="none")
        return [*self.found.values(), *([rest] if self.dropped else [])]


def near_name(name: str, known: Sequence[str]) -> str | None:
    """`nearest`, fast for many names: `known` sorted when it is long."""
    if len(known) <= _MANY:
        return nearest(name, known)
    for length in range(len(name), 1, -1):
        at = bisect_left(known, name[:length])
        if at < len(known) and known[at].startswith(name[:length]):
            return nearest(name, known[max(0, at - 50) : at + 200])
    return None


def shown(value: object) -> str:
    """A value as a message quotes it: TOML-like and short."""
    match value:
        case bool():
            text = str(value).lower()
        case str():
            text = f'"{value}"'
        case Mapping():
            text = "a table"
        case _:
            text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def dotted(prefix: str, name: str) -> str:
    """`prefix.name`, quoted as TOML would where the name has a dot."""
    bare = name.replace("_", "").replace("-", "").isalnum()
    part = name if bare else f'"{name}"'
    return f"{prefix}.{part}" if prefix else part


class Table:
    """Layers of one table, lowest first; a key's value is that of the highest layer that has it."""

    def __init__(self, layers: Sequence[tuple[str, Mapping[str, object]]], mistakes: Mistakes) -> None:
        self.layers = tuple(layers)
        self.mistakes = mistakes

    def __contains__(self, key: str) -> bool:
        return any(key in data for _, data in self.layers)

    def names(self) -> Iterator[str]:
        """Keys, in order of first appearance."""
        return iter(dict.fromkeys(key for _, data in self.layers for key in data))

    def raw(self, key: str) -> object:
        """The value as TOML gave it; None where the key is missing."""
        return next((data[key] for _, data in reversed(self.layers) if key in data), None)

    def place(self, key: str) -> str:
        """Where the value stands, for messages."""
        prefix = next((p for p, data in reversed(self.layers) if key in data), self.layers[-1][0])
        return dotted(prefix, key)

    def wrong(self, key: str, allowed: str, near: str | None = None) -> None:
        """Note that what stands at `key` is not `allowed`."""
        found = shown(self.raw(key)) if key in self else "nothing"
        self.mistakes.add(self.place(key), found, allowed, near)

    def close(self, known: Sequence[str]) -> None:
        """Note every key that is not known."""
        for prefix, data in self.layers:
            for key in data:
                if key not in known:
                    allowed = ", ".join(known)
                    self.mistakes.add(dotted(prefix, key), "an unknown key", f"one of {allowed}", near_name(key, known))

    def text(self, key: str, default: str = "", *, required: bool = False, one_of: Sequence[str] = ()) -> str:
        """Text, one of `one_of` where that is given."""
        value = self.raw(key)
        allowed = "one of " + ", ".join(f'"{o}"' for o in one_of) if one_of else "text"
        if value is None:
            if required:
                self.wrong(key, allowed)
            return default
        if not isinstance(value, str):
            self.wrong(key, allowed)
            return default
        if one_of and value not in one_of:
            self.wrong(key, allowed, nearest(value, one_of))
            return default
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.raw(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.wrong(key, "true or false")
        return default

    def number(self, key: str) -> float | None:
        """A finite number."""
        value = self.raw(key)
        if value is None:
            return None
        if not _finite(value):
            self.wrong(key, "a number")
            return None
        return float(value)  # type: ignore[arg-type]

    def whole(self, key: str, default: int, at_least: int = 1) -> int:
        """A whole number."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            self.wrong(key, f"a whole number, at least {at_least}")
            return default
        return value

    def duration(self, key: str) -> int | None:
        """Nanoseconds of a duration text; None where it is missing or wrong."""
        value = self.raw(key)
        if value is None:
            return None
        try:
            if isinstance(value, str):
                return parse_duration(value)
        except ValueError:
            pass
        self.wrong(key, DURATION)
        return None

    def rate(self, key: str) -> float | None:
        """Per second; a number, or text with a unit of time."""
        value = self.raw(key)
        try:
            rate = parse_rate(value) if isinstance(value, str) else self.number(key)
        except ValueError:
            rate = -1.0
        if rate is not None and rate <= 0:
            self.wrong(key, RATE)
            return None
        return rate

    def range(self, key: str) -> tuple[float, float] | None:
        """[low, high], low < high."""
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, list) and len(value) == 2 and all(_finite(v) for v in value) and value[0] < value[1]:
            return float(value[0]), float(value[1])
        self.wrong(key, "[low, high] with low below high")
        return None

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        """A list of texts, or one text alone."""
        value = self.raw(key)
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and all(isinstance(v, str) for v in value) and (value or not required):
            return tuple(value)
        if value is not None or required:
            self.wrong(key, "text or a list of texts")
        return ()

    def sub(self, key: str) -> Table:
        """The table at `key`, layered likewise; empty where there is none."""
        layers: list[tuple[str, Mapping[str, object]]] = []
        for prefix, data in self.layers:
            value = data.get(key)
            if isinstance(value, Mapping):
                layers.append((dotted(prefix, key), value))
            elif value is not None:
                self.mistakes.add(dotted(prefix, key), shown(value), "a table")
        return Table(layers or [(dotted(self.layers[-1][0], key), {})], self.mistakes)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
