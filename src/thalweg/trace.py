"""A rule, or a whole step around it, as an expression graph, from which printers and speed limits are derived.

``trace.rule(rule)`` runs ``update`` on symbols.  Equal expressions become one node.  A node that depends only on
hyperparameters and the step count is marked as a number, which the host computes once per step in float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from thalweg import stages
from thalweg.fields import gathered, leaves, number_fields
from thalweg.rule import Rule
from thalweg.stages import Scalars, Stages
from thalweg.symbols import MATRICES, OPERATORS, WORDS, Axes, Symbol, TraceError

__all__ = ["Graph", "TraceError", "evaluate", "graph", "rule", "step"]


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced expression.

    Attributes:
        nodes: every node once, operands before what uses them.
        outputs: the results by name: ``p``, the state's fields as ``s.exp_avg``, ``ema``.
    """

    nodes: tuple[Symbol, ...]
    outputs: Mapping[str, Symbol]

    @property
    def inputs(self) -> dict[str, Symbol]:
        """The inputs that are used, by name."""
        return {n.args[0]: n for n in self.nodes if n.op == "input"}

    def uses(self) -> dict[Symbol, int]:
        """How often each node is an operand or an output."""
        count = dict.fromkeys(self.nodes, 0)
        for node in self.nodes:
            for operand in operands(node):
                count[operand] += 1
        for node in self.outputs.values():
            count[node] += 1
        return count


def operands(node: Symbol) -> tuple[Symbol, ...]:
    """The nodes that a node is computed from."""
    return () if node.op in ("input", "const") else node.args


def value(name: str, axes: Axes | None = None) -> Any:
    """An input with one element per parameter, or of another shape in the parameter's axes."""
    return Symbol("input", (name,), "value", axes)


def number(name: str) -> Any:
    """An input that is one number."""
    return Symbol("input", (name,), "number")


def _state(rule: Rule, axes: Axes | None) -> Any:
    numbers = number_fields(rule.State)
    first = rule.init(cast(Any, 0.0) if axes is None else value("p", axes))

    def found(name: str, x: Any) -> Any:
        if name in numbers:
            return number(f"s.{name}")
        return value(f"s.{name}", x.axes if isinstance(x, Symbol) else axes)

    return gathered(first, found)


def _axes(rule: Rule, ndim: int) -> Axes | None:
    """The shape of the parameters in a trace: not known where the formula is the same for all."""
    # A number is traced as a vector: without axes it would be one of the numbers that the host computes.
    return tuple((k,) for k in range(max(ndim, 1))) if rule.fits else None


def _symbolic(rule: Rule, prefix: str) -> Rule:
    return rule.bind({name: number(f"{prefix}.{name}") for name in rule.numbers})


def rule(rule: Rule, ndim: int = 2) -> Graph:
    """The update alone: inputs ``p``, ``g``, ``s.*``, ``t`` and ``h.*``; outputs ``p`` and ``s.*``.

    Args:
        rule: the rule; if it depends on the shape, as it is for a shape.
        ndim: the number of axes of the parameter, on which rules with arrays depend.

    Raises:
        TraceError: the rule branches on a traced value or uses a function that `thalweg.maths` does not have.
    """
    axes = _axes(rule, ndim)
    p, state = _symbolic(rule, "h").update(value("p", axes), value("g", axes), _state(rule, axes), number("t"))
    return graph({"p": p, **_outputs(state)})


def step(rule: Rule, form: Stages, ndim: int = 2) -> Graph:
    """A whole step: as `rule`, with the stages' numbers as ``c.*``; ``before.*`` and ``after.*`` if looking ahead.

    Raises:
        TraceError: as `rule` raises it.
    """
    axes = _axes(rule, ndim)
    ema = value("ema", axes) if form.ema else None
    new = stages.step(
        form, _symbolic(rule, "h"), _symbolic(rule, "before"), _symbolic(rule, "after"),
        value("p", axes), value("g", axes), _state(rule, axes), ema, number("t"), _scalars(),
    )  # fmt: skip
    return graph({"p": new.p, **_outputs(new.state), **({"ema": new.ema} if form.ema else {})})


def totals(of: Graph) -> bool:
    """Whether a graph has totals over all parameters."""
    return any(node.op == "total" for node in of.nodes)


def arrays(of: Graph) -> bool:
    """Whether a graph has arrays of other shapes than the parameter, or words for matrices."""
    return any(node.kind == "array" or node.op in MATRICES for node in of.nodes)


def square(form: Stages, strict: bool) -> Graph:
    """The squares that the global norm sums up, as ``r.0``: inputs ``g`` and ``c.*``; see `stages.gradient`."""
    g = stages.gradient(form, value("g"), _scalars(), strict)
    return graph({"r.0": g * g})


def point(rule: Rule, ndim: int = 2) -> Graph | None:
    """The lookahead point, as ``p``: inputs ``p``, ``s.*`` and ``h.*``; None for methods without one."""
    axes = _axes(rule, ndim)
    ahead = _symbolic(rule, "h").lookahead(_state(rule, axes))
    return None if ahead is None else graph({"p": value("p", axes) + ahead})


def is_free(rule: Rule, ndim: int = 2) -> bool:
    """Whether the step and the new state of a rule do not depend on the parameter; False if it cannot be traced."""
    new: Any
    axes = _axes(rule, ndim)
    p = value("p", axes)
    try:
        new, state = _symbolic(rule, "h").update(p, value("g", axes), _state(rule, axes), number("t"))
    except TraceError:
        return False
    while new is not p:
        if new.op not in ("add", "sub") or _has(new.args[1], p):
            return False
        new = new.args[0]
    return not any(_has(x, p) for x in leaves(state).values())


