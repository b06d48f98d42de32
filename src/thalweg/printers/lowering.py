"""A traced graph as straight-line code, before any language: what every printer for a compiler shares.

A step reads arrays, computes *values* (one per element) and needs *numbers* (one per step), which the host computes
beforehand in float64.  Here it is decided what is read and written, in which order nodes are computed, what each is
called, and which numbers are handed from the host to the element loop.  A printer brings a `Syntax`: how its language
writes each operation.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from thalweg.symbols import Symbol
from thalweg.trace import Graph, graph, operands

COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
"""The operators whose result is a truth value, which arithmetic and arrays take as 1 or 0."""

INFIX = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "eq": "{0} == {1}", "ne": "{0} != {1}",
}  # fmt: skip
"""The operators that most languages write alike."""


@dataclass(frozen=True)
class Types:
    """The dtypes of a kernel: of parameters and gradients, of the state, and of the arithmetic.

    Some fields of the state, ``arrays``, are of the type of the arithmetic, as sums along axes are.
    """

    parameter: torch.dtype
    state: torch.dtype
    arithmetic: torch.dtype
    arrays: frozenset[str] = frozenset()

    def of(self, array: str) -> torch.dtype:
        """The dtype of an array, by its name in the trace."""
        if array in ("p", "g"):
            return self.parameter
        if array.startswith("s.") and array.split(".")[1] in self.arrays:
            return self.arithmetic
        kinds = {"w": self.arithmetic, "y": self.arithmetic, "z": self.arithmetic, "part": torch.float64}
        return kinds.get(array.partition(".")[0], self.state)

    @property
    def exact(self) -> bool:
        """Whether nothing is reordered or contracted: in float64, whose users want the formula's own numbers."""
        return self.arithmetic == torch.float64


@dataclass(frozen=True)
class Syntax:
    """How a language writes operations.

    Attributes:
        formats: each operation and word by name, with its operands as ``{0}``, ``{1}`` …
        truth: a truth value as a number.
        constant: a constant.
    """

    formats: Mapping[str, str]
    truth: str
    constant: Callable[[float], str]


