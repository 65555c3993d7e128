"""The processes a site needs, started when something first needs them and ended together.

Dask workers and Triton: somebody else's by address, those of `penstock up`, or embedded ones that die
with this process; an embedded Triton is watched and mended for as long as it runs. Nothing here
knows what they are used for.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

from distributed import Client, Security

from penstock.cluster import client_for, local_cluster
from penstock.data.hatch import Hatch
from penstock.data.hatch.server import opened
from penstock.secure import listening, own_address, security
from penstock.serving.running import Running
from penstock.serving.triton import Triton
from penstock.serving.watch import Watch
from penstock.site_toml import Settings
from penstock.up import record

START_S = 180.0
"""Longest start of Triton: provisioning, TensorFlow's import, the compile of the first shapes."""
STOP_S = 60.0

log = logging.getLogger(__name__)


class Parts:
    """Dask and Triton of one site."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self._stack = ExitStack()
        self._client: Client | None = None
        self._hatch: Hatch | None = None
        self._server: _Server | None = None

    def client(self) -> Client:
        """A Dask client with workers: of site.toml's scheduler, of the site that is up, or of new ones.

        Raises Unavailable when there are none within three minutes.
        """
        if self._client is None:
            dask = self.settings.dask
            scheduler = dask.scheduler or record.address(self.folder, "dask", START_S)
            context = client_for(scheduler, self._security()) if scheduler else local_cluster(dask.workers)
            self._client = self._stack.enter_context(context)
        return self._client

    def hatch(self) -> Hatch | None:
        """Where the client's workers fetch what they cannot read; None without TLS: then they must see the site.

        Open until `close`. Raises what `client` raises, and SiteError where nobody can listen there.
        """
        client, dask = self.client(), self.settings.dask
        if self._hatch is None and client.scheduler.address.startswith("tls://"):
            address = dask.records or own_address(client.scheduler.address)
            self._hatch = self._stack.enter_context(opened(self.folder, address, listening(client.security)))
        return self._hatch

    def _security(self) -> Security | None:
        """For the scheduler of site.toml, where its address asks for it. Raises SiteError."""
        dask = self.settings.dask
        if dask.scheduler is None or not dask.scheduler.startswith("tls://"):
            return None
        files = (dask.ca_file, dask.cert_file, dask.key_file)
        ca, cert, key = (None if name is None else self.folder / name for name in files)
        return security(ca, cert, key)

    def begin_triton(self) -> None:
        """Let an embedded Triton start meanwhile; `endpoints` waits for it."""
        if self.settings.triton.endpoints or self._server or record.alive(self.folder) or self._running():
            return
        self._begin()

    def _begin(self) -> None:
        self._server = _Server(self.folder / "triton", self.settings.triton.capacity)
        self._stack.callback(self._server.stop)

    def endpoints(self) -> tuple[str, ...]:
        """host:port of the Triton servers: those of site.toml, the one that runs on this site, or a new one.

        One that is up with the site is waited for until every champion is on it. Raises ServingError when it does
        not come up.
        """
        if self.settings.triton.endpoints:
            return self.settings.triton.endpoints
        if self._server is None:
            up = record.address(self.folder, "triton", START_S)
            if up is not None:
                return (up,)
            running = self._running()
            if running is not None:
                return (running.endpoint,)
            self._begin()
        assert self._server is not None
        return (self._server.started().endpoint,)

    def running(self) -> tuple[str, ...]:
        """Likewise, of servers that run already, or that site.toml names; none is started for it."""
        if self.settings.triton.endpoints:
            return self.settings.triton.endpoints
        if self._server is not None:
            return (self._server.started().endpoint,)
        running = self._running()
        return () if running is None else (running.endpoint,)

    def has_triton(self) -> bool:
        """Whether `endpoints` would start none: servers of site.toml, this process', the site's or another's."""
        return bool(self.running()) or record.alive(self.folder)

    def triton(self) -> Triton | None:
        """The embedded server, where this process started one and it is up."""
        return self._server.started() if self._server is not None else None

    def _running(self) -> Running | None:
        """A server that another process started and still wants."""
        running = Triton.running(self.folder / "triton")
        return running if running is not None and running.wanted else None

    def close(self) -> None:
        """End what was started here."""
        self._client = self._hatch = self._server = None
        self._stack.close()


class _Server:
    """Triton and the watch over it, in a thread of their own."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self._up: Future[Triton] = Future()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(folder, capacity), name="triton", daemon=True)
        self._thread.start()

    def started(self) -> Triton:
        """The server once it is ready. Raises what its start raised."""
        return self._up.result(START_S)

    def stop(self) -> None:
        """End it, also in the middle of its start or of a mending."""
        self._stop.set()
        if self._up.done() and self._up.exception() is None:
            self._up.result().end()
        self._thread.join(STOP_S)

    def _hold(self, folder: Path, capacity: int) -> None:
        try:
            server = Triton.start(folder, capacity=capacity, deadline_s=START_S, stop=self._stop)
        except BaseException as error:
            self._up.set_exception(error)
            return
        with server:
            self._up.set_result(server)
            try:
                Watch(server).run(self._stop)
            except Exception:  # a watch that breaks must not take the server with it
                log.exception("%s is watched no more; start again what holds it", server.endpoint)
                self._stop.wait()
