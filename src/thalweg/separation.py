"""Roots and quotients of products of a row and a column, taken of each alone: so many per row, not one per element.

An estimate of second moments from their means over rows and columns is r·c/k, with one number r per row, c per column
and k per matrix.  Of g/√max(r·c/k, ε²) a loop over the elements need only compute g·min(r′·c′, 1/ε), with r′ = √(k/r)
and c′ = 1/√c.  That is the formula up to rounding, where r and c are not negative, as second moments are not.
"""

from typing import Any, NamedTuple

from thalweg.symbols import Axes, Symbol
from thalweg.trace import Graph, graph, operands

ROW, COLUMN = ((0,), ()), ((), (1,))
"""The shapes of a number per row, and per column, of a matrix."""


class _Parts(NamedTuple):
    """A product of a number per row, one per column, and bounds from below or above, each a number."""

    row: Any
    column: Any
    bound: tuple[str, Any] | None = None


def separated(of: Graph) -> Graph:
    """The graph of a step of matrices, with fewer roots and quotients of elements."""
    parts: dict[Symbol, _Parts] = {}
    made: dict[Symbol, Any] = {}
    for node in of.nodes:
        found = operands(node)
        made[node] = Symbol(node.op, tuple(made[x] for x in found), how=node.how) if found else node
        if node.axes in (ROW, COLUMN):
            parts[node] = _line(made[node], node.axes)
        elif node.kind == "value" and (own := _parts(node, parts, made)):
            parts[node] = own
            if node.op == "sqrt":
                made[node] = _product(own)
        elif node.op == "div" and found[1] in parts and found[1].kind == "value" and found[0].kind == "value":
            made[node] = made[found[0]] * _product(_inverse(parts[found[1]]))
    return graph({name: made[x] for name, x in of.outputs.items()})


def _line(x: Any, axes: Axes) -> _Parts:
    return _Parts(x, None) if axes == ROW else _Parts(None, x)


def _parts(node: Symbol, parts: dict[Symbol, _Parts], made: dict[Symbol, Any]) -> _Parts | None:
    """The parts of a value that is a product of a row and a column, or a root of such."""
    found = [parts.get(x) for x in operands(node)]
    if not found or found[0] is None:
        return None
    own, other = found[0], found[-1]
    if node.op == "mul" and other is not None and not own.bound and not other.bound:
        return _Parts(_times(own.row, other.row), _times(own.column, other.column))
    if own.row is None or own.column is None:
        return None
    by_number = len(found) == 2 and node.args[1].kind == "number" and not own.bound
    if node.op == "div" and by_number:
        return own._replace(row=own.row / made[node.args[1]])
    if node.op in ("maximum", "minimum") and by_number:
        return own._replace(bound=(node.op, made[node.args[1]]))
    if node.op == "sqrt":
        bound = own.bound and (own.bound[0], _root(own.bound[1]))
        return _Parts(_root(own.row), _root(own.column), bound)
    return None


def _times(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a * b


def _root(x: Any) -> Any:
    return Symbol("sqrt", (x,))


def _inverse(of: _Parts) -> _Parts:
    other = {"maximum": "minimum", "minimum": "maximum"}
    bound = of.bound and (other[of.bound[0]], 1 / of.bound[1])
    return _Parts(1 / of.row, 1 / of.column, bound)


def _product(of: _Parts) -> Any:
    x = of.row * of.column
    return x if of.bound is None else Symbol(of.bound[0], (x, of.bound[1]))
