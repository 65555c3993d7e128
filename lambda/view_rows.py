"""How batch views stand that are to be brought up by a schedule: a row of `penstock status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from penstock.data.views.batch_view import BatchView

if TYPE_CHECKING:
    from penstock.site import Site


def view_rows(site: Site) -> list[dict[str, str]]:
    """One row for all live models with `view.cron`; none where there are none."""
    champions = site.models.champions()
    names = [name for name, model in site.plant.models.items() if model.view.cron is not None and name in champions]
    if not names:
        return []
    views = {name: BatchView.open(site.folder / "views" / "batch" / name) for name in names}
    made = {name: "" if view is None or view.made is None else view.made.at for name, view in views.items()}
    never = [name for name, at in made.items() if not at]
    if never:
        what = f"{len(names) - len(never)} of {len(names)} brought up; not yet: {', '.join(never[:4])}"
        return [{"part": "views", "state": "idle", "what": what, "todo": "penstock recompute --all"}]
    name, at = min(made.items(), key=lambda each: each[1])
    when = pd.Timestamp(at).tz_convert(site.plant.timezone)
    what = f"{len(names)} brought up, the oldest ({name}) at {when:%Y-%m-%d %H:%M:%S%z}"
    return [{"part": "views", "state": "ok", "what": what, "todo": ""}]
