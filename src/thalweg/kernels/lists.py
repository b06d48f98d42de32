"""Formulas on lists of tensors: an operation is one of torch's ``_foreach`` functions on all of them.

What is computed is what `thalweg.trace.evaluate` computes, tensor by tensor.  A list whose last use has come is
overwritten, and a product is added, or subtracted, in the same operation: so Adam takes as few operations as torch's.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# torch does not declare the types of these functions.

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from thalweg.symbols import Symbol
from thalweg.trace import Graph, compute, operands
from thalweg.trace import evaluate as evaluated

List: TypeAlias = list[Tensor]

_UNARY = frozenset({"sqrt", "abs", "neg", "sign", "exp", "log", "sin", "cos", "tanh"})
_NAMES = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "maximum": "maximum", "minimum": "minimum"}


def elementwise(of: Graph) -> bool:
    """Whether a graph is one pass over the elements: no sums, no totals, no words for arrays."""
    return all(n.kind != "array" and n.op not in ("sum", "size", "total") for n in of.nodes)


def evaluate(of: Graph, inputs: Mapping[str, Any], spare: Iterable[str]) -> dict[str, Any]:
    """The outputs of a graph for lists of tensors and for numbers.

    Args:
        of: an element-wise graph.
        inputs: by name, a list of tensors or a float.
        spare: the inputs whose memory may be overwritten.
    """
    return _Evaluation(of, inputs, frozenset(spare)).results()


class _Evaluation:
    def __init__(self, of: Graph, inputs: Mapping[str, Any], spare: frozenset[str]) -> None:
        self.of = of
        self.inputs = inputs
        self.left = of.uses()
        self.uses = dict(self.left)
        self.made: dict[Symbol, List] = {}
        self.mine = {node for node in of.nodes if node.op != "input" or node.args[0] in spare}
        wanted = {n: n for n in of.nodes if n.kind == "number"}
        graph = Graph(tuple(wanted), {str(k): n for k, n in enumerate(wanted)})
        found = evaluated(graph, inputs)
        self.numbers = {n: float(found[str(k)]) for k, n in enumerate(wanted)}

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, node in self.of.outputs.items():
            found[name] = self.numbers[node] if node.kind == "number" else self.find(node)
        return found

    def find(self, node: Symbol) -> List:
        if node not in self.made:
            self.made[node] = self.inputs[node.args[0]] if node.op == "input" else self.computed(node)
        return self.made[node]

    def make(self, *nodes: Symbol) -> None:
        """Compute operands, all before one is taken: what computes one may be the last use of another."""
        for node in nodes:
            if node.kind != "number":
                self.find(node)

    def take(self, node: Symbol) -> tuple[List, bool]:
        """An operand, and whether it may be overwritten: this was its last use."""
        made = self.find(node)
        self.left[node] -= 1
        return made, self.left[node] == 0 and node in self.mine

    def number(self, node: Symbol) -> float:
        self.left[node] -= 1
        return self.numbers[node]

    def computed(self, node: Symbol) -> List:
        op, args = node.op, node.args
        if op in ("add", "sub") and all(x.kind == "value" for x in args):
            return self.added(node)
        if op == "pow" and args[1].op == "const" and args[1].args[0] == 2:
            x, mine = self.take(args[0])
            self.left[args[1]] -= 1
            return self.run("mul", (x, mine), x)
        if op == "where" and args[0].kind == "number":
            # The choice is the same list under another name, so neither may be overwritten.
            self.mine.discard(node)
            return self.find(args[1] if self.numbers[args[0]] else args[2])
        if op in _UNARY:
            return self.run(op, self.take(args[0]))
        if op in _NAMES and args[0].kind == "value":
            if args[1].kind == "number":
                return self.run(_NAMES[op], self.take(args[0]), self.number(args[1]))
            return self.pair(op, args)
        if op in ("add", "mul", "maximum", "minimum"):
            return self.run(_NAMES[op], self.take(args[1]), self.number(args[0]))
        if op == "sub":  # from a number
            x = self.run("neg", self.take(args[1]))
            return self.run("add", (x, True), self.number(args[0]))
        if op == "div" and self.uses[args[1]] and args[1].kind == "value":
            x = self.run("reciprocal", self.take(args[1]))
            return self.run("mul", (x, True), self.number(args[0]))
        return self.each(node)

    def pair(self, op: str, args: Sequence[Symbol]) -> List:
        self.make(*args)
        a, mine = self.take(args[0])
        b, other = self.take(args[1])
        if other and not mine and op in ("mul", "maximum", "minimum"):
            return self.run(_NAMES[op], (b, True), a)
        return self.run(_NAMES[op], (a, mine and a is not b), b)

    def added(self, node: Symbol) -> List:
        """A sum or difference, of which a term that is a product is added as it is computed."""
        first, second = node.args
        if node.op == "add" and self.scaled(first) and self.scaled(second):
            weights = [self.numbers[x.args[0]] for x in node.args]
            if abs(sum(weights) - 1) < 1e-15:  # a weighted mean
                self.make(first.args[1], second.args[1])
                own, other = self.take(first.args[1]), self.take(second.args[1])[0]
                for x in node.args:
                    self.number(x.args[0])
                return self.run("lerp", (own[0], own[1] and own[0] is not other), other, weight=weights[1])
        factor, op, terms = self.term(second)
        if op is None and factor is None and node.op == "add":
            factor, op, terms = self.term(first)
            if op is not None or factor is not None:
                first = second
        if op is None and factor is None:
            return self.pair_of_sum(node)
        k = (1.0 if factor is None else factor) * (-1.0 if node.op == "sub" else 1.0)
        self.make(*terms, first)
        parts = [self.take(x)[0] for x in terms]
        onto = self.take(first)
        if op is None:
            return self.run("add", onto, parts[0], alpha=k)
        return self.run("addcmul" if op == "mul" else "addcdiv", onto, *parts, value=k)

    def pair_of_sum(self, node: Symbol) -> List:
        self.make(*node.args)
        a, mine = self.take(node.args[0])
        b, other = self.take(node.args[1])
        if other and not mine and node.op == "add":
            return self.run("add", (b, True), a)
        return self.run(_NAMES[node.op], (a, mine and a is not b), b)

    def term(self, x: Symbol) -> tuple[float | None, str | None, tuple[Symbol, ...]]:
        """k, an operation and its operands, where `x` is used only here and is k·y, k·y·z or k·y / z."""
        factor: float | None = None

        def unscaled(x: Symbol) -> tuple[Symbol, bool]:
            nonlocal factor
            if not self.scaled(x):
                return x, False
            factor = (1.0 if factor is None else factor) * self.number(x.args[0])
            return x.args[1], True

        x, _ = unscaled(x)
        if not (self.alone(x) and all(y.kind == "value" for y in operands(x))):
            return factor, None, (x,)
        if x.op == "pow" or x.op not in ("mul", "div"):
            return factor, None, (x,)
        y, _ = unscaled(x.args[0])
        return factor, x.op, (y, x.args[1])

    def scaled(self, x: Symbol) -> bool:
        """Whether a term is a number times a value, and is used only here."""
        return x.op == "mul" and x.args[0].kind == "number" and x.args[1].kind == "value" and self.alone(x)

    def alone(self, x: Symbol) -> bool:
        return x.op not in ("input", "const") and self.uses[x] == 1 and x not in self.made

    def run(self, name: str, first: tuple[List, bool], *others: Any, **named: Any) -> List:
        x, mine = first
        if mine:
            getattr(torch, f"_foreach_{name}_")(x, *others, **named)
            return x
        return list(cast("Sequence[Tensor]", getattr(torch, f"_foreach_{name}")(x, *others, **named)))

    def each(self, node: Symbol) -> List:
        """What torch has no function of lists for, tensor by tensor."""
        self.make(*node.args)
        parts = [self.number(x) if x.kind == "number" else self.take(x)[0] for x in node.args]
        count = next(len(x) for x in parts if isinstance(x, list))
        chosen = [[x[k] if isinstance(x, list) else x for x in parts] for k in range(count)]
        found = [compute(node, some) for some in chosen]
        # What a word leaves as it was may be needed again.
        return [y.clone() if any(y is x for x in some) else y for y, some in zip(found, chosen, strict=True)]
