"""`python -m penstock.up ORDER`: one part of a supervisor, or a supervisor in the background, as a process."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

from penstock.errors import PenstockError
from penstock.up.child import Child

BACKGROUND = "up"
"""The order's ``part`` that is a supervisor, which outlives the command that started it."""


def main() -> None:
    """Do what the order says; a PenstockError is what the supervisor is told, and the end of the log."""
    order = json.loads(sys.argv[1])
    background = order["part"] == BACKGROUND
    child = Child(order["pipe"], None if background else order["parent"])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    print(time.strftime(f"%Y-%m-%d %H:%M:%S%z {order['part']}, pid {os.getpid()}"), flush=True)
    try:
        _body(background, order, child)
    except PenstockError as error:
        child.say(why=str(error).splitlines()[0])
        sys.exit(f"penstock: {error}")


def _body(background: bool, order: dict[str, Any], child: Child) -> None:
    """Imports take seconds: the watch over the parent has begun before them."""
    if background:
        from penstock.up.commands import background as supervise

        supervise(order, child)
    else:
        from penstock.up.bodies import BODIES

        BODIES[order["part"]](order, child)


if __name__ == "__main__":
    main()
