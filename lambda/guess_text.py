"""A guess, written as a commented plant.toml that loads as it stands."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence

from penstock.data.durations import duration_text
from penstock.guess import Guess
from penstock.guess_columns import Column

WINDOW = 24
"""Rows of the example's window."""
MOST_INPUTS = 12
GAP_ROWS = 3
"""Rows over which a value is carried forward."""
_LIKELY = re.compile(r"nox|power|leistung|output|yield|flow|durchfluss|efficiency|level", re.IGNORECASE)
"""Names of what plants often want predicted."""
_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "æ": "ae", "ı": "i", "ł": "l"})
"""In names of models, which are plain ASCII."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def plant_text(guess: Guess, name: str) -> str:
    """plant.toml for a plant called `name`."""
    parts = [_head(guess, name), _tags(guess), _sources(guess.options, guess.left_out), _model(guess)]
    return "\n".join(part for part in parts if part)


def target(guess: Guess) -> str:
    """The tag that the example model predicts: one with a telling name, else the last that is a value."""
    values = [column for column in guess.columns if column.kind == "value"] or list(guess.columns)
    moving = [column for column in values if column.range is not None] or values
    return next((column.name for column in moving if _LIKELY.search(column.name)), moving[-1].name)


def model_name(guess: Guess) -> str:
    """The example model's."""
    plain = unicodedata.normalize("NFKD", target(guess).lower().translate(_LETTERS))
    return re.sub(r"[^a-z0-9_]+", "_", re.sub(r"[\u0300-\u036f]", "", plain)).strip("_") or "model"


def _head(guess: Guess, name: str) -> str:
    notes = "".join(f"# ! {note}\n" for note in guess.notes)
    return f"""# Guessed from {guess.rows} rows of {guess.file.name}.
# All of it may be changed, but that a site keeps its period.
{notes}
[plant]
name = {quoted(name)}
period = "{duration_text(guess.period_ns)}" # the usual spacing of the rows
timezone = {quoted(guess.timezone)} # of times without an offset, and of screens; inside all is UTC
"""


def _tags(guess: Guess) -> str:
    lines = [
        "[tags]",
        "# range: outside of it a value is bad; here the usual values, widened. max_gap: how far the last good one is",
        "# carried forward. aliases: the column's name in the file.",
    ]
    return "\n".join([*lines, *(_tag(column, guess.period_ns) for column in guess.columns)]) + "\n"


def _tag(column: Column, period_ns: int) -> str:
    keys = {"unit": quoted(column.unit)} if column.unit else {}
    if column.kind != "value":
        keys["kind"] = quoted(column.kind)
    if column.double:
        keys["dtype"] = '"float64"'
    if column.range is not None:
        keys["range"] = f"[{column.range[0]!r}, {column.range[1]!r}]"
    if column.flat_after_ns is not None:
        keys["flat_after"] = quoted(duration_text(column.flat_after_ns))
    keys["max_gap"] = quoted(duration_text(GAP_ROWS * period_ns))
    if column.source != column.name:
        keys["aliases"] = f"[{quoted(column.source)}]"
    body = ", ".join(f"{key} = {value}" for key, value in keys.items())
    return f"{key_text(column.name)} = {{ {body} }}" + (f" # {column.note}" if column.note else "")


def _sources(options: Mapping[str, str], left_out: Sequence[str]) -> str:
    if not options and not left_out:
        return ""
    lines = ["[sources.import]", "# How CSV files are read, unless the command says otherwise."]
    lines += [f"{key} = {quoted(value)}" for key, value in options.items()]
    if left_out:
        columns = ", ".join(f"{key_text(name)} = false" for name in left_out)
        lines.append(f"columns = {{ {columns} }} # false: left out; or the tag that a column is")
    return "\n".join(lines) + "\n"


def _model(guess: Guess) -> str:
    wanted = target(guess)
    inputs = [column.name for column in guess.columns if column.name != wanted and column.kind != "counter"]
    listed = ", ".join(quoted(name) for name in inputs[:MOST_INPUTS])
    window = duration_text(WINDOW * guess.period_ns)
    return f"""[model.{model_name(guess)}]
# An example: what {wanted} is now, from the others and from its own past. docs/plant.md has all keys.
target = {quoted(wanted)}
inputs = [{listed}]
past_target = true
window = "{window}" # {WINDOW} rows
# horizon = "{duration_text(guess.period_ns)}" # to predict ahead
"""


def quoted(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def key_text(name: str) -> str:
    """A TOML key, in quotes where it must be."""
    return name if _BARE.fullmatch(name) else quoted(name)
