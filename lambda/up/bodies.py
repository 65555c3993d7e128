"""What each part of a supervisor does in its process.

An order says ``part``, ``site``, ``before`` (the address it had before a restart, or null) and ``needs``
(addresses by name), and what is the part's own. Each body ends when it is told to, or raises.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distributed import Client

from penstock.cluster import local_cluster
from penstock.errors import SiteError
from penstock.live import deploy_champions
from penstock.page import serve
from penstock.parts import START_S, Parts
from penstock.schedule import Schedule
from penstock.serving.triton import Triton
from penstock.serving.watch import Watch
from penstock.site import Site
from penstock.site_toml import Settings
from penstock.speed.status import read_status
from penstock.up.child import Child

LOOK_S = 1.0
"""Between two looks at the workers."""

Order = Mapping[str, Any]


def triton(order: Order, child: Child) -> None:
    """A server with every champion on it, and the watch over it."""
    child.heed()
    with Site.open(order["site"]) as site:
        capacity, folder = site.settings.triton.capacity, site.folder / "triton"
        with Triton.start(
            folder, capacity=capacity, deadline_s=START_S, ports=_ports(order), stop=child.stop
        ) as server:
            threading.Thread(target=_end_with, args=(child.stop, server), daemon=True).start()
            live = deploy_champions(site, [server.endpoint])
            child.say(up=server.endpoint, what=f"{live} model{'' if live == 1 else 's'} live")
            Watch(server).run(child.stop)


def dask(order: Order, child: Child) -> None:
    """A scheduler and workers that several programs share."""
    child.heed()
    workers = order["workers"]
    with local_cluster(workers, ports=_ports(order), shared=True) as client:
        seen = _workers(client)
        child.say(up=client.scheduler.address, what=f"{workers} workers")
        told = ""
        while not child.stop.wait(LOOK_S):
            now = _workers(client)
            seen |= now
            what = _told_of(len(now), workers, len(seen) - workers)
            if what != told:
                child.say(what=what)
                told = what


def stream(order: Order, child: Child) -> None:
    """The speed layer, on the Dask and the Triton that it is told of. Its own handlers answer SIGTERM."""
    with Site.open(order["site"]) as site:
        site.parts = Parts(site.folder, _by_address(site.settings, order["needs"]))
        folder, source = site.folder / "speed", order["source"]
        what = source or ", ".join(site.plant.sources)
        threading.Thread(target=_say_when_it_runs, args=(folder, what, child), daemon=True).start()
        report = site.stream(source, rate=order["rate"], ticks=order["ticks"], **order["options"])
    if report["ended"]:
        child.say(ended=True, what=f"ended after {report['ticks']} ticks")


def schedule(order: Order, child: Child) -> None:
    """The retrains and views of plant.toml; each finds the Dask and the Triton that are up by itself."""
    child.heed()
    with Site.open(order["site"]) as site:
        kept, runs = Schedule(site.folder, site.plant), site.runs.all()
    child.say(up=None)
    kept.run(runs, lambda what: child.say(what=what), child.stop)


def page(order: Order, child: Child) -> None:
    """The pages, on the port that was asked for, or else the one it had before."""

    def ready(address: str) -> None:
        child.say(up=address)

    with Site.open(order["site"]) as site:
        if order["port"]:
            serve(site, port=order["port"], ready=ready)
            return
        try:
            serve(site, port=next(iter(_ports(order)), 0), ready=ready)
        except SiteError:  # somebody has taken the port that nobody asked for
            serve(site, port=0, ready=ready)


BODIES: Mapping[str, Callable[[Order, Child], None]] = {
    "triton": triton, "dask": dask, "stream": stream, "schedule": schedule, "page": page,
}  # fmt: skip


def _ports(order: Order) -> list[int]:
    """The port that the part had before."""
    return [] if order["before"] is None else [int(order["before"].rstrip("/").rpartition(":")[2])]


def _end_with(stop: threading.Event, server: Triton) -> None:
    """A mending under way ends with its server; the watch looks at `stop` only between two of them."""
    stop.wait()
    server.end()


def _by_address(settings: Settings, needs: Mapping[str, str]) -> Settings:
    """As if site.toml named what runs; what it names itself stays."""
    changes: dict[str, Any] = {}
    if "dask" in needs:
        changes["dask"] = settings.dask.model_copy(update={"scheduler": needs["dask"]})
    if "triton" in needs:
        changes["triton"] = settings.triton.model_copy(update={"endpoints": (needs["triton"],)})
    return settings.model_copy(update=changes)


def _workers(client: Client) -> set[str]:
    return set(client.scheduler_info(n_workers=-1)["workers"])


def _told_of(now: int, wanted: int, again: int) -> str:
    """`now` of `wanted` workers are there; `again` died and were started again by Dask."""
    there = f"{wanted} workers" if now == wanted else f"{now} of {wanted} workers"
    return f"{there}, restarted {again} of them" if again > 0 else there


def _say_when_it_runs(folder: Path, what: str, child: Child) -> None:
    """A service writes its status once it is connected; the supervisor has a deadline for it."""
    while (read_status(folder) or {}).get("pid") != os.getpid():
        time.sleep(0.2)
    child.say(up=None, what=what)
