"""Machine code for the inner part of an LSTM: a few rows times a strip of weights, whose sums stay in registers.

    rows of x      strip of w: of `LANES` units all four gates          sums, begun with `start`

    r0 ──────►     k: i i i i  f f f f  g g g g  o o o o      ──►       r0: i f g o
    r1 ──────►     :                                                    r1: i f g o
    r2 ──────►

Compilers keep such sums in memory, and write and read them for each weight: so the instructions are put together
here, as LLVM's vectors. Every sum is made from the first k to the last, one fused multiplication and addition at a
time, however many rows there are: so an answer has the same bits whoever else is asked. What is made of the sums - an
LSTM's gates, or nothing - is made before they leave the registers.

Addresses and distances are in bytes: nothing here checks them. Runs inside Triton, imports nothing of penstock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

WIDE = "+avx512f" in (config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()).split(",")
LANES = 16 if WIDE else 8
"""Numbers of a vector: units of a strip."""
MANY, SOME = (6, 4) if WIDE else (2, 2)
"""Rows that tiles are made for, beside one: as many as leave registers for the weights."""
GATES = 4

LIMIT = 8.32
"""tanh is 1 in float32 beyond."""
UPPER = (1.0, 0.1371205002, 3.908743616e-03, 2.883340130e-05, 3.262302428e-08, -1.377545734e-11)
LOWER = (1.0, 0.4704538286, 2.739336155e-02, 4.010240241e-04, 1.345720534e-06)
"""tanh x = x P(x^2) / Q(x^2), fitted on [-LIMIT, LIMIT] by least squares of the relative difference, with Lawson's
weights: 5e-10 in exact arithmetic, 3.3e-7 in float32."""

NUMBER, ADDRESS = ir.FloatType(), ir.IntType(64)
VECTOR = ir.VectorType(NUMBER, LANES)
FIRST = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
NOTHING = ir.Constant(VECTOR, ir.Undefined)
LINE = 4 * LANES
"""Bytes of a vector."""


class Vectors:
    """Instructions on vectors, written where `builder` stands."""

    def __init__(self, builder: Any) -> None:
        self.b = builder
        self._fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )

    def load(self, address: Any, number: int = 0) -> Any:
        """The vector at an address, or so many vectors behind it."""
        found = self.b.load(self._pointer(address, number))
        found.align = 4
        return found

    def store(self, vector: Any, address: Any, number: int = 0) -> None:
        """The other way."""
        self.b.store(vector, self._pointer(address, number)).align = 4

    def spread(self, address: Any) -> Any:
        """The one number at an address, in all lanes."""
        x = self.b.load(self.b.inttoptr(address, ir.PointerType(NUMBER)))
        return self.b.shuffle_vector(self.b.insert_element(NOTHING, x, ir.IntType(32)(0)), NOTHING, FIRST)

    def fused(self, x: Any, y: Any, z: Any) -> Any:
        """x * y + z, rounded once."""
        return self.b.call(self._fused, [x, y, z])

    def tanh(self, x: Any) -> Any:
        """A NaN stays one."""
        for limit, beyond in ((LIMIT, ">"), (-LIMIT, "<")):
            x = self.b.select(self.b.fcmp_ordered(beyond, x, _all(limit)), _all(limit), x)
        square = self.b.fmul(x, x)
        return self.b.fdiv(self.b.fmul(x, self._polynomial(UPPER, square)), self._polynomial(LOWER, square))

    def sigmoid(self, x: Any) -> Any:
        """1 / (1 + exp -x)"""
        return self.fused(self.tanh(self.b.fmul(x, _all(0.5))), _all(0.5), _all(0.5))

    def _polynomial(self, factors: Sequence[float], x: Any) -> Any:
        value = _all(factors[-1])
        for factor in factors[-2::-1]:
            value = self.fused(value, x, _all(factor))
        return value

    def _pointer(self, address: Any, number: int) -> Any:
        return self.b.inttoptr(self.b.add(address, ADDRESS(LINE * number)), ir.PointerType(VECTOR))


def _all(x: float) -> Any:
    return ir.Constant(VECTOR, [float(np.float32(x))] * LANES)


def _products(v: Vectors, sums: list[list[Any]], x: list[Any], w: Any, depth: Any) -> list[list[Any]]:
    """The loop over k < depth, at least once: sums [rows][GATES] + x [rows, k] * w [k, GATES]."""
    b = v.b
    before, loop, after = b.basic_block, b.append_basic_block("k"), b.append_basic_block("sums")
    b.branch(loop)
    b.position_at_end(loop)
    k = b.phi(ADDRESS)
    k.add_incoming(ADDRESS(0), before)
    now = [[b.phi(VECTOR) for _ in row] for row in sums]
    weights = b.add(w, b.mul(k, ADDRESS(GATES * LINE)))
    strip = [v.load(weights, gate) for gate in range(GATES)]
    new = []
    for row, of in zip(now, x, strict=True):
        number = v.spread(b.add(of, b.mul(k, ADDRESS(4))))
        new.append([v.fused(number, weight, total) for weight, total in zip(strip, row, strict=True)])
    following = b.add(k, ADDRESS(1))
    k.add_incoming(following, loop)
    for phis, begun, made in zip(now, sums, new, strict=True):
        for phi, first, next_ in zip(phis, begun, made, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, loop)
    b.cbranch(b.icmp_signed("<", following, depth), loop, after)
    b.position_at_end(after)
    return new


def _gates(v: Vectors, sums: Sequence[Any], c: Any, out: Any) -> None:
    """Keras' gates i, f, c, o: the cell's state in place, its output."""
    i, f, g, o = sums
    state = v.fused(v.sigmoid(f), v.load(c), v.b.fmul(v.sigmoid(i), v.tanh(g)))
    v.store(state, c)
    v.store(v.b.fmul(v.sigmoid(o), v.tanh(state)), out)


def _plain(v: Vectors, sums: Sequence[Any], out: Any) -> None:
    """The sums as they are."""
    for gate, total in enumerate(sums):
        v.store(total, out, gate)


def _tile(rows: int) -> Any:
    """A function of numba's for so many rows, each `step` bytes behind the other:

    (start, step, x, step, w, depth, c, step, out, step); c is 0 where the sums are wanted and no gates.
    """

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def tile(
        typing: Any, start: Any, start_step: Any, x: Any, x_step: Any, w: Any, depth: Any, c: Any, c_step: Any,
        out: Any, out_step: Any,
    ) -> Any:  # fmt: skip
        def written(context: Any, builder: Any, signature: Any, given: Sequence[Any]) -> Any:
            builder.function.attributes.add("noinline")  # one copy per program
            v = Vectors(builder)
            start, start_step, x, x_step, w, depth, c, c_step, out, out_step = given

            def each(address: Any, step: Any) -> list[Any]:
                return [builder.add(address, builder.mul(step, ADDRESS(row))) for row in range(rows)]

            sums = [[v.load(at, gate) for gate in range(GATES)] for at in each(start, start_step)]
            sums = _products(v, sums, each(x, x_step), w, depth)
            with builder.if_else(builder.icmp_signed("!=", c, ADDRESS(0))) as (gated, plain):
                with gated:
                    for row, state, to in zip(sums, each(c, c_step), each(out, out_step), strict=True):
                        _gates(v, row, state, to)
                with plain:
                    for row, to in zip(sums, each(out, out_step), strict=True):
                        _plain(v, row, to)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), written

    return tile


tile_of_many, tile_of_some, tile_of_one = _tile(MANY), _tile(SOME), _tile(1)
