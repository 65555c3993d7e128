"""Whether a live model still sees and errs as it was trained: its card beside the newest span of the site's files.

`penstock drift` looks, and leaves what it found in `views/drift.json`, which `status` reads: a look at months of
readings is nothing for every status.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from penstock.data.block import Block, Flag
from penstock.data.drift import FEWEST, Errors, Finding, Kind, Trained, judge
from penstock.data.history import cells_now
from penstock.data.quality import assess
from penstock.data.rules import Rules
from penstock.data.windows import Reason, WindowSpec, answers_at, cut, prepare
from penstock.errors import ModelError, SiteError
from penstock.spans import Moment

if TYPE_CHECKING:
    from penstock.site import Site

BAD = Flag.MISSING | Flag.SOURCE_BAD | Flag.RANGE | Flag.RATE | Flag.FLAT
SILENT = Flag.HELD
"""Silence that means unchanged is no fault."""
ADVICE = {
    Kind.FAULT: "look at the sensor",
    Kind.OUTSIDE: "train on more history, and trust it less until then",
    Kind.REGIME: "train it again, on rows since then",
    Kind.AGEING: "give it `correct`, or train it again",
}


def drift(site: Site, name: str, start: Moment, end: Moment) -> dict[str, Any]:
    """`Site.drift`. Raises ModelNotFound, ModelError where the card does not tell, QueryError for a wrong span."""
    artifact = site.artifact(name, site.models.champion(name))
    card = artifact.card
    told = card["trained"].get("inputs")
    if told is None:
        raise ModelError(
            f"{name}@{artifact.version}: its card does not tell which inputs it was trained on "
            f"(ready made, or by an older penstock); train it again: penstock train {name}"
        )
    spec, (begin, stop) = WindowSpec.from_json(card["spec"]), site.span(start, end)
    grid = site.readings.grid
    first, last = grid.tick_of(begin), grid.tick_of(stop - 1) + 1
    block = _assessed(site, spec, first, last)
    x = _rows(spec, block, first, last)
    bad = _bad(spec, block.rows(first, last))
    errors = _errors(site, name, artifact.version, card, begin, stop)
    found = judge(Trained.from_json(told), x, bad, [f.tag for f in spec.features], errors)
    answer = {
        "model": name, "version": artifact.version, "from": str(pd.Timestamp(begin)), "to": str(pd.Timestamp(stop)),
        "rows": len(x), "residuals": min((len(e.recent) for e in errors), default=0),
        "judged": len(x) >= FEWEST, "findings": [_told(f) for f in found],
    }  # fmt: skip
    _keep(site.folder / "views" / "drift.json", answer)
    return answer


def _told(finding: Finding) -> dict[str, str]:
    return {
        "kind": finding.kind.value, "what": finding.what, "told": finding.told, "todo": ADVICE[finding.kind]
    }  # fmt: skip


def _assessed(site: Site, spec: WindowSpec, first: int, last: int) -> Block:
    """What the windows that end in first..last-1 are cut from."""
    desk, rules = site.desk(), Rules.of(spec.base_tags, spec.period_ns)
    ids = np.array([desk.ids[tag.name] for tag in spec.base_tags], np.int32)
    begin = first - spec.depth
    cells = cells_now(desk.archive, desk.journal, desk.layout, desk.grid, ids, begin - rules.reach, last)
    return assess(cells, rules).rows(begin, last)


def _rows(spec: WindowSpec, block: Block, first: int, last: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[k, F] the newest rows of the windows that were good."""
    ends = np.arange(first, last)
    windows = cut(spec, prepare(spec, block), ends[answers_at(spec, ends)])
    good = np.flatnonzero(windows.reason == Reason.OK)
    return windows.every[windows.at[good]][:, -1, :]


def _bad(spec: WindowSpec, block: Block) -> dict[str, float]:
    """Share of the rows at which each tag had no good reading of its own."""
    flags = block.flags
    bad = ((flags & BAD) != 0) & ((flags & SILENT) == 0)
    return dict(zip(spec.base, bad.mean(axis=0).tolist(), strict=True)) if len(flags) else {}


def _errors(site: Site, name: str, version: int, card: Mapping[str, Any], begin: int, stop: int) -> list[Errors]:
    """Of what the version said, live or recomputed, outside of its training."""
    said = site.query(name, begin, stop)
    own = (said["version"].to_numpy() == version) & ~said["sample"].to_numpy()
    residuals = (said["truth"] - said["prediction"]).to_numpy().astype(np.float64)
    found = []
    for column, target in enumerate(said["target"].to_numpy().tolist()):
        metrics = card["metrics"].get(target)
        if metrics is not None:
            mine = residuals[own, column]
            found.append(
                Errors(
                    target=target, recent=mine[np.isfinite(mine)], mean=-float(metrics["bias"]), rmse=metrics["rmse"]
                )
            )
    return found


# What was found last


def _keep(path: Path, answer: Mapping[str, Any]) -> None:
    found = {**found_last(path), answer["model"]: answer}
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(found, indent=1))
        aside.replace(path)
    except OSError as error:
        raise SiteError(f"{path}: cannot be written: {error}; check disk and rights") from error


def found_last(path: Path) -> dict[str, Any]:
    """The newest answer per model; none where nobody ever looked."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def drift_rows(folder: Path, champions: Mapping[str, int]) -> Sequence[dict[str, str]]:
    """Rows of `penstock status`: a row per live model in which something was found."""
    found = found_last(folder / "views" / "drift.json")
    rows = []
    for name, answer in found.items():
        if champions.get(name) == answer["version"] and answer["findings"]:
            what = "; ".join(f"{f['kind']}: {f['what']}, {f['told']}" for f in answer["findings"][:3])
            more = f" and {len(answer['findings']) - 3} more" if len(answer["findings"]) > 3 else ""
            when = f"{answer['from'][:16]} to {answer['to'][:16]}"
            rows.append(
                {
                    "part": f"drift {name}",
                    "state": "wrong",
                    "what": f"{when}: {what}{more}",
                    "todo": answer["findings"][0]["todo"],
                }
            )
    return rows