def _has(x: Any, p: Symbol) -> bool:
    """Whether an expression contains `p`."""
    seen: set[int] = set()
    waiting = [x]
    while waiting:
        node = waiting.pop()
        if node is p:
            return True
        if isinstance(node, Symbol) and id(node) not in seen:
            seen.add(id(node))
            waiting += operands(node)
    return False


def _scalars() -> Scalars:
    return Scalars(*(number(f"c.{name}") for name in Scalars._fields))


def _outputs(state: Any) -> dict[str, Any]:
    return {f"s.{name}": x for name, x in leaves(state).items()}


def graph(outputs: Mapping[str, Any], reduce: bool = False) -> Graph:
    """The graph of some expressions, equal ones shared and constants folded.

    With `reduce`, divisions by numbers become products and factors that are numbers are collected, so that the host
    computes them.  That suits a kernel, but is no longer the formula as written.
    """
    build = _Builder(reduce)
    roots = {name: build.visit(x) for name, x in outputs.items()}
    ordered: dict[Symbol, None] = {}
    for root in roots.values():
        _visit(root, ordered)
    return Graph(tuple(ordered), roots)


def _visit(node: Symbol, ordered: dict[Symbol, None]) -> None:
    if node not in ordered:
        for operand in operands(node):
            _visit(operand, ordered)
        ordered[node] = None


class _Builder:
    """Rebuilds expressions so that equal ones are one node."""

    def __init__(self, reduce: bool) -> None:
        self.reduce = reduce
        self.shared: dict[tuple[Any, ...], Symbol] = {}
        self.done: dict[int, tuple[Any, Symbol]] = {}

    def visit(self, x: Any) -> Symbol:
        if not isinstance(x, Symbol):
            return self.constant(float(x))
        if id(x) not in self.done:
            if x.op == "const":
                made = self.constant(x.args[0])  # whatever its shape
            elif x.op == "input":
                made = self.shared.setdefault((x.op, x.args[0]), x)
            else:
                made = self.node(x.op, *(self.visit(a) for a in x.args), how=x.how)
            self.done[id(x)] = (x, made)  # keeps x alive, so that its id is not reused
        return self.done[id(x)][1]

    def constant(self, x: float) -> Symbol:
        return self.shared.setdefault(("const", repr(x)), Symbol("const", (x,), "number"))

    def node(self, op: str, *args: Symbol, how: tuple[Any, ...] = ()) -> Symbol:
        if all(a.op == "const" for a in args):
            return self.constant(float((OPERATORS | WORDS)[op](*(a.args[0] for a in args))))
        if op == "mul" and _is(args[0], 1.0):
            return args[1]
        if op in ("mul", "div", "pow") and _is(args[1], 1.0):
            return args[0]
        if op == "add" and _is(args[0], 0.0):
            return args[1]
        if op == "sub" and _is(args[0], 0.0):
            return self.node("neg", args[1])
        if op == "where" and args[0].op == "const":
            return args[1] if args[0].args[0] else args[2]
        if self.reduce and op in ("mul", "div"):
            a, b = args
            if op == "div" and b.kind == "number" and a.kind == "value":
                return self.node("mul", self.node("div", self.constant(1.0), b), a)
            if op == "mul" and b.kind == "number" and a.kind == "value":
                return self.node("mul", b, a)
            if op == "mul" and a.kind == "number" and b.op == "mul" and b.args[0].kind == "number":
                return self.node("mul", self.node("mul", a, b.args[0]), b.args[1])
        return self.shared.setdefault((op, how, *map(id, args)), Symbol(op, args, how=how))


def _is(node: Symbol, constant: float) -> bool:
    return node.op == "const" and node.args[0] == constant


def evaluate(of: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a graph for given inputs, floats or tensors; what no output needs this time is not computed."""
    values: dict[Symbol, Any] = {}

    def find(node: Symbol) -> Any:
        if node not in values:
            if node.op == "input":
                values[node] = inputs[node.args[0]]
            elif node.op == "const":
                values[node] = node.args[0]
            elif node.op == "when":
                condition, new, old = node.args
                values[node] = find(new if find(condition) else old)
            else:
                values[node] = compute(node, [find(x) for x in node.args])
        return values[node]

    return {name: find(node) for name, node in of.outputs.items()}


def compute(node: Symbol, operands: Sequence[Any]) -> Any:
    """An operation on floats or tensors."""
    word = OPERATORS.get(node.op) or WORDS[node.op]
    return word(*operands, how=node.how) if node.how else word(*operands)


def rounds(of: Graph) -> tuple[Graph, ...]:
    """A graph, cut where totals over all parameters must be known before what depends on them.

    Returns:
        graphs to be evaluated one after the other.  Each but the last gives what is to be totalled, as ``q.0``,
        ``q.1`` …; the totals are inputs of those that come later.
    """
    level: dict[Symbol, int] = {}
    found: dict[Symbol, Any] = {}
    made: dict[Symbol, Any] = {}
    for node in of.nodes:
        level[node] = max((level[x] for x in operands(node)), default=0) + (node.op == "total")
        if node.op == "total":
            made[node] = found[node] = number(f"q.{len(found)}")
        elif not operands(node):
            made[node] = node
        else:
            made[node] = Symbol(node.op, tuple(made[x] for x in operands(node)), how=node.how)
    parts = [
        graph({x.args[0]: made[node.args[0]] for node, x in found.items() if level[node] == k})
        for k in range(1, max(level.values(), default=0) + 1)
    ]
    return (*parts, graph({name: made[node] for name, node in of.outputs.items()}))
