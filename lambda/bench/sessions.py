"""Browser sessions without a browser: websockets that speak to a page as a browser does.

    python -m penstock.bench.sessions ADDRESS COUNT STALLED

Opens COUNT sessions, each on another model; the first STALLED of them stop
reading their socket once they have seen something move. Prints ``ready`` when all
have, runs until its standard input ends, then prints one JSON object per session.
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from penstock.errors import SiteError

START_S = 60.0
READY_S = 90.0
"""Longest wait for all sessions."""
SEEN = 20
"""Patches after which a session counts as ready, and one that is to stall stops reading."""
MOST_BYTES = 64 << 20
"""Of one message."""
READY = {"kind": "MessageSent", "msg_type": "bokeh_event",
         "msg_data": {"type": "event", "name": "document_ready", "values": {"type": "map"}}}  # fmt: skip


@dataclass(slots=True)
class Session:
    """One websocket and what came through it."""

    number: int
    stalls: bool
    model: str = ""
    patches: int = 0
    received: int = 0
    """Bytes."""
    stalled: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, address: str) -> None:
        """Open the page, pick a model, and take what comes."""
        page = await AsyncHTTPClient().fetch(address, request_timeout=START_S)
        found = re.search(r'"token":"([^"]+)"', page.body.decode())
        assert found is not None, f"{address}: is no Bokeh page"
        socket = await websocket_connect(
            f"ws{address.removeprefix('http')}ws", subprotocols=["bokeh", found[1]], max_message_size=MOST_BYTES,
            connect_timeout=START_S,
        )  # fmt: skip
        while not self.stalled:
            part = await socket.read_message()
            assert part is not None, "the page closed the session"
            self.received += len(part)
            await self._heard(socket, part)
        await asyncio.Event().wait()  # the socket stays open, and nobody reads it

    def told(self) -> dict[str, Any]:
        """What came, as JSON has it."""
        return {name: getattr(self, name) for name in ("number", "model", "patches", "received", "stalled")}

    async def _heard(self, socket: WebSocketClientConnection, part: str | bytes) -> None:
        head = str(part[:200])
        if '"msgtype":"ACK"' in head.replace(" ", ""):  # sooner it understands nothing
            await _send(socket, "PULL-DOC-REQ", {})
        elif '"PATCH-DOC"' in head:
            self.patches += 1
            if self.patches >= SEEN:
                self.ready.set()
                self.stalled = self.stalls
        elif not self.model and str(part[:10]).startswith('{"doc"'):
            menu, options = _menu(json.loads(part))
            self.model = options[self.number % len(options)]
            changed = {"kind": "ModelChanged", "model": {"id": menu}, "attr": "value", "new": self.model}
            await _send(socket, "PATCH-DOC", {"events": [READY, changed]})


async def _send(socket: WebSocketClientConnection, kind: str, content: dict[str, Any]) -> None:
    """A message of Bokeh's protocol: header, metadata, content."""
    for part in ({"msgid": kind, "msgtype": kind}, {}, content):
        await socket.write_message(json.dumps(part))


def _menu(node: Any) -> tuple[str, list[str]]:
    """(id, options) of the page's menu of models, somewhere in its document."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if str(each.get("name", "")).endswith("Select") and (attributes := each.get("attributes", {})).get(
                "options"
            ):
                return str(each["id"]), [str(option) for option in attributes["options"]]
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    raise AssertionError("the page has no menu of models")


def await_ready(sessions: subprocess.Popen[str]) -> None:
    """Until all sessions of a process like this one have seen the page move. Raises SiteError when they do not."""
    assert sessions.stdout is not None
    if not select.select([sessions.stdout], [], [], READY_S)[0] or sessions.stdout.readline() != "ready\n":
        sessions.kill()
        raise SiteError(f"the page's sessions did not see it move within {READY_S:g} s")


async def main(address: str, count: int, stalled: int) -> None:
    """Until standard input ends. Raises what ends a session before that."""
    sessions = [Session(number=k, stalls=k < stalled) for k in range(count)]
    watching = [asyncio.create_task(session.watch(address)) for session in sessions]
    ended = asyncio.create_task(_input_ended())
    telling = asyncio.create_task(_tell_ready(sessions))
    done, _ = await asyncio.wait([ended, *watching], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {ended}:
        task.result()
    for session in sessions:
        print(json.dumps(session.told()), flush=True)
    for task in (telling, *watching):
        task.cancel()


async def _input_ended() -> None:
    """A daemon thread waits for it: one of a pool would hold up the end of a process that failed."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


async def _tell_ready(sessions: list[Session]) -> None:
    for session in sessions:
        await session.ready.wait()
    print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
