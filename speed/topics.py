"""Topics of what is sent, and whether a source's filter would hear them. Knows no broker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

PART = re.compile(r"\{(\w+)\}")
SHARED = re.compile(r"\$share/[^/]+/")


def filled(template: str, parts: Mapping[str, str], *, topic: bool) -> str:
    """`template` with its ``{parts}``; in a topic a part stays within its level, whatever its name is made of."""
    return PART.sub(lambda found: level(parts[found[1]]) if topic else parts[found[1]], template)


def level(name: str) -> str:
    """`name` without what parts levels, or stands for others: as a URL would have it."""
    return re.sub("[%/+#\0]", lambda found: f"%{ord(found[0]):02X}", name)


def may_meet(template: str, plant: str, filter_: str) -> bool:
    """Whether a subscription to `filter_` would bring some message under `template`, whatever models there are.

    topic     penstock/{plant}/{model}/{target}        plant "mill"
    filter    penstock/+/nox/#                         brings model nox's
    filter    penstock/mine/#                          brings none
    """
    topics, wanted = template.split("/"), SHARED.sub("", filter_).split("/")
    meets = partial(_meets, plant=plant)
    for at, want in enumerate(wanted):
        if want == "#":
            return True
        if at == len(topics) or not meets(topics[at], want):
            return False
    return len(topics) == len(wanted)


def _meets(said: str, want: str, plant: str) -> bool:
    """One level. Models and targets may have any name."""
    if want == "+":
        return True
    known = said.replace("{plant}", level(plant))
    return re.fullmatch(".+".join(map(re.escape, PART.split(known)[::2])), want) is not None
