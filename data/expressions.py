"""Arithmetic that users write as text, over columns: `when`, derived tags, `expr` steps.

A small language with Python's syntax and none of its reach: numbers, names,
`+ - * / **`, comparisons, `and or not`, and the functions in `FUNCTIONS`. The
text is parsed once into nested closures; no `eval`. A name with odd
characters is written ``tag("U1/TE-01")``.

Everything is float64 and element by element, so a row's result depends on
that row alone. This file knows nothing of tags, blocks or quality.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from penstock.errors import ExpressionError, nearest

Column = NDArray[np.float64]
Columns = Mapping[str, Column]
Node = Callable[[Columns], Column]

LONGEST = 4000
"""Characters; a longer text is refused before it is parsed."""
DEEPEST = 150
"""Levels of nesting, well inside Python's own limit on recursion."""

GRAMMAR = "numbers, tag names, + - * / **, comparisons, and, or, not, parentheses, functions"


def evaluate(text: str, columns: Columns, rows: int) -> Column:
    """The value of `text` in each row: [rows] float64, NaN where undefined (0/0, log(-1)); never a warning.

    `columns` holds [rows] float64 per name. A comparison is 1.0 or 0.0; one with a NaN in it is 0.0.
    Raises ExpressionError when the text cannot be read or names a column that is not there.
    """
    parsed, used = _parse(text)
    for name in used:
        if name not in columns:
            raise ExpressionError(
                text=text,
                found=f"the name {name!r}",
                allowed="a known tag",
                near=nearest(name, list(columns)),
            )
    # numpy may take another code path for arrays of one element, which rounds powers differently.
    width = max(rows, 2)
    given = {name: np.ascontiguousarray(np.resize(columns[name], width), np.float64) for name in used}
    with np.errstate(all="ignore"):
        result = np.broadcast_to(parsed(given), (width,))
    return np.array(result[:rows], np.float64)