@dataclass
class Lowered:
    """A graph with names: its parts in the order in which they are computed.

    Attributes:
        graph: equal expressions shared, constants folded.
        names: what each node is called.
        read: the arrays that are read, by their names in the trace.
        changed: the arrays that are written, and what with.
        kept: the numbers of the state, and their new values.
        scalars: the numbers that the element loop needs from the host, in the order of their first use.
    """

    graph: Graph
    names: dict[Symbol, str] = field(init=False)
    read: tuple[str, ...] = field(init=False)
    changed: dict[str, Symbol] = field(init=False)
    kept: dict[str, Symbol] = field(init=False)
    scalars: dict[Symbol, str] = field(init=False)

    def __post_init__(self) -> None:
        nodes, outputs = self.graph.nodes, self.graph.outputs
        self.names = {node: f"x{i}" for i, node in enumerate(nodes)}
        values = [n for n in nodes if n.kind == "value"]
        self.read = tuple(n.args[0] for n in values if n.op == "input")
        self.changed = {
            n: x for n, x in outputs.items() if x.kind == "value" and not (x.op == "input" and x.args == (n,))
        }
        self.kept = {name: x for name, x in outputs.items() if x.kind == "number"}
        used = [a for n in values for a in operands(n) if a.kind == "number" and not _squares(n, a)]
        self.scalars = {n: f"k{i}" for i, n in enumerate(dict.fromkeys(used))}

    @property
    def inputs(self) -> dict[str, str]:
        """The names of the inputs, arrays and numbers, by what they are called in the trace."""
        return {n.args[0]: self.names[n] for n in self.graph.nodes if n.op == "input"}

    @property
    def lines(self) -> dict[str, str]:
        """The names of what is read once per row or column of a matrix, by what they are called in the trace."""
        return {n.args[0]: self.names[n] for n in self.graph.nodes if n.kind == "array"}

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers that the host is given, by their names in the trace."""
        return tuple(n.args[0] for n in self.graph.nodes if n.op == "input" and n.kind == "number")

    def use(self, node: Symbol) -> str:
        """A node as an operand in the element loop: a value by its name, a number as a scalar from the host."""
        return self.scalars[node] if node.kind == "number" else self.names[node]

    def values(self, syntax: Syntax) -> list[tuple[str, str]]:
        """Names and expressions of what the element loop computes, in order."""
        return self._lines(syntax, "value", self.use)

    def host(self, syntax: Syntax) -> list[tuple[str, str]]:
        """Names and expressions of what the host computes, in order, constants among them."""
        return self._lines(syntax, "number", self.names.__getitem__)

    def _lines(self, syntax: Syntax, kind: str, use: Callable[[Symbol], str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for node in self.graph.nodes:
            if node.kind == kind and node.op == "const":
                found.append((self.names[node], syntax.constant(node.args[0])))
            elif node.kind == kind and node.op != "input":
                found.append((self.names[node], _expression(node, syntax, kind, use)))
        return found

    def unrolled(self, syntax: Syntax, elements: int) -> list[tuple[str, str]]:
        """Names and expressions of the whole graph, in order, for arrays of a few elements.

        A value has a line, and a name, for each element (see `element`); a sum is the sum of these.
        """
        found: list[tuple[str, str]] = []
        for node in self.graph.nodes:
            if node.op == "input":
                continue
            if node.op == "const":
                found.append((self.names[node], syntax.constant(node.args[0])))
            elif node.op in ("sum", "sum_over"):
                parts = [self.element(node.args[0], k) for k in range(elements)]
                found.append((self.names[node], " + ".join(parts)))
            elif node.op in ("size", "size_over"):
                found.append((self.names[node], syntax.constant(float(elements))))
            elif node.op == "total":
                found.append((self.names[node], self.names[node.args[0]]))
            elif node.kind == "number":
                found.append((self.names[node], _expression(node, syntax, None, self.names.__getitem__)))
            else:
                for k in range(elements):
                    text = _expression(node, syntax, None, lambda x, k=k: self.element(x, k))
                    found.append((self.element(node, k), text))
        return found

    def element(self, node: Symbol, k: int) -> str:
        """The name of an element of a node in `unrolled`; of a number, its only name."""
        return self.names[node] if node.kind == "number" else f"{self.names[node]}_{k}"

    def results(self) -> list[str]:
        """What the host hands on, by name: the scalars in order, then the new numbers of the state."""
        return [self.names[n] for n in (*self.scalars, *self.kept.values())]


def lower(traced: Graph, types: Types) -> Lowered:
    """A graph from `thalweg.trace`, factors that are numbers gathered for the host unless the types are exact."""
    return Lowered(graph(traced.outputs, reduce=not types.exact))


def arrays(lowered: Lowered, first: Iterable[str] = ("p", "g")) -> tuple[str, ...]:
    """The arrays that a kernel works on, in order: `first`, then what else is read, then what is only written."""
    return tuple(dict.fromkeys([*first, *lowered.read, *lowered.changed]))


def _squares(node: Symbol, exponent: Symbol) -> bool:
    """Whether a node is a square, written as a product."""
    return node.op == "pow" and node.args[1] is exponent and exponent.op == "const" and exponent.args[0] == 2


def _expression(node: Symbol, syntax: Syntax, kind: str | None, use: Callable[[Symbol], str]) -> str:
    """The text of an operation; `kind`: of the operands that are computed beside it, or None if all are."""
    if node.op == "pow" and _squares(node, node.args[1]):
        base = use(node.args[0])
        return syntax.formats["mul"].format(base, base)
    parts: list[str] = []
    for i, operand in enumerate(node.args):
        text = use(operand)
        # A truth value is a condition in `where`, and a number everywhere else; the host hands numbers over as floats.
        truth = operand.op in COMPARISONS and kind in (operand.kind, None)
        condition = node.op in ("where", "when") and i == 0
        parts.append(syntax.truth.format(text) if truth and not condition else text)
    return syntax.formats[node.op].format(*parts)
