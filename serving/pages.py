"""The web server of the pages: one process, one feed, a session per browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import types
from collections.abc import Callable, Iterator
from typing import Any

import panel as pn
from tornado.ioloop import PeriodicCallback
from tornado.websocket import WebSocketClosedError

from penstock.errors import SiteError
from penstock.serving import banner
from penstock.serving.archive_page import ArchivePage
from penstock.serving.dashboard import LivePage
from penstock.serving.feed import Feed
from penstock.serving.questions import Questions
from penstock.serving.triton import HOST, free_port
from penstock.serving.words import Words

UNUSED_MS = 15_000
"""A session whose browser has gone is let go after so long."""
PARENT_MS = 500
"""Between two looks at whether the parent is still there."""


def serve(questions: Questions, *, port: int, ready: Callable[[str], None], with_parent: bool = False) -> None:
    """Serve the pages on this machine until SIGINT or SIGTERM; `ready` is told the address.

    Port 0 takes a free one. `with_parent`: it ends when the process that started it has gone, killed or not.
    Raises SiteError when the port is taken.
    """
    pn.extension(raw_css=[banner.CSS])
    feed = Feed(questions)
    server = _server(feed, port or free_port())
    feed.start()
    try:
        server.io_loop.asyncio_loop.set_exception_handler(_browser_gone)
        if with_parent:
            _watch_parent(server.io_loop, os.getppid())
        with _signals(server.io_loop):
            ready(f"http://{HOST}:{server.port}/")
            server.io_loop.start()
    finally:
        server.stop()
        feed.stop()


def _server(feed: Feed, port: int) -> Any:
    title = f"{feed.questions.face.plant} - penstock"
    words = Words(feed)
    try:
        return pn.serve(
            {"/": lambda: LivePage(feed, words).view(), "/archive": lambda: ArchivePage(feed, words).view()},
            title=dict.fromkeys(("/", "/archive"), title),
            address=HOST, port=port, websocket_origin=[f"{HOST}:{port}", f"localhost:{port}"],
            show=False, start=False, verbose=False,
            unused_session_lifetime_milliseconds=UNUSED_MS, check_unused_sessions_milliseconds=UNUSED_MS // 3,
        )  # fmt: skip
    except OSError as error:
        raise SiteError(
            f"{HOST}:{port}: the page cannot be served there: {error}; name another --port, or 0"
        ) from error


def _watch_parent(loop: Any, parent: int) -> None:
    """An orphan has another parent."""
    PeriodicCallback(lambda: None if os.getppid() == parent else loop.stop(), PARENT_MS).start()


def _browser_gone(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A browser that closes in the middle of a message is no news; all else is told as ever."""
    if not isinstance(context.get("exception"), WebSocketClosedError):
        loop.default_exception_handler(context)


@contextlib.contextmanager
def _signals(loop: Any) -> Iterator[None]:
    """SIGINT and SIGTERM end the loop; afterwards they are what they were."""

    def end(number: int, frame: types.FrameType | None) -> None:
        loop.add_callback_from_signal(loop.stop)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