def names(text: str) -> tuple[str, ...]:
    """The columns that `text` reads, each once, in order of appearance. Raises ExpressionError."""
    return _parse(text)[1]


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Node, tuple[str, ...]]:
    if len(text) > LONGEST:
        raise ExpressionError(
            text=text[:40] + "...",
            found=f"{len(text)} characters",
            allowed=f"at most {LONGEST}; use derived tags",
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "text that cannot be parsed"
        raise ExpressionError(text=text, found=reason, allowed=GRAMMAR) from None
    reader = _Reader(text)
    return reader.node(tree, 0), tuple(reader.used)


class _Reader:
    """Turns a syntax tree into closures, and keeps the names it met."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.used: dict[str, None] = {}

    def node(self, tree: ast.expr, depth: int) -> Node:
        if depth > DEEPEST:
            raise self.wrong(f"more than {DEEPEST} levels", "less nesting; use derived tags for the parts")
        match tree:
            case ast.Constant(value=bool() | str() | bytes() | complex() | None):
                raise self.wrong(f"the constant {tree.value!r}", GRAMMAR)
            case ast.Constant(value=int() | float()):
                return self.constant(tree.value)
            case ast.Name() | ast.Attribute():
                name = _dotted(tree)
                return self.column(name) if name else self.refuse(tree)
            case ast.UnaryOp():
                return _unary(tree.op, self.node(tree.operand, depth + 1)) or self.refuse(tree)
            case ast.BinOp():
                left, right = self.node(tree.left, depth + 1), self.node(tree.right, depth + 1)
                return _binary(tree.op, left, right) or self.refuse(tree)
            case ast.Compare():
                return self.compare(tree, depth)
            case ast.BoolOp():
                return _all_or_any(tree.op, [self.node(v, depth + 1) for v in tree.values])
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self.call(name, args, depth)
        return self.refuse(tree)

    def constant(self, value: object) -> Node:
        try:
            number = np.array([float(value)])  # type: ignore[arg-type]
        except OverflowError:
            raise self.wrong("a number too large for float64", "numbers up to 1.8e308") from None
        return lambda _: number

    def column(self, name: str) -> Node:
        self.used[name] = None
        return lambda columns: columns[name]

    def compare(self, tree: ast.Compare, depth: int) -> Node:
        parts = [self.node(p, depth + 1) for p in (tree.left, *tree.comparators)]
        tests = [COMPARISONS.get(type(op)) for op in tree.ops]
        if None in tests:
            return self.refuse(tree)

        def chained(columns: Columns) -> Column:
            got = [p(columns) for p in parts]
            result = np.array([True])
            for test, left, right in zip(tests, got[:-1], got[1:], strict=True):
                # NaN != 1 is true in IEEE 754; here nothing is known of a NaN.
                result = result & test(left, right) & ~np.isnan(left) & ~np.isnan(right)  # type: ignore[misc]
            return result.astype(np.float64)

        return chained

    def call(self, name: str, args: list[ast.expr], depth: int) -> Node:
        if name == "tag":
            match args:
                case [ast.Constant(value=str(quoted))]:
                    return self.column(quoted)
            raise self.wrong(f"tag() with {len(args)} arguments", 'one name in quotes, as in tag("U1/TE-01")')
        if name not in FUNCTIONS:
            raise self.wrong(f"the function {name!r}", ", ".join([*FUNCTIONS, "tag"]), nearest(name, list(FUNCTIONS)))
        function, least, most = FUNCTIONS[name]
        if not least <= len(args) <= most:
            count = str(least) if least == most else f"{least} or more"
            raise self.wrong(f"{name}() with {len(args)} arguments", count)
        parts = [self.node(a, depth + 1) for a in args]
        return lambda columns: function(*(p(columns) for p in parts))

    def wrong(self, found: str, allowed: str, near: str | None = None) -> ExpressionError:
        return ExpressionError(text=self.text, found=found, allowed=allowed, near=near)

    def refuse(self, tree: ast.expr) -> Node:
        raise self.wrong(repr(ast.unparse(tree)), GRAMMAR)


def _dotted(tree: ast.expr) -> str | None:
    """``U1.TE`` as one name; a tag of a unit is written so."""
    match tree:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            front = _dotted(value)
            return None if front is None else f"{front}.{attr}"
    return None


def _unary(op: ast.unaryop, value: Node) -> Node | None:
    match op:
        case ast.UAdd():
            return value
        case ast.USub():
            return lambda columns: np.negative(value(columns))
        case ast.Not():
            return lambda columns: (value(columns) == 0).astype(np.float64)
    return None


def _binary(op: ast.operator, left: Node, right: Node) -> Node | None:
    function = ARITHMETIC.get(type(op))
    if function is None:
        return None
    return lambda columns: function(left(columns), right(columns))


def _all_or_any(op: ast.boolop, parts: list[Node]) -> Node:
    together = np.logical_and if isinstance(op, ast.And) else np.logical_or

    def joined(columns: Columns) -> Column:
        result = _true(parts[0](columns))
        for part in parts[1:]:
            result = together(result, _true(part(columns)))
        return result.astype(np.float64)

    return joined


def _true(values: Column) -> NDArray[np.bool_]:
    return np.asarray((values != 0) & ~np.isnan(values))


def _divide(a: Column, b: Column) -> Column:
    return np.where(b == 0, np.nan, np.divide(a, b))


def _least(*values: Column) -> Column:
    result = values[0]
    for value in values[1:]:
        result = np.minimum(result, value)
    return result


def _greatest(*values: Column) -> Column:
    result = values[0]
    for value in values[1:]:
        result = np.maximum(result, value)
    return result


def _where(condition: Column, yes: Column, no: Column) -> Column:
    return np.where(_true(condition), yes, no)


ARITHMETIC: Mapping[type[ast.operator], Callable[[Column, Column], Column]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: _divide,
    ast.Pow: np.power,
}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Column, Column], NDArray[np.bool_]]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
FUNCTIONS: Mapping[str, tuple[Callable[..., Column], int, int]] = {
    "abs": (np.abs, 1, 1),
    "min": (_least, 2, 100),
    "max": (_greatest, 2, 100),
    "sqrt": (np.sqrt, 1, 1),
    "log": (np.log, 1, 1),
    "exp": (np.exp, 1, 1),
    "isnan": (lambda x: np.isnan(x).astype(np.float64), 1, 1),
    "where": (_where, 3, 3),
}
"""By name: the function, its least and most number of arguments."""
