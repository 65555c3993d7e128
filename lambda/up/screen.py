"""What `penstock up` shows: a line per part as it comes up, the page's address, then what happens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.cli_options import print_answer
from penstock.up import commands
from penstock.up.commands import line
from penstock.up.record import PartRecord, Record, State

NO_SOURCE = (
    "no source: plant.toml has no [sources.NAME]; give one with --replay SOURCE, "
    "or run beside this: penstock stream --replay SOURCE --site {}"
)


def run(site: Path, replay: Mapping[str, Any] | None, port: int, *, detach: bool, as_json: bool) -> None:
    """Bring the site up and, unless detached, stay until it is told to end. Raises what `commands` raises."""
    folder = commands.checked(site, replay)
    note = NO_SOURCE.format(site) if commands.streamed(folder, replay) is None else ""
    if detach:
        record = commands.detach(folder, replay, port)
        for part in reversed(record.parts if not as_json else ()):
            print(line(part))
        _ready(record, folder, note, f"penstock down --site {site} ends it all", as_json)
    else:
        commands.foreground(
            folder, replay, port,
            told=lambda part: _told(part, as_json),
            ready=lambda record: _ready(record, folder, note, "Ctrl-C ends it all", as_json),
        )  # fmt: skip


def _told(part: PartRecord, as_json: bool) -> None:
    """The first coming up is the answer; whatever happens later is news."""
    if part.state in (State.WAITING, State.STARTING):
        return
    first = part.state in (State.UP, State.ENDED) and not part.restarts
    print(line(part), file=sys.stdout if first and not as_json else sys.stderr, flush=True)


def _ready(record: Record, folder: Path, note: str, end: str, as_json: bool) -> None:
    page = record.part("page")
    address = page.address if page else None
    if as_json:
        parts = [{"part": p.name, "address": p.address, "pid": p.pid, "log": p.log} for p in record.parts]
        print_answer({"site": str(folder), "pid": record.pid, "page": address, "parts": parts}, as_json)
        return
    if note:
        print(note)
    print(f"page: {address}  ({end})", flush=True)
