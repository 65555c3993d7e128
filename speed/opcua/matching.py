"""Which variables are tags: told by node id, or by browse name where no other variable has the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.data.importing.source_tags import IGNORED, UNKNOWN
from penstock.speed.formats.names import Names
from penstock.speed.opcua.nodes import Variable


def matched(found: Sequence[Variable], names: Names) -> tuple[list[tuple[Variable, str]], list[Variable]]:
    """(variables that are tags, with the name that says so; those that are none). Left-out ones are neither."""
    often = Counter(variable.name for variable in found)
    by_text, by_name = names.ids([v.text for v in found]), names.ids([v.name for v in found])
    kept, others = [], []
    for variable, text, name in zip(found, by_text.tolist(), by_name.tolist(), strict=True):
        if text >= 0:
            kept.append((variable, variable.text))
        elif text == UNKNOWN and name >= 0 and often[variable.name] == 1:
            kept.append((variable, variable.name))
        elif text == UNKNOWN and name != IGNORED:
            others.append(variable)
    return kept, others
