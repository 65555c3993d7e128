"""When two specs cut their windows alike and differ only in the names of what they read.

The models of a fleet do: one template, a unit's tags each. Whoever has the rows of such models may prepare and cut
them together, under the names of any one of them.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Mapping

from penstock.data.expressions import names
from penstock.data.window_spec import WindowSpec


def form_of(spec: WindowSpec) -> Hashable:
    """Everything that `prepare` and `cut` go by, with a tag's place among `base` and `derived` for its name."""
    stored = dict.fromkeys(t.name for t in spec.base_tags)
    place = {name: i for i, name in enumerate(dict.fromkeys([*stored, *(t.name for t in spec.derived)]))}
    features = tuple((place[f.tag], f.lag, f.steps) for f in spec.features)
    derived = tuple((place[t.name], placed(t.expr, place), t.range, placed(t.valid, place)) for t in spec.derived)
    columns = tuple((place[t.name], ahead) for t, ahead in zip(spec.base_tags, spec.base_ahead, strict=True))
    rows = spec.period_ns, spec.length, spec.stride, spec.every, columns
    return rows, features, derived, placed(spec.when, place)


def placed(text: str | None, place: Mapping[str, object]) -> str | None:
    """An expression's arithmetic with places for names: equal where only those differ. Raises ExpressionError."""
    if text is None:
        return None
    names(text)  # refuses what is no expression, so that the rest may trust the tree
    return ast.dump(_Placed(place).visit(ast.parse(text.strip(), mode="eval").body))


class _Placed(ast.NodeTransformer):
    """A tag's place instead of its name, however it is written."""

    def __init__(self, place: Mapping[str, object]) -> None:
        self.place = place

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._at(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._at(ast.unparse(node))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if isinstance(node.func, ast.Name) and node.func.id == "tag":
            return self._at(ast.literal_eval(node.args[0]))
        node.args = [self.visit(argument) for argument in node.args]  # a function keeps its name
        return node

    def _at(self, name: str) -> ast.expr:
        return ast.Name(id=str(self.place[name]), ctx=ast.Load())
