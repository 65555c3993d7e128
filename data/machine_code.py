"""Loops over arrays as machine code, where numba is installed: compiled when they are first called, never at import.

The light client has no numba, and an import of `penstock.data` must not load it. Whoever has a `Loop` has
the same arithmetic in numpy as well, with the same bits: nothing here reorders a sum or joins a product with one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any


@cache
def available() -> bool:
    """Whether loops can be compiled here."""
    return find_spec("numba") is not None


class Loop:
    """A function of arrays and numbers that numba compiles at its first call; what it calls are Loops or `inlined`."""

    def __init__(self, function: Callable[..., Any], *uses: Callable[..., Any]) -> None:
        """`uses`: plain functions of its module that it calls; they are compiled with it."""
        self._function, self._uses = function, uses
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *values: Any) -> Any:
        if self._compiled is None:
            self._compiled = _compiled(self._function, self._uses)
        return self._compiled(*values)


def _compiled(function: Callable[..., Any], uses: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    from types import FunctionType

    from numba import njit
    from numba.extending import register_jitable

    # numba looks names up in the function's globals: there, and only in its own copy, they mean the compiled ones.
    known = dict(function.__globals__)
    for used in uses:
        known[used.__name__] = register_jitable(used)
    own = FunctionType(function.__code__, known, function.__name__)
    compiled: Callable[..., Any] = njit(nogil=True, error_model="numpy")(own)
    return compiled
