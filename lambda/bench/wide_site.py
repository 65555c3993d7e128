"""A scratch site of a wide plant: models of random weights, recorded as live, and a TCP source on a free port."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.batch.specimens import Size, drafts
from penstock.bench.wide_plant import INPUTS, LENGTH, WidePlant
from penstock.data.importing.source_tags import SourceTags
from penstock.data.models import Draft
from penstock.site import Site
from penstock.speed.formats.names import Names
from penstock.speed.link import Link
from penstock.speed.source import Access, Delivery
from penstock.speed.sources.tcp import Tcp

UNITS = 64
DRAFTS_S = 300.0
LOOK_S = 0.2


def make_site(folder: Path, plant: WidePlant) -> Site:
    """The site, with version 1 of every model."""
    folder.mkdir(parents=True, exist_ok=True)
    site = Site.create(folder / "site", plant.write(folder))
    # TensorFlow stays out of the process whose memory is watched.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = pool.submit(_drafts, plant.models).result(DRAFTS_S)
    for name, draft in zip(site.plant.models, made, strict=True):
        spec = site.spec(name)
        card = {**draft.card, "spec": spec.to_json(), "units": list(spec.target_units)}
        site.models.save(replace(draft, name=name, card=card))
        site.models.record(name, 1, "deploy", "bench")
    return site


def _drafts(count: int) -> list[Draft]:
    return list(drafts(Size(length=LENGTH, features=INPUTS, units=UNITS), count))


class Line:
    """The site's TCP source, which ends when it is told that it is over."""

    patient = False

    def __init__(self, site: Site) -> None:
        self.name = "line"
        self._tcp = Tcp(
            self.name, Access(url="tcp://127.0.0.1:0"), Names(SourceTags(site.plant, site.registry, {}), Link())
        )
        self.link = self._tcp.link
        self.over = False
        """True: no more is waited for."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port once it listens."""
        host, port = self._tcp.address
        return (host, port) if port else None

    async def deliveries(self, offsets: Mapping[str, int]) -> AsyncIterator[Delivery]:
        """Those of the gateways."""
        async with aclosing(self._tcp.deliveries(offsets)) as deliveries:  # type: ignore[type-var]
            while True:
                following: asyncio.Task[Any] = asyncio.ensure_future(anext(deliveries))
                while not following.done() and not self.over:
                    await asyncio.wait([following], timeout=LOOK_S)
                if not following.done():
                    following.cancel()
                    with suppress(asyncio.CancelledError):
                        await following
                    return
                yield following.result()
