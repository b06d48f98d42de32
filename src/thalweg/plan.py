"""A traced step, cut into what runs one after the other: passes over the elements, and words for arrays between them.

A pass is compiled.  What it sums up over a tensor are numbers for all that follows; what the words for arrays need, it
writes to memory.  The words for arrays are operations on whole tensors; what they give is read by later passes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thalweg.rule import Rule
from thalweg.stages import Stages
from thalweg.symbols import MATRICES, Axes, Symbol
from thalweg.trace import Graph, graph, number, operands, step, value


@dataclass(frozen=True)
class Stage:
    """A pass over the elements, and the words for arrays that come after it; each may be missing.

    Attributes:
        elements: the terms of sums as ``r.0`` …, of sums of rows as ``y.0`` …, of columns as ``z.0`` …; values that are
            written to memory as ``w.0`` …; and in the last stage what the step computes.
        arrays: numbers as ``r.*``, values as ``w.*``, a number per row as ``y.*``, per column as ``z.*``, arrays for
            later stages as ``a.*``, the arrays of the new state.
    """

    elements: Graph | None
    arrays: Graph | None


def stages(of: Graph, rows: bool = False) -> tuple[Stage, ...]:
    """The stages of a step.

    Besides those of the step, a stage has as inputs what stages before it give; the count of elements of the tensor,
    ``n``; and that along some of its axes, such as ``n.0``.

    Args:
        of: a graph from `thalweg.trace.step`.
        rows: whether a pass sums up rows and columns of matrices, and reads a number per row or column, itself.
    """
    least: dict[Symbol, int] = {}
    while True:
        cutter = _Cutter(rows, least)
        made = cutter.stages(of)
        later = cutter.together(of)
        if later == least:
            return made
        least = later


_EXAMPLE = (1_024, 1_024)

ROW, COLUMN = ((0,), ()), ((), (1,))
"""The shapes of a number per row, and per column, of a matrix."""


def has_rows(of: Graph) -> bool:
    """Whether a step of matrices has numbers per row or per column."""
    return any(node.axes in (ROW, COLUMN) for node in of.nodes)


def passes(of: Graph) -> tuple[Graph, ...]:
    """The passes over the elements among the stages of a step."""
    return tuple(stage.elements for stage in stages(of) if stage.elements)


class _Cutter:
    """Decides where each node is computed: pass k is place 2k, and the words for arrays after it are place 2k + 1."""

    def __init__(self, rows: bool, least: Mapping[Symbol, int]) -> None:
        self.rows = rows
        self.least = least
        self.place: dict[Symbol, int] = {}
        self.arrays: set[Symbol] = set()
        self.made: dict[Symbol, Any] = {}
        self.lazy: set[Symbol] = set()
        self.ready: dict[Symbol, Any] = {}
        self.within: dict[Symbol, Any] = {}
        self.inside: dict[tuple[Symbol, int], Any] = {}
        self.named: dict[tuple[str, Symbol], str] = {}
        self.results: dict[int, dict[str, Any]] = {}
        self.inputs: dict[str, Symbol] = {}
        self.whole: Axes | None = None

    def stages(self, of: Graph) -> tuple[Stage, ...]:
        self.inputs = of.inputs
        self.lazy = _lazy(of)
        self.whole = next((x.axes for x in self.inputs.values() if x.kind == "value"), None)
        for node in of.nodes:
            self._visit(node)
        last = 2 * max((-(-self.place[node] // 2) for node in of.nodes), default=0)
        for name, node in of.outputs.items():
            if node.kind == "array":
                if node is not self.inputs.get(name):
                    self._result(self.place[node], name, self.made[node])
            else:
                self._result(last, name, self._in_pass(node))
        found = [
            Stage(*(graph(self.results[k]) if k in self.results else None for k in (first, first + 1)))
            for first in range(0, last + 1, 2)
        ]
        return tuple(stage for stage in found if stage.elements or stage.arrays)

    def _visit(self, node: Symbol) -> None:
        found = operands(node)
        place = max((self.place[x] for x in found), default=0)
        if node.op in ("input", "const"):
            self.place[node], self.made[node] = 0, node
            if node.kind == "array":
                self.arrays.add(node)
        elif node.op in ("size", "size_over"):
            self.place[node], self.made[node] = 0, _count(node)
        elif node.op == "sum" and found[0] not in self.arrays:
            place += place % 2
            self.place[node] = place + 1
            self.made[node] = number(self._name(place, "r", node, self._in_pass(found[0])))
        elif self.rows and node.op == "sum_over" and node.axes in (ROW, COLUMN) and found[0] not in self.arrays:
            place += place % 2
            self.place[node] = place + 1
            name = self._name(place, self._line(node), node, self._in_pass(found[0]))
            self.made[node] = self.ready[node] = value(name, node.axes)
            self.arrays.add(node)
        elif self._is_for_arrays(node):
            self.place[node] = max(self.least.get(node, 1), *(self._ready(x) for x in found))
            self.made[node] = Symbol(node.op, tuple(self._in_slot(x, self.place[node]) for x in found), how=node.how)
            self.arrays.add(node)
        elif node.kind == "number":
            self.place[node] = place
            self.made[node] = Symbol(node.op, tuple(map(self._number, found)), how=node.how)
            inside = tuple(self._number(x, place) for x in found)
            self.within[node] = Symbol(node.op, inside, how=node.how)
        else:
            if any(x in self.arrays and x.kind == "array" for x in found):
                place = max(place, 1)  # an array of the state, too, is first brought to where a pass finds it
            self.place[node] = place + place % 2
            self.made[node] = Symbol(node.op, tuple(map(self._in_pass, found)), how=node.how)

    def _is_for_arrays(self, node: Symbol) -> bool:
        if node.op == "remainder" or (node.kind == "number" and node.op not in {"sum", *MATRICES}):
            return False
        return node.kind == "array" or node.op in {"sum", "when"} or node.op in MATRICES

    def _ready(self, x: Symbol) -> int:
        """The earliest place between passes at which an operand is there."""
        place = self.place[x]
        if x.kind == "number" or x in self.arrays:
            return max(place + (place + 1) % 2, 1)
        return place + 1 + place % 2

    def _number(self, x: Symbol, place: int = 0) -> Any:
        """A number as an operand at a place; between the same passes it need not be handed on."""
        if place % 2 and self.place[x] == place:
            return self.within.get(x, self.made[x])
        return number(self._name(self.place[x], "r", x, self.made[x])) if x in self.arrays else self.made[x]

    def _in_pass(self, x: Symbol) -> Any:
        """An operand in a pass: what words for arrays give was written to memory, if it is no number."""
        if x not in self.arrays:
            return self.made[x]
        if x.kind == "number":
            return self._number(x)
        if x in self.ready:
            return self.ready[x]
        if self.rows and x.axes in (ROW, COLUMN):
            return value(self._name(max(self.place[x], 1), self._line(x), x, self.made[x]), x.axes)
        return value(self._name(max(self.place[x], 1), "w", x, self.made[x]), self.whole)

    def _line(self, x: Symbol) -> str:
        return "y" if x.axes == ROW else "z"

    def _in_slot(self, x: Symbol, place: int) -> Any:
        """An operand of a word for arrays."""
        if x.kind == "number":
            return self._number(x, place)
        if x in self.arrays:
            if self.place[x] in (0, place) or x in self.ready:
                return self.made[x]
            if x in self.lazy:
                return self._within(x, place)
            return value(self._name(self.place[x], "a", x, self.made[x]), x.axes)
        if x.op == "input" and x.args[0].startswith("s."):
            return x
        return value(self._name(self.place[x] + self.place[x] % 2, "w", x, self.made[x]), x.axes)

    def _within(self, x: Symbol, place: int) -> Any:
        """What is only needed now and then, computed where it is needed."""
        if (x, place) not in self.inside:
            self.inside[x, place] = Symbol(x.op, tuple(self._in_slot(y, place) for y in operands(x)), how=x.how)
        return self.inside[x, place]

    def together(self, of: Graph) -> dict[Symbol, int]:
        """Where what is computed now and then should be: all that has one condition at one place, the last."""
        places: dict[Symbol, int] = {}
        chosen = [node for node in of.nodes if node.op == "when" and node in self.arrays]
        for node in chosen:
            places[node.args[0]] = max(places.get(node.args[0], 0), self.place[node])
        return {node: places[node.args[0]] for node in chosen}

    def _name(self, place: int, kind: str, node: Symbol, made: Any) -> str:
        """The name under which what a node gives is handed on."""
        if (kind, node) not in self.named:
            self.named[kind, node] = f"{kind}.{sum(kind == other for other, _ in self.named)}"
            self._result(place, self.named[kind, node], made)
        return self.named[kind, node]

    def _result(self, place: int, name: str, made: Any) -> None:
        self.results.setdefault(place, {})[name] = made


def _lazy(of: Graph) -> set[Symbol]:
    """What is only needed where `thalweg.matrices.when` takes the new."""
    users: dict[Symbol, list[Symbol]] = {node: [] for node in of.nodes}
    for node in of.nodes:
        for x in operands(node):
            users[x].append(node)
    found: set[Symbol] = set()
    outputs = set(of.outputs.values())
    for node in reversed(of.nodes):
        free = (
            user in found or (user.op == "when" and node is not user.args[0] and node is not user.args[2])
            for user in users[node]
        )
        if node not in outputs and users[node] and all(free):
            found.add(node)
    return found


def _count(node: Symbol) -> Any:
    x: Symbol = node.args[0]
    if node.op == "size" and x.kind != "array":
        return number("n")
    known = x.known()
    chosen: Sequence[int] = node.how or range(len(known))
    axes = sorted(axis for k in chosen for axis in known[k])
    return number(".".join(["n", *map(str, axes)])) if axes else 1.0


def bytes_per_parameter(
    rule: Rule, dtype: torch.dtype = torch.float32, state_dtype: torch.dtype | None = None, form: Stages = Stages()
) -> int:
    """The minimum number of bytes that a step moves per parameter: it reads what it uses and writes what it changes.

    Args:
        rule: the rule; one that depends on the shape, for matrices.
        dtype: of parameters and gradients.
        state_dtype: of the rule's state and the average of the weights; by default float32 for 16-bit parameters,
            else as the parameters.
        form: further stages of the step.
    """
    rule = rule.fit(_EXAMPLE) if rule.fits else rule
    kept = state_dtype or (torch.float32 if dtype.itemsize < 4 else dtype)
    cut = [stage.elements for stage in stages(step(rule, form), rows=True) if stage.elements]
    read = [name for part in cut for name, node in part.inputs.items() if node.kind == "value"]
    written = [
        name
        for name, node in cut[-1].outputs.items()
        if node.kind == "value" and not (node.op == "input" and node.args[0] == name)
    ]
    moved = (name for name in (*read, *written) if not name.startswith("w."))
    return sum((dtype if name in ("p", "g") else kept).itemsize for name in moved)


def operations(rule: Rule, shape: tuple[int, ...] = _EXAMPLE) -> float:
    """The floating-point operations of a step of a parameter, without those that are done now and then.

    Each addition, product, root … of an element counts as one, a product of matrices of m × k and k × n as 2mkn,
    whatever the engine saves where a product is symmetric.
    """
    rule = rule.fit(shape) if rule.fits else rule
    total = 0.0
    for stage in stages(step(rule, Stages(), len(shape)), len(shape) == 2):
        for part in (stage.elements, stage.arrays):
            lazy = _lazy(part) if part else set[Symbol]()
            total += sum(_cost(node, shape) for node in (part.nodes if part else ()) if node not in lazy)
    return total


_FREE = frozenset({"input", "const", "transpose", "unfold", "fold", "arranged", "when", "eye", "single", "rounded"})


def _cost(node: Symbol, shape: tuple[int, ...]) -> float:
    """The floating-point operations of a node for a parameter of a shape."""

    def extent(x: Symbol) -> list[int]:
        axes = tuple((k,) for k in range(len(shape))) if x.axes is None else x.axes
        return [math.prod(shape[k] for k in dimension) for dimension in axes]

    if node.op in _FREE or (node.kind == "number" and node.op not in MATRICES):
        return 0.0
    sizes = [extent(x) for x in operands(node)] or [[1]]
    if node.op == "matmul":
        return 2.0 * sizes[0][0] * sizes[0][1] * sizes[1][1]
    if node.op == "orthogonalize":
        short, long = sorted(sizes[0])
        return float(node.how[0]) * (4.0 * short**2 * long + 2.0 * short**3)
    if node.op in ("qr", "eigenvectors", "eigenvalues", "inverse_root"):
        return {"qr": 4 / 3, "inverse_root": 15.0}.get(node.op, 9.0) * max(sizes[0]) ** 3
    return float(max(math.prod(extent(node)), *(math.prod(x) for x in sizes)))
