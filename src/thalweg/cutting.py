"""A traced step, cut into what runs one after the other: passes over the elements, and words for arrays between them.

A pass is compiled.  What it sums up over a tensor are numbers for all that follows; what the words for arrays need, it
writes to memory.  The words for arrays are operations on whole tensors; what they give is read by later passes.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from thalweg.separation import COLUMN, ROW
from thalweg.symbols import MATRICES, Axes, Symbol
from thalweg.trace import Graph, graph, number, operands, value

RESOLUTION = "resolution"
"""The number that is the spacing of numbers at 1, in the type of the arithmetic."""


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


def stages(of: Graph, rows: bool = False, early: bool = False) -> tuple[Stage, ...]:
    """The stages of a step.

    Besides those of the step, a stage has as inputs what stages before it give; the count of elements of the tensor,
    ``n``; that along some of its axes, such as ``n.0``; and `RESOLUTION`.

    Args:
        of: a graph from `thalweg.trace.step`.
        rows: whether a pass sums up rows and columns of matrices, and reads a number per row or column, itself.
        early: whether a pass before the last may write state, where fewer bytes are moved then: later passes read the
            new state instead of computing it again.  What is stored must be what was computed, not rounded further,
            and nothing between the passes may fail.
    """
    best, written = _cut(of, rows, {})
    if early and not any(node.op in _FAIL for node in of.nodes):
        for chosen in _subsets(written):
            try:
                made, _ = _cut(of, rows, chosen)
            except _NeededLaterError:
                continue
            if len(moved(made)) < len(moved(best)):
                best = made
    return best


_FAIL = frozenset({"eigenvectors", "eigenvalues", "inverse_root", "qr"})
_MOST = 4  # fields of the state: of more, only all together are tried


class _NeededLaterError(Exception):
    """A state would be overwritten before it is read for the last time."""


def _cut(of: Graph, rows: bool, early: Mapping[str, int]) -> tuple[tuple[Stage, ...], dict[str, int]]:
    """The stages, with some state written at earlier places; and where state could be written at the earliest."""
    least: dict[Symbol, int] = {}
    while True:
        cutter = _Cutter(rows, least, early)
        made = cutter.stages(of)
        later = cutter.together(of)
        if later == least:
            return made, cutter.earliest(of)
        least = later


def _subsets(of: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """All choices of some fields; of many, all or none."""
    sizes = range(1, len(of) + 1) if len(of) <= _MOST else (len(of),)
    for size in sizes:
        for names in itertools.combinations(of, size):
            yield {name: of[name] for name in names}


def moved(of: Sequence[Stage]) -> list[str]:
    """The arrays as large as the parameter that the passes read and write, as often as they do."""
    names: list[str] = []
    for elements in (stage.elements for stage in of):
        if elements:
            names += [name for name, x in elements.inputs.items() if x.kind == "value"]
            names += [
                name
                for name, x in elements.outputs.items()
                if x.kind == "value" and name[:2] not in ("r.", "y.", "z.")
                if not (x.op == "input" and x.args[0] == name)
            ]
    return names


class _Cutter:
    """Decides where each node is computed: pass k is place 2k, and the words for arrays after it are place 2k + 1."""

    def __init__(self, rows: bool, least: Mapping[Symbol, int], early: Mapping[str, int]) -> None:
        self.rows = rows
        self.least = least
        self.early = early
        self.last = 0
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
        self.lazy = lazy(of)
        self.whole = next((x.axes for x in self.inputs.values() if x.kind == "value"), None)
        for node in of.nodes:
            self._visit(node)
        self.last = last = 2 * max((-(-self.place[node] // 2) for node in of.nodes), default=0)
        for name, node in of.outputs.items():
            if node.kind == "array":
                if node is not self.inputs.get(name):
                    self._result(self.place[node], name, self.made[node])
            else:
                self._result(self.early.get(name, last), name, self._in_pass(node))
        written = {id(self.made[of.outputs[name]]): name for name in self.early}
        found = [
            Stage(*(graph(self._after(k, written)) if k in self.results else None for k in (first, first + 1)))
            for first in range(0, last + 1, 2)
        ]
        return tuple(stage for stage in found if stage.elements or stage.arrays)

    def earliest(self, of: Graph) -> dict[str, int]:
        """The first pass that could write each field of the state, where it is not the last."""
        return {
            name: self.place[node]
            for name, node in of.outputs.items()
            if name.startswith("s.") and node.kind == "value" and node.op != "input" and node not in self.arrays
            if self.place[node] < self.last and self.place[node] in self.results
        }

    def _after(self, place: int, written: Mapping[int, str]) -> dict[str, Any]:
        """The results at a place, computed from the new state where it is written before."""
        done: dict[int, Any] = {}
        before = {name for name, k in self.early.items() if k < place}

        def later(x: Any) -> Any:
            if not isinstance(x, Symbol) or not before:
                return x
            if id(x) not in done:
                done[id(x)] = self._renewed(x, written, before, later)
            return done[id(x)]

        return {name: later(x) for name, x in self.results[place].items()}

    def _renewed(self, x: Symbol, written: Mapping[int, str], before: set[str], later: Callable[[Any], Any]) -> Symbol:
        name = written.get(id(x))
        if name in before:
            return value(str(name), x.axes)
        if x.op in ("input", "const"):
            if x.op == "input" and x.args[0] in before:
                raise _NeededLaterError
            return x
        args = tuple(map(later, x.args))
        return x if all(map(is_, args, x.args)) else Symbol(x.op, args, how=x.how)

    def _visit(self, node: Symbol) -> None:
        found = operands(node)
        place = max((self.place[x] for x in found), default=0)
        if node.op in ("input", "const"):
            self.place[node], self.made[node] = 0, node
            if node.kind == "array":
                self.arrays.add(node)
        elif node.op == RESOLUTION:
            self.place[node], self.made[node] = 0, number(RESOLUTION)
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


def lazy(of: Graph) -> set[Symbol]:
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
